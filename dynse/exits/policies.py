"""Which exit to take, decided in every frame and for every row of the batch.

A policy has two pure functions,

    state = policy.init(batch_size)
    state, exit_index = policy.choose(controls, state, frame)          exit_index (B,) int32

`controls` are its traced numbers: a budget or a threshold can change from call to call, be another
one in each row, or be learned. `reads` says what it has to see first, and so what has to run before
the decision; of the gains, a policy looks at none behind the exit that it takes. Learned ones and
the oracle are in `dynse.exits.router`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dynse.layers.cost import LayerCost

Reads = Literal["nothing", "features", "gains"]
# A budget is given in float32: held to six digits.
SLACK = 1e-6


@dataclasses.dataclass(frozen=True)
class ExitCosts:
    """What the exits of a network cost.

    Attributes:
        macs: MACs of a frame that takes each exit.
        refresh: most MACs that a frame does beyond those to keep the state of skipped stages up
            to date.
        every: such a frame comes so often; 0 for never.
    """

    macs: tuple[int, ...]
    refresh: int = 0
    every: int = 0

    def refresh_macs(self, frames: float) -> int:
        """Most MACs spent on refreshing in so many frames on end."""
        return self.refresh * math.ceil(frames / self.every) if self.every else 0


class Frame(NamedTuple):
    """What there is to decide on in one frame.

    Attributes:
        costs: of the exits.
        features: output of the first stage (B, C).
        gains: of every exit (B, E, F).
    """

    costs: ExitCosts
    features: jax.Array
    gains: jax.Array


class ExitPolicy(Protocol):
    """A choice per frame. Hashable.

    Attributes:
        reads: "nothing", the first stage's output ("features"), or "gains": then every exit's
            head runs up to the exit taken.
    """

    reads: Reads

    def cost(self) -> list[LayerCost]:
        """Of the decision itself, in every frame."""

    def init(self, batch_size: int) -> Any:
        """State before the first frame."""

    def choose(self, controls: Any, state: Any, frame: Frame) -> tuple[Any, jax.Array]:
        """Next state and the exit to take, (B,) int32."""


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Always the same exit. (The program that holds no other is the network's `exit_index`.)"""

    exit_index: int
    reads: Reads = "nothing"

    def cost(self) -> list[LayerCost]:
        return []

    def init(self, batch_size: int) -> tuple[()]:
        return ()

    def choose(self, controls: Any, state: tuple[()], frame: Frame) -> tuple[tuple[()], jax.Array]:
        """No controls."""
        return state, jnp.full(len(frame.gains), self.exit_index, jnp.int32)


@dataclasses.dataclass(frozen=True)
class Threshold:
    """On to the next exit while the gain has changed by more than a threshold since the last one.

    change_i = mean over bins of |gain_i - gain_(i-1)|; so the first exit alone is never taken.
    """

    reads: Reads = "gains"

    def cost(self) -> list[LayerCost]:
        return []

    def init(self, batch_size: int) -> tuple[()]:
        return ()

    def choose(
        self, controls: Mapping[str, jax.Array], state: tuple[()], frame: Frame
    ) -> tuple[tuple[()], jax.Array]:
        """Controls: "change", () or (B,).

        Raises:
            ValueError: with fewer than three exits, where there is nothing to choose.
        """
        if frame.gains.shape[1] < 3:
            raise ValueError(f"expected at least 3 exits, got {frame.gains.shape[1]}")
        change = jnp.abs(jnp.diff(frame.gains[:, :-1], axis=1)).mean(-1)
        go_on = change > jnp.asarray(controls["change"])[..., None]
        return state, 1 + jnp.cumprod(go_on, axis=1, dtype=jnp.int32).sum(1)


class BudgetState(NamedTuple):
    """What a budget remembers.

    Attributes:
        spent: MACs of the last frames (B, frames), newest first.
        demand: the demand's own state; without one the MACs saved up (B,).
    """

    spent: jax.Array
    demand: Any


