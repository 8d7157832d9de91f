"""Curves and points as PNG bytes: kept against SNR, quality against cost, training.

Figures are made without pyplot, so nothing global is touched and no display is needed. Colours are
those of Okabe and Ito, which remain distinct for colour-blind readers, and every net has its own
marker as well. matplotlib is imported inside the functions.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dynse.evaluation.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, without yellow, which is faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
NOISY = "#7A7A7A"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 150


class NetStyle(NamedTuple):
    """How a net is drawn, the same in every figure."""

    colour: str
    marker: str


def net_styles(nets: Sequence[str]) -> dict[str, NetStyle]:
    """A style for each net: grey for "noisy", the rest in order."""
    others = [net for net in nets if net != "noisy"]
    styles = {
        net: NetStyle(PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)])
        for index, net in enumerate(others)
    }
    return {net: styles.get(net, NetStyle(NOISY, ".")) for net in nets}


def kept_against_snr(
    curves: Mapping[str, Mapping[float, Interval]],
    *,
    target: float | None = None,
    styles: Mapping[str, NetStyle] | None = None,
) -> bytes:
    """Kept fraction by input SNR with its interval, one curve a net.

    Args:
        curves: by net, by SNR in dB.
        target: drawn as a dashed line.
        styles: by net: `net_styles` of all the nets of a report.

    Returns:
        A PNG.
    """
    styles = styles or net_styles(list(curves))
    figure = new_figure(6.4, 4.0)
    axis = figure.subplots()
    for index, (net, points) in enumerate(curves.items()):
        snrs = np.array(sorted(points))
        # Side by side, so that intervals of several nets do not cover each other.
        shifted = snrs + 0.25 * (index - (len(curves) - 1) / 2)
        means, errors = _errors([points[snr] for snr in snrs])
        axis.errorbar(
            shifted,
            means,
            yerr=errors,
            color=styles[net].colour,
            marker=styles[net].marker,
            markersize=6,
            capsize=3,
            linewidth=1.6,
            label=net,
        )
    if target is not None:
        axis.axhline(target, color="black", linestyle="--", linewidth=1, label=f"target {target:g}")
    every = sorted({snr for points in curves.values() for snr in points})
    axis.set_xticks(every)
    axis.set_xlabel("input SNR in dB")
    axis.set_ylabel("fraction of channels kept")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=9)
    return png_bytes(figure)


def quality_against_cost(
    points: Mapping[str, tuple[float, Mapping[str, Interval]]],
    *,
    metrics: Mapping[str, str] | None = None,
    styles: Mapping[str, NetStyle] | None = None,
) -> bytes:
    """Quality of each net over its active MACs per second, one panel a metric.

    Nets of nearly equal cost are drawn side by side, 1.5 % of the axis apart, so that their
    intervals can be read.

    Args:
        points: by net: active MACs per second and the interval of each metric. A net without MACs
            (the noisy signal, an oracle) is drawn as a level line.
        metrics: key -> name on the axis, in the order of the panels; PESQ and the SI-SDR gain by
            default.
        styles: by net: `net_styles` of all the nets of a report.

    Returns:
        A PNG.
    """
    metrics = metrics or {"pesq": "PESQ (wide band)", "si_sdr_improvement": "SI-SDR gain in dB"}
    styles = styles or net_styles(list(points))
    shown = _side_by_side({net: cost for net, (cost, _) in points.items() if cost > 0})
    figure = new_figure(5.2 * len(metrics), 4.4)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axis, (key, name) in zip(panels, metrics.items(), strict=True):
        for net, (macs_per_s, values) in points.items():
            interval = values.get(key)
            if interval is None or interval.count == 0:
                continue
            if macs_per_s <= 0:
                axis.axhline(
                    interval.mean, color=styles[net].colour, linestyle=":", linewidth=1.6, label=net
                )
                continue
            means, errors = _errors([interval])
            axis.errorbar(
                [shown[net] / 1e6],
                means,
                yerr=errors,
                color=styles[net].colour,
                marker=styles[net].marker,
                markersize=8,
                capsize=4,
                linestyle="none",
                label=net,
            )
        axis.set_xlabel("active MMAC per second of audio")
        axis.set_ylabel(name)
        axis.set_xlim(left=0)
        axis.margins(x=0.12, y=0.12)
    handles = {
        label: handle
        for axis in panels
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    # Points of equal cost lie above one another: a shared legend stays readable where labels
    # at the points would collide.
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(4, max(1, len(handles))),
        frameon=False,
        fontsize=9,
    )
    return png_bytes(figure)


def training_curves(
    curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    *,
    panels: Mapping[str, str] | None = None,
    styles: Mapping[str, NetStyle] | None = None,
) -> bytes:
    """Loss and kept fraction over the steps, one panel a quantity, one curve a net.

    Args:
        curves: by net, by quantity: steps and values.
        panels: quantity -> name on the axis; every quantity that occurs, by default.
        styles: by net: `net_styles` of all the nets of a report.

    Returns:
        A PNG.
    """
    found = dict.fromkeys(key for quantities in curves.values() for key in quantities)
    panels = panels or {key: key.replace("_", " ") for key in found}
    styles = styles or net_styles(list(curves))
    figure = new_figure(5.2 * len(panels), 3.8)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (key, name) in zip(axes, panels.items(), strict=True):
        for net, quantities in curves.items():
            if key not in quantities:
                continue
            steps, values = (np.asarray(series, float) for series in quantities[key])
            smooth = _running_median(values)
            if len(values) > 20:
                axis.plot(steps, values, color=styles[net].colour, linewidth=0.6, alpha=0.3)
            axis.plot(steps, smooth, color=styles[net].colour, linewidth=1.6, label=net)
        axis.set_xlabel("step")
        axis.set_ylabel(name)
        axis.margins(x=0.02)
        if axis.lines:
            axis.legend(frameon=False, fontsize=9)
    return png_bytes(figure)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG, with a light grid behind its curves."""
    for axis in figure.axes:
        if not axis.images and axis.get_label() != "<colorbar>":
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25, linewidth=0.6)
            axis.set_axisbelow(True)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, facecolor="white")
    return png.getvalue()


def _side_by_side(costs: Mapping[str, float]) -> dict[str, float]:
    """The same costs, each at least 1.5 % of the largest beyond the one before."""
    step = 0.015 * max(costs.values(), default=0)
    shown: dict[str, float] = {}
    last = -np.inf
    for net, cost in sorted(costs.items(), key=lambda pair: pair[1]):
        last = shown[net] = max(cost, last + step)
    return shown


def _errors(intervals: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray]:
    """Means (n,) and distances (2, n) to the bounds; 0 where there is no interval."""
    means = np.array([interval.mean for interval in intervals])
    bounds: Any = np.array([[interval.low, interval.high] for interval in intervals]).T
    return means, np.nan_to_num(np.abs(bounds - means))


def _running_median(values: np.ndarray) -> np.ndarray:
    """Median over about a twentieth of the curve around each point; short curves as they are."""
    half = len(values) // 40
    if half == 0:
        return values
    padded = np.pad(values.astype(float), half, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return np.nanmedian(windows, axis=-1)
