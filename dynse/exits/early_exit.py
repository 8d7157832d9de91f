"""A net with exits, run frame by frame as a policy chooses.

In each frame the layers run that the gain of the exit taken needs, and those that the policy has to
see before. A recurrent layer that does not run is skipped in that frame; with h its state,

    held        h stays                                                    SkippedState()
    decayed     h <- factor h                                              SkippedState(factor=0.9)
    refreshed   in frames 0, n, 2n, ... of the stream every recurrent      SkippedState(every=8)
                layer runs, with the layers it reads, whatever the exit

Here every layer is computed and `where` drops what did not run: exact, and what it would have cost
is counted. What saves time in JAX is the program of one fixed exit (the network's `exit_index`); it
holds what it skips, so while states are held a stream may go from one program to the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dynse.exits.heads import take_exit
from dynse.exits.policies import ExitCosts, ExitPolicy, Frame
from dynse.layers.cost import LayerCost, total_macs


@dataclasses.dataclass(frozen=True)
class SkippedState:
    """What the state of a recurrent layer does in frames in which it is skipped.

    Attributes:
        factor: it is multiplied with it in each such frame; 1 holds it.
        every: every recurrent layer runs in each frame whose number it divides; 0 for none.
    """

    factor: float = 1.0
    every: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.factor <= 1 or self.every < 0:
            raise ValueError(f"expected a factor in 0 to 1 and every >= 0, got {self}")


class MultiExitNet(Protocol):
    """A network whose state is a dictionary by the paths of its recurrent layers."""

    def clone(self, *, exit_index: int | None) -> MultiExitNet:
        """The same with one fixed exit, whose `cost()` lists the layers that it runs."""

    def cost(self) -> list[LayerCost]:
        """Of all layers, the one first that a policy may see."""

    def memory_cost(self) -> list[LayerCost]:
        """Of the layers that have to run for every recurrent layer to run."""

    def init_state(self, batch_size: int) -> dict[str, Any]:
        """State before the first frame."""

    def apply(self, variables: Any, frames: jax.Array, state: Any, *, method: str) -> Any:
        """With the method "all_exits": next state, gains (B, T, F) of every exit, features."""


class EarlyExitState(NamedTuple):
    """State of the network and the policy, and frames since the last refresh (B,)."""

    net: dict[str, Any]
    policy: Any
    phase: jax.Array


class Taken(NamedTuple):
    """What was done.

    Attributes:
        exit_index: exit taken (B, T) int32.
        macs: MACs of the frame (B, T) float32, refreshing included.
    """

    exit_index: jax.Array
    macs: jax.Array


@dataclasses.dataclass(frozen=True)
class EarlyExit:
    """A network of which a policy takes one exit per frame.

    Its variables are those of the network and, as "exit_policy", the policy's controls.

    Attributes:
        model: with exits, none of them fixed.
        policy: takes the exits.
        skipped: what becomes of the state of skipped layers.
    """

    model: Any
    policy: ExitPolicy
    skipped: SkippedState = SkippedState()

    def exit_costs(self) -> list[list[LayerCost]]:
        """For each exit the layers that run in a frame which takes it; a refresh is not in it."""
        needed = self._needed()
        if self.policy.reads == "gains":
            needed = [set().union(*needed[: index + 1]) for index in range(len(needed))]
        elif self.policy.reads == "features":
            needed = [one | {self.model.cost()[0]} for one in needed]
        return [[*self._listed(one), *self.policy.cost()] for one in needed]

    def refreshed_costs(self) -> list[list[LayerCost]]:
        """The same of a frame in which every recurrent layer runs."""
        memory = set(self.model.memory_cost())
        return [
            [*self._listed(memory | set(one)), *self.policy.cost()] for one in self.exit_costs()
        ]

    def _needed(self) -> list[set[LayerCost]]:
        exits = range(len(self.model.exits))
        return [set(self.model.clone(exit_index=index).cost()) for index in exits]

    def _listed(self, layers: set[LayerCost]) -> list[LayerCost]:
        return [cost for cost in self.model.cost() if cost in layers]

    def _totals(self) -> np.ndarray:
        """MACs of a frame by exit: of an ordinary one, and of one that refreshes, (2, E)."""
        kinds = (self.exit_costs(), self.refreshed_costs())
        return np.array([[total_macs(one) for one in kind] for kind in kinds])

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
        ordinary, refreshed = self._totals()
        every = self.skipped.every
        refresh_macs = int((refreshed - ordinary).max()) if every else 0
        costs = ExitCosts(tuple(int(macs) for macs in ordinary), refresh_macs, every)
        paths = [{cost.path for cost in one} for one in self.exit_costs()]
        runs = {name: jnp.array([name in one for one in paths]) for name in state.net}
        controls = variables.get("exit_policy", ())

        def one(state: EarlyExitState, frame: jax.Array):
            net, gains, features = self.model.apply(
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
            macs = jnp.asarray((ordinary, refreshed), jnp.float32)[refresh.astype(int), exit_index]
            phase = (state.phase + 1) % max(every, 1)
            return EarlyExitState(after, policy, phase), (gain, Taken(exit_index, macs))

        state, done = jax.lax.scan(one, state, frames.swapaxes(0, 1))
        return state, *jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), done)

    def _after(self, before: jax.Array, ran: jax.Array, runs: jax.Array) -> jax.Array:
        """State after a frame in which it ran or not: (B, H), (B, H) and (B,)."""
        return jnp.where(runs[:, None], ran, self.skipped.factor * before)

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
    def receptive_field_frames(self) -> int | None:
        """That of the network with all its exits."""
        return self.model.receptive_field_frames