@dataclasses.dataclass(frozen=True)
class Budget:
    """The exit that another policy asks for, or a shallower one that the budget has room for.

    No second, wherever it begins, costs more than the budget: of frames x_t with w = n + r to a
    second (62 + 0.5), both n frames and the share r of the one before, and n frames and the share r
    of the one after, stay within it. An exit fits where the deepest exit that the budget
    pays for in every frame could still be taken in each frame to come (ours): a demand that is met
    now does not leave the next second with the cheapest exit. After the budget was lowered the
    cheapest runs until the second that began before fits the new one. A budget below the cheapest
    exit's cost cannot be held.

    Without a demand nothing is known that would call for one frame more than another: the deepest
    exit paid for in every frame and the next deeper one alternate as evenly as they can, the deeper
    one being asked for as soon as the frames before have saved what it costs more (ours).

    Attributes:
        demand: the policy that asks; None alternates.
        frames_per_s: w.
    """

    demand: ExitPolicy | None = None
    frames_per_s: float = 62.5

    @property
    def reads(self) -> Reads:
        """What the demand reads."""
        return self.demand.reads if self.demand else "nothing"

    def cost(self) -> list[LayerCost]:
        """That of the demand."""
        return self.demand.cost() if self.demand else []

    def init(self, batch_size: int) -> BudgetState:
        """Nothing spent, nothing saved."""
        spent = jnp.zeros((batch_size, int(self.frames_per_s)), jnp.int32)
        saved = jnp.zeros(batch_size, jnp.int32)
        return BudgetState(spent, self.demand.init(batch_size) if self.demand else saved)

    def choose(
        self, controls: Mapping[str, Any], state: BudgetState, frame: Frame
    ) -> tuple[BudgetState, jax.Array]:
        """Controls: "mmac_per_s", () or (B,), and "demand", the controls of that policy."""
        # Integers: what is spent is summed without rounding (up to 2 GMAC a second).
        macs = jnp.asarray(frame.costs.macs, jnp.int32)
        index = jnp.arange(len(macs), dtype=jnp.int32)
        limit = (1e6 + SLACK * 1e6) * jnp.asarray(controls["mmac_per_s"], jnp.float32)
        limit = jnp.broadcast_to(limit, state.spent.shape[:1]).astype(jnp.int32)[:, None]
        limit = limit - frame.costs.refresh_macs(self.frames_per_s)
        cheapest = frame.costs.macs.index(min(frame.costs.macs))

        def deepest(legal):
            """The last exit of those legal (B, E); the cheapest where none is."""
            return jnp.where(legal.any(1), (legal * (index + 1)).max(1) - 1, cheapest)

        steady = deepest(jnp.ceil(self.frames_per_s * macs).astype(jnp.int32) <= limit)
        if self.demand:
            demand, wanted = self.demand.choose(controls["demand"], state.demand, frame)
        else:
            deeper = jnp.minimum(steady + 1, len(macs) - 1)
            saved = state.demand + jnp.floor(limit[:, 0] / self.frames_per_s).astype(jnp.int32)
            wanted = jnp.where(macs[deeper] <= saved, deeper, steady)
        fits = self._fits(limit, state.spent, macs[steady][:, None], macs)
        exit_index = deepest(fits & (index <= wanted[:, None]))
        if not self.demand:
            # No more than a frame needs: what is saved up longer would be spent at one go.
            demand = jnp.clip(saved - macs[exit_index], 0, macs[deeper])
        spent = jnp.concatenate([macs[exit_index][:, None], state.spent[:, :-1]], axis=1)
        return BudgetState(spent, demand), exit_index

    def _fits(self, limit, spent, steady, macs):
        """Exits (B, E) after which `steady` fits in every later frame.

        Seconds that end k frames ahead hold this frame, k steady ones and the newest n - 1 - k of
        those spent, whole; and a share of the next older one, or of one more steady one.
        """
        n, share = int(self.frames_per_s), self.frames_per_s % 1
        until = jnp.pad(jnp.cumsum(spent, axis=1), ((0, 0), (1, 0)))  # of the newest 0 ... n
        ahead = jnp.arange(n, dtype=jnp.int32)
        whole = ahead * steady + until[:, n - 1 :: -1]
        partly = jnp.ceil(share * jnp.maximum(spent[:, ::-1], steady)).astype(jnp.int32)
        room = limit - (whole + partly).max(1, keepdims=True)
        # The second that ends within this frame.
        now = jnp.ceil(share * macs).astype(jnp.int32) <= limit - until[:, n:]
        return (macs <= room) & now
