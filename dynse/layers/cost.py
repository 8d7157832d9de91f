"""What a layer costs, stated beside its mathematics.

A MAC is one multiply with its add that is really done; biases, activations and normalisation at
inference (folded into the neighbouring matrix) are not counted. A layer whose work follows a gate
says which gate and how many MACs one open channel costs, so that

    active_macs = macs - gated_macs * (channels - open channels).

A transposed convolution multiplies once for each of its input positions. Some papers count its
kernel at each output position instead, which is what a convolution over an input that was
stretched by zeros would do: that count stands beside the first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """Cost of one layer.

    Attributes:
        path: name of its parameters, joined by "/".
        params: number of trained parameters.
        macs: MACs per frame with every gate open.
        gate: index of the gate that its work follows, or None.
        channels: channels of that gate.
        gated_macs: MACs per frame that one open channel costs; 0 without a gate.
        macs_at_outputs: of a transposed convolution, MACs per frame counted at its output
            positions, which are not what is done; None where there is one count alone.
    """

    path: str
    params: int
    macs: int
    gate: int | None = None
    channels: int = 0
    gated_macs: int = 0
    macs_at_outputs: int | None = None

    def active_macs(self, kept: Sequence[float]) -> float:
        """MACs per frame done at these kept fractions.

        Args:
            kept: fraction of open channels of each gate of the network.
        """
        if self.gate is None:
            return float(self.macs)
        return self.macs - self.gated_macs * self.channels * (1 - float(kept[self.gate]))


def total_params(costs: Iterable[LayerCost]) -> int:
    """Trained parameters of a network."""
    return sum(cost.params for cost in costs)


def total_macs(costs: Iterable[LayerCost]) -> int:
    """MACs per frame with every gate open."""
    return sum(cost.macs for cost in costs)


def total_macs_at_outputs(costs: Iterable[LayerCost]) -> int:
    """MACs per frame with transposed convolutions counted at their output positions."""
    return sum(
        cost.macs if cost.macs_at_outputs is None else cost.macs_at_outputs for cost in costs
    )


def total_active_macs(costs: Iterable[LayerCost], kept: Sequence[float]) -> float:
    """MACs per frame done at these kept fractions, one per gate of the network."""
    return sum(cost.active_macs(kept) for cost in costs)
