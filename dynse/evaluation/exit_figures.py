"""Pictures of nets with exits as PNG bytes: quality against cost, and the exits taken over time.

matplotlib is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dynse.audio.stft import STFT
from dynse.evaluation.figures import MARKERS, NOISY, PALETTE, new_figure, png_bytes
from dynse.evaluation.spectrograms import draw_levels, level_spectrum
from dynse.evaluation.statistics import Interval

METRICS = {"pesq": "PESQ (wide band)", "si_sdr_improvement": "SI-SDR gain in dB"}


class CostCurve(NamedTuple):
    """Points that are joined: the exits of a net, or a policy at several levels.

    Attributes:
        mmac_per_s: of each point.
        values: by metric the interval of each point.
        dashed: drawn with a dashed line.
    """

    mmac_per_s: Sequence[float]
    values: Mapping[str, Sequence[Interval]]
    dashed: bool = False


def cost_figure(
    curves: Mapping[str, CostCurve],
    *,
    levels: Mapping[str, Mapping[str, float]] | None = None,
    metrics: Mapping[str, str] | None = None,
) -> bytes:
    """Quality over MMAC per second, one panel a metric, one curve a net or policy.

    Args:
        curves: by name.
        levels: by name, by metric: level lines, such as the noisy input's.
        metrics: key -> name on the axis; PESQ and the SI-SDR gain by default.

    Returns:
        A PNG.
    """
    metrics = metrics or METRICS
    figure = new_figure(6.2 * len(metrics), 5.0)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axis, (key, name) in zip(panels, metrics.items(), strict=True):
        for index, (label, curve) in enumerate(curves.items()):
            means = np.array([interval.mean for interval in curve.values[key]])
            bounds = np.array([[one.low, one.high] for one in curve.values[key]]).T
            axis.errorbar(
                curve.mmac_per_s,
                means,
                yerr=np.nan_to_num(np.abs(bounds - means)),
                color=PALETTE[index % len(PALETTE)],
                marker=MARKERS[(index + index // len(PALETTE)) % len(MARKERS)],
                linestyle="--" if curve.dashed else "-",
                linewidth=1.2,
                markersize=6,
                capsize=2,
                elinewidth=0.7,
                label=label,
            )
        for label, values in (levels or {}).items():
            axis.axhline(values[key], color=NOISY, linestyle=":", linewidth=1.6, label=label)
        axis.set_xlabel("MMAC per second of audio")
        axis.set_ylabel(name)
        axis.set_xlim(left=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(4, max(1, len(labels))),
        frameon=False,
        fontsize=9,
    )
    return png_bytes(figure)


def taken_figure(
    noisy: np.ndarray,
    taken: Mapping[str, tuple[np.ndarray, np.ndarray]],
    exits: Sequence[str],
    *,
    title: str = "",
    stft: STFT | None = None,
    sample_rate: int = 16000,
) -> bytes:
    """The exit taken, drawn over the spectrogram of what came out.

    Args:
        noisy: (N,), on top.
        taken: by policy: enhanced (N,) and the exit of every frame (T,).
        exits: names of the exits.
        title: above the figure.
        stft: the network's.
        sample_rate: in Hz.

    Returns:
        A PNG.

    Raises:
        ValueError: where the shapes do not fit together.
    """
    from matplotlib.patheffects import Normal, Stroke

    stft = stft or STFT()
    frames = stft.frames(len(noisy))
    for name, (enhanced, index) in taken.items():
        if np.shape(enhanced) != np.shape(noisy) or np.shape(index) != (frames,):
            raise ValueError(
                f"{name}: expected {np.shape(noisy)} and ({frames},), got {np.shape(enhanced)} "
                f"and {np.shape(index)}"
            )
    seconds = frames * stft.hop_length / sample_rate
    times = (np.arange(frames) + 0.5) * stft.hop_length / sample_rate
    levels = {"noisy": level_spectrum(noisy, stft)}
    levels |= {name: level_spectrum(enhanced, stft) for name, (enhanced, _) in taken.items()}
    top = max(level.max() for level in levels.values())
    figure = new_figure(9.0, 1.9 * len(levels) + 0.9)
    axes = figure.subplots(len(levels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, level) in zip(axes, levels.items(), strict=True):
        draw_levels(axis, level, top, seconds, sample_rate)
        axis.set_title(name, loc="left", size=10)
        axis.set_xlim(0, seconds)
        if name not in taken:
            continue
        right = axis.twinx()
        (line,) = right.step(times, taken[name][1], where="mid", color="white", linewidth=1.3)
        # Readable on black and on white.
        line.set_path_effects([Stroke(linewidth=2.6, foreground="#0072B2"), Normal()])
        right.set_yticks(range(len(exits)), exits, size=8)
        right.set_ylim(-0.4, len(exits) - 0.6)
        right.grid(False)
    axes[-1].set_xlabel("time in s")
    figure.suptitle(title, size=12)
    return png_bytes(figure)
