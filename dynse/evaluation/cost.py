"""Totals of cost: parameters, bytes, MACs and active MACs, per layer, frame and second.

    active_macs = sum over layers of macs - gated_macs * channels * (1 - kept of their gate)

A MAC is one multiply with its add that is really done by the network: no STFT, biases, activations
or norms (see `dynse.layers.cost`). These are counts; what a clock says stands beside them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dynse.evaluation.tables import Table
from dynse.layers.cost import LayerCost

FRAMES_PER_S = 16000 / 256


@dataclasses.dataclass(frozen=True)
class CostTotals:
    """Cost of a network at the kept fractions that were measured.

    Attributes:
        params: trained parameters.
        bytes: of the parameters as they are stored.
        macs: per frame, every gate open.
        active_macs: per frame, what ran.
        kept: open fraction of each gate; empty for a static network.
        frames_per_s: frames per second of audio.
    """

    params: int
    bytes: int
    macs: int
    active_macs: float
    kept: tuple[float, ...] = ()
    frames_per_s: float = FRAMES_PER_S

    @property
    def macs_per_s(self) -> float:
        """MACs per second of audio, every gate open."""
        return self.macs * self.frames_per_s

    @property
    def active_macs_per_s(self) -> float:
        """Active MACs per second of audio."""
        return self.active_macs * self.frames_per_s

    def saving(self, dense_macs: float) -> float:
        """Fraction of another network's MACs that this one does not do; negative if it does more.

        Raises:
            ValueError: unless dense_macs is positive.
        """
        if not dense_macs > 0:
            raise ValueError(f"dense_macs must be positive, got {dense_macs}")
        return 1 - self.active_macs / dense_macs


def cost_totals(
    layers: Sequence[LayerCost],
    kept: Sequence[float] = (),
    *,
    bytes_per_param: float = 4,
    frames_per_s: float = FRAMES_PER_S,
) -> CostTotals:
    """Sums the layers of a network.

    Args:
        layers: what `cost()` of the model returns.
        kept: measured open fraction of each gate, in the order of the gates.
        bytes_per_param: 4 for float32.
        frames_per_s: 62.5 at 16 kHz with hop 256.

    Raises:
        ValueError: where the number of kept fractions is not the number of gates, or one lies
            outside 0 to 1.
    """
    kept = tuple(float(value) for value in kept)
    gates = 1 + max((layer.gate for layer in layers if layer.gate is not None), default=-1)
    if len(kept) != gates:
        raise ValueError(f"expected the kept fractions of {gates} gates, got {len(kept)}")
    if not all(0 <= value <= 1 for value in kept):
        raise ValueError(f"kept fractions must lie in 0 to 1, got {kept}")
    params = sum(layer.params for layer in layers)
    return CostTotals(
        params=params,
        bytes=round(params * bytes_per_param),
        macs=sum(layer.macs for layer in layers),
        active_macs=sum(layer.active_macs(kept) for layer in layers),
        kept=kept,
        frames_per_s=frames_per_s,
    )


def layer_table(
    layers: Sequence[LayerCost],
    kept: Sequence[float] = (),
    *,
    title: str = "Cost of each layer",
    bytes_per_param: float = 4,
    frames_per_s: float = FRAMES_PER_S,
) -> Table:
    """One row a layer and a total: what `cost_totals` sums."""
    totals = cost_totals(layers, kept, bytes_per_param=bytes_per_param, frames_per_s=frames_per_s)

    def row(name: str, params: int, size: int, macs: int, active: float) -> tuple[str, ...]:
        share = f"{100 * active / totals.active_macs:.1f}" if totals.active_macs else "-"
        per_second = f"{active * frames_per_s / 1e6:.3f}"
        return (name, f"{params:,}", f"{size:,}", f"{macs:,}", f"{active:,.0f}", per_second, share)

    rows = [
        row(
            layer.path,
            layer.params,
            round(layer.params * bytes_per_param),
            layer.macs,
            layer.active_macs(totals.kept),
        )
        for layer in layers
    ]
    total = row("total", totals.params, totals.bytes, totals.macs, totals.active_macs)
    header = (
        "layer",
        "parameters",
        "bytes",
        "MAC/frame",
        "active MAC/frame",
        "active MMAC/s",
        "% of active",
    )
    return Table(title, header, (*rows, total), notes=(_frames_note(frames_per_s),))


def cost_table(
    totals: dict[str, CostTotals], *, dense: str | None = None, title: str = "Cost"
) -> Table:
    """One row a network.

    Args:
        totals: by the net's name.
        dense: the net whose MACs the saving is relative to; None leaves the column out.
        title: of the table.
    """
    header = ["net", "parameters", "kB", "MAC/frame", "active MAC/frame", "active MMAC/s", "kept"]
    if dense is not None:
        header.append(f"saved against {dense}")
    rows = []
    for name, cost in totals.items():
        row = [
            name,
            f"{cost.params:,}",
            f"{cost.bytes / 1000:,.0f}",
            f"{cost.macs:,}",
            f"{cost.active_macs:,.0f}",
            f"{cost.active_macs_per_s / 1e6:.2f}",
            f"{sum(cost.kept) / len(cost.kept):.3f}" if cost.kept else "-",
        ]
        if dense is not None:
            row.append(f"{100 * cost.saving(totals[dense].macs):+.1f} %")
        rows.append(tuple(row))
    frames = next(iter(totals.values())).frames_per_s if totals else FRAMES_PER_S
    return Table(title, tuple(header), tuple(rows), notes=(_frames_note(frames),))


def _frames_note(frames_per_s: float) -> str:
    return (
        f"{frames_per_s:g} frames a second. MACs of the network alone, without STFT, biases and "
        "activations; counted, not timed."
    )
