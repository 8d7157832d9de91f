"""A net with exits, run frame by frame as a policy chooses.

In each frame the layers run that the gain of the exit taken needs, and those that the policy has to
see before. A layer with a state (a GRU; a block of convolutions, whose state are past frames) that
does not run is skipped in that frame; with h its state,

    held        h stays                                                    SkippedState()
    decayed     h <- factor h                                              SkippedState(factor=0.9)
    refreshed   in frames 0, n, 2n, ... of the stream every layer with     SkippedState(every=8)
                a state runs, with the layers it reads, whatever the exit

Here every layer is computed and `where` drops what did not run: exact, and what it would have cost
is counted. What saves time in JAX is the program of one fixed exit (the network's `exit_index`); it
holds what it skips, so while states are held a stream may go from one program to the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dynse.exits.heads import AllExits, take_exit
from dynse.exits.macs import ExitMacs
from dynse.exits.policies import ExitCosts, ExitPolicy, Frame
from dynse.layers.cost import LayerCost


@dataclasses.dataclass(frozen=True)
class SkippedState:
    """What the state of a layer does in frames in which it is skipped.

    Attributes:
        factor: it is multiplied with it in each such frame; 1 holds it.
        every: every layer with a state runs in each frame whose number it divides; 0 for none.
    """

    factor: float = 1.0
    every: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.factor <= 1 or self.every < 0:
            raise ValueError(f"expected a factor in 0 to 1 and every >= 0, got {self}")


class MultiExitNet(Protocol):
    """A network whose state is a dictionary by the paths of the layers that have one.

    Attributes:
        exits: a name or number of each.
        latency_frames: frames that the output lags behind the input.
        policy_features: width of the features that a policy may see.
    """

    exits: Sequence[Any]
    latency_frames: int
    policy_features: int

    def clone(self, *, exit_index: int | None) -> MultiExitNet:
        """The same with one fixed exit, whose `cost()` lists the layers that it runs."""

    def cost(self) -> list[LayerCost]:
        """Of all layers, the one first that a policy may see."""

    def memory_cost(self) -> list[LayerCost]:
        """Of the layers that have to run for every layer with a state to run."""

    def init_state(self, batch_size: int) -> dict[str, Any]:
        """State before the first frame."""

    def apply(self, variables: Any, frames: jax.Array, state: Any, *, method: str) -> AllExits:
        """With the method "all_exits"."""


class EarlyExitState(NamedTuple):
    """State of the network and the policy, and frames since the last refresh (B,)."""

    net: dict[str, Any]
    policy: Any
    phase: jax.Array


class Taken(NamedTuple):
    """What was done.

    Attributes:
        exit_index: exit taken (B, T) int32.
        macs: MACs of the frame (B, T) float32, refreshing included, without those of channels
            that a gate had closed.
    """

    exit_index: jax.Array
    macs: jax.Array


@dataclasses.dataclass(frozen=True)
class EarlyExit:
    """A network of which a policy takes one exit per frame.

    A policy reckons with every gate open: with gates, a budget is the most that is done. Its
    variables are those of the network and, as "exit_policy", the policy's controls.

    Attributes:
        model: with exits, none of them fixed.
        policy: takes the exits.
        skipped: what becomes of the state of skipped layers.
    """

    model: Any
    policy: ExitPolicy
    skipped: SkippedState = SkippedState()

    def __post_init__(self) -> None:
        if not self.model.exits:
            raise ValueError("expected a network with exits, got none")

    def exit_costs(self) -> list[list[LayerCost]]:
        """For each exit the layers that run in a frame which takes it; a refresh is not in it."""
        needed = self._needed()
        if self.policy.reads == "gains":
            needed = [set().union(*needed[: index + 1]) for index in range(len(needed))]
        elif self.policy.reads == "features":
            needed = [one | {self.model.cost()[0]} for one in needed]
        return [[*self._listed(one), *self.policy.cost()] for one in needed]

    def refreshed_costs(self) -> list[list[LayerCost]]:
        """The same of a frame in which every layer with a state runs."""
        memory = set(self.model.memory_cost())
        return [
            [*self._listed(memory | set(one)), *self.policy.cost()] for one in self.exit_costs()
        ]

    def _needed(self) -> list[set[LayerCost]]:
        exits = range(len(self.model.exits))
        return [set(self.model.clone(exit_index=index).cost()) for index in exits]

    def _listed(self, layers: set[LayerCost]) -> list[LayerCost]:
        return [cost for cost in self.model.cost() if cost in layers]

    def init_state(self, batch_size: int) -> EarlyExitState:
        """State before the first frame."""
        return EarlyExitState(
            self.model.init_state(batch_size),
            self.policy.init(batch_size),
            jnp.zeros(batch_size, jnp.int32),
        )

    def apply(
        self, variables: Mapping[str, Any], frames: jax.Array, state: EarlyExitState | None = None
    ) -> tuple[EarlyExitState, jax.Array, Taken]:
        """Gains of a block of frames.

        Args:
            variables: of the network, and "exit_policy".
            frames: magnitudes (B, T, bins), T >= 1.
            state: from `init_state` or the call before; None starts anew.

        Returns:
            The next state, the gain (B, T, bins) and what was done.
        """
        if state is None:
            state = self.init_state(frames.shape[0])
        exits = self.exit_costs()
        ordinary, refreshed = ExitMacs(exits), ExitMacs(self.refreshed_costs())
        every = self.skipped.every
        refresh_macs = int((refreshed.total - ordinary.total).max()) if every else 0
        costs = ExitCosts(tuple(map(int, ordinary.total)), refresh_macs, every)
        runs = {name: jnp.array([_among(name, layers) for layers in exits]) for name in state.net}
        controls = variables.get("exit_policy", ())

        def one(state: EarlyExitState, frame: jax.Array):
            net, gains, features, gates = self.model.apply(
                variables, frame[:, None], state.net, method="all_exits"
            )
            seen = Frame(costs, features[:, 0], jnp.concatenate(gains, axis=1))
            policy, exit_index = self.policy.choose(controls, state.policy, seen)
            refresh = (state.phase == 0) & (every > 0)
            after = {
                name: self._after(state.net[name], net[name], runs[name][exit_index] | refresh)
                for name in net
            }
            gain = take_exit(gains, exit_index[:, None])[:, 0]
            own = exit_index, [gate[:, 0] for gate in gates]
            macs = jnp.where(refresh, refreshed.done(*own), ordinary.done(*own))
            phase = (state.phase + 1) % max(every, 1)
            return EarlyExitState(after, policy, phase), (gain, Taken(exit_index, macs))

        state, done = jax.lax.scan(one, state, frames.swapaxes(0, 1))
        return state, *jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), done)

    def _after(self, before: Any, ran: Any, runs: jax.Array) -> Any:
        """A layer's state after a frame in which it ran or not: arrays (B, ...), and (B,)."""

        def after(before: jax.Array, ran: jax.Array) -> jax.Array:
            shape = (-1, *(1,) * (ran.ndim - 1))
            return jnp.where(runs.reshape(shape), ran, self.skipped.factor * before)

        return jax.tree.map(after, before, ran)

    def step(
        self, variables: Mapping[str, Any], state: EarlyExitState, frames: jax.Array
    ) -> tuple[EarlyExitState, jax.Array, Taken]:
        """One block of frames: (state, frames) -> (next state, gain, what was done)."""
        return self.apply(variables, frames, state)

    @property
    def latency_frames(self) -> int:
        """Frames that the output lags behind the input."""
        return self.model.latency_frames

    @property
    def receptive_field_frames(self) -> None:
        """None: a state that is skipped may be held for ever."""


def _among(name: str, layers: list[LayerCost]) -> bool:
    """Whether a layer, or one that it is made of, is among them."""
    return any(layer.path == name or layer.path.startswith(f"{name}/") for layer in layers)
