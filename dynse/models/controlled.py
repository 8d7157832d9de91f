"""A gated network whose gates are replaced, in training and after it: what its gates must beat.

    fixed    per block, the channels that were open most often, always open: static pruning
    random   each channel open at its own rate, drawn anew in each frame

Both keep, per block, as many channels as the rates say (`dynse.gating.controls`). The network's
own gates are neither computed nor paid for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dynse.gating.controls import fixed_gates, random_gates
from dynse.layers.cost import LayerCost

CONTROLS = ("fixed", "random")


@dataclasses.dataclass(frozen=True)
class GateControl:
    """What stands in place of a network's gates.

    Attributes:
        kind: "fixed" or "random".
        rates: by block, the fraction of frames in which each channel is open.
    """

    kind: Literal["fixed", "random"]
    rates: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if self.kind not in CONTROLS:
            raise ValueError(f"kind must be one of {', '.join(CONTROLS)}; got {self.kind!r}")
        if not all(0 <= rate <= 1 for block in self.rates for rate in block):
            raise ValueError("rates must lie between 0 and 1")

    @classmethod
    def of(cls, kind: Literal["fixed", "random"], rates: Sequence[np.ndarray]) -> GateControl:
        """From measured rates, to three digits: they become part of a run's description."""
        rounded = (np.asarray(block, np.float64).round(3).tolist() for block in rates)
        return cls(kind, tuple(map(tuple, rounded)))

    def gates(self, key: jax.Array, batch_size: int, frames: int) -> tuple[jax.Array, ...]:
        """Gates over blocks that broadcast to (batch_size, frames, C)."""
        rates = [jnp.array(block, jnp.float32) for block in self.rates]
        if self.kind == "fixed":
            return fixed_gates(rates)
        return random_gates(key, rates, batch_size, frames)


@dataclasses.dataclass(frozen=True)
class ControlledNet:
    """A gated network under a control; used as the network itself, but for `step`.

    Attributes:
        net: the gated network.
        control: what its gates are replaced by.
    """

    net: Any
    control: GateControl

    @property
    def bins(self) -> int:
        """Frequency bins of the network."""
        return self.net.bins

    def init(self, key: jax.Array, frames: jax.Array) -> Any:
        """Variables of the network, those of its gates included."""
        return self.net.init(key, frames)

    def apply(
        self, variables: Any, frames: jax.Array, *, key: jax.Array | None = None, **options: Any
    ) -> Any:
        """The network with these gates.

        Args:
            variables: of the network.
            frames: (B, T, bins).
            key: of random gates, and of what else the network draws; without it the gates are
                those of a fixed key, the same in every call.
            **options: of the network's `apply`.
        """
        gate_key = jax.random.key(0) if key is None else jax.random.fold_in(key, 1)
        gates = self.control.gates(gate_key, *frames.shape[:2])
        return self.net.apply(variables, frames, gates=gates, key=key, **options)

    def cost(self) -> list[LayerCost]:
        """The network's costs without its gates'."""
        return [layer for layer in self.net.cost() if not layer.path.endswith("/gate")]
