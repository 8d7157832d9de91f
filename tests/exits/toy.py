"""A net of three stages small enough to be written down twice, and a policy that replays."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dynse.exits import AllExits
from dynse.layers.cost import LayerCost

BINS, WIDTH = 3, 4
COSTS = {"first": 10, "head0": 1, "one": 100, "head1": 2, "two": 1000, "head2": 3}


@dataclasses.dataclass(frozen=True)
class Toy:
    """first: tanh(W x); one and two: tanh(W x + U h); a head behind each."""

    exits: tuple[str, ...] = ("first", "one", "two")
    exit_index: int | None = None
    latency_frames = 0
    receptive_field_frames = None

    def clone(self, *, exit_index):
        return dataclasses.replace(self, exit_index=exit_index)

    def cost(self):
        if self.exit_index is None:
            return self._costs(*COSTS)
        return self._costs(*self.exits[: self.exit_index + 1], f"head{self.exit_index}")

    def memory_cost(self):
        return self._costs(*self.exits)

    def _costs(self, *names):
        return [LayerCost(name, 0, macs) for name, macs in COSTS.items() if name in names]

    def init_state(self, batch_size):
        return {name: jnp.zeros((batch_size, WIDTH)) for name in ("one", "two")}

    def apply(self, variables, frames, state, *, method):
        assert method == "all_exits"
        params = variables["params"]
        state, stages = dict(state), [jnp.tanh(frames[:, 0] @ params["first"])]
        for name in ("one", "two"):
            weights = params[name]
            state[name] = jnp.tanh(stages[-1] @ weights["x"] + state[name] @ weights["h"])
            stages.append(state[name])
        gains = tuple(
            jax.nn.sigmoid(stage @ params["heads"][index])[:, None]
            for index, stage in enumerate(stages)
        )
        return AllExits(state, gains, stages[0][:, None])


def variables(seed=0, controls=()):
    draw = np.random.default_rng(seed)

    def matrix(*shape):
        return draw.normal(size=shape).astype(np.float32)

    params = {
        "first": matrix(BINS, WIDTH),
        "one": {"x": matrix(WIDTH, WIDTH), "h": matrix(WIDTH, WIDTH) / 2},
        "two": {"x": matrix(WIDTH, WIDTH), "h": matrix(WIDTH, WIDTH) / 2},
        "heads": matrix(3, WIDTH, BINS),
    }
    return {"params": params, "exit_policy": controls}


def frames(batch=2, length=12, seed=1):
    return np.random.default_rng(seed).normal(size=(batch, length, BINS)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Replay:
    """Takes the exits of its controls (B, T)."""

    reads = "nothing"

    def cost(self):
        return []

    def init(self, batch_size):
        return jnp.zeros(batch_size, jnp.int32)

    def choose(self, controls, state, frame):
        return state + 1, jnp.take_along_axis(controls, state[:, None], axis=1)[:, 0]
