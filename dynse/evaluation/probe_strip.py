"""What probes tell from moment to moment, drawn under the spectrogram they were told from.

Black is what is true, orange what was predicted. matplotlib is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynse.audio.stft import STFT
from dynse.evaluation.figures import PALETTE, new_figure, png_bytes
from dynse.evaluation.spectrograms import draw_levels, level_spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRUE, PREDICTED = "black", PALETTE[1]
_WIDTH = 9.0


def strip_figure(
    noisy: np.ndarray,
    *,
    stft: STFT | None = None,
    voice_true: np.ndarray | None = None,
    voice: np.ndarray | None = None,
    f0_true: np.ndarray | None = None,
    f0: np.ndarray | None = None,
    snr_true: np.ndarray | None = None,
    snr: np.ndarray | None = None,
    class_names: Sequence[str] = (),
    class_scores: np.ndarray | None = None,
    class_true: str | None = None,
    title: str = "",
    sample_rate: int = 16000,
) -> bytes:
    """Under the noisy spectrogram what the probes said at each moment, and what was true.

    Black is true, orange is predicted. A strip is drawn for each prediction that is given.

    Args:
        noisy: (N,).
        stft: of the frames.
        voice_true: (T,) bool.
        voice: (T,) bool.
        f0_true: (T,) in Hz, 0 where unvoiced.
        f0: (T,) in Hz; shown where the truth is voiced, or without truth where `voice` is.
        snr_true: (T,) in dB.
        snr: (T,) in dB.
        class_names: of the noise, K.
        class_scores: (T, K), the larger the more likely: probabilities.
        class_true: name of the right one.
        title: above the figure.
        sample_rate: in Hz.

    Returns:
        A PNG.

    Raises:
        ValueError: a track has not the STFT's frames, or the classes not as many names.
    """
    from matplotlib.patches import Patch

    stft = stft or STFT()
    noisy = np.asarray(noisy)
    frames = stft.frames(len(noisy))
    tracks = {
        "voice_true": voice_true,
        "voice": voice,
        "f0_true": f0_true,
        "f0": f0,
        "snr_true": snr_true,
        "snr": snr,
    }
    for name, track in tracks.items():
        if track is not None and np.shape(track) != (frames,):
            raise ValueError(f"{name}: expected ({frames},), got {np.shape(track)}")
    if class_scores is not None and np.shape(class_scores) != (frames, len(class_names)):
        raise ValueError(
            f"class_scores: expected ({frames}, {len(class_names)}), got {np.shape(class_scores)}"
        )
    heights = {"noisy": 2.4}
    heights |= {"voice": 0.7} if voice is not None else {}
    heights |= {"f0": 1.5} if f0 is not None else {}
    heights |= {"snr": 1.4} if snr is not None else {}
    heights |= {"class": 0.6 + 0.17 * len(class_names)} if class_scores is not None else {}

    figure = new_figure(_WIDTH, sum(heights.values()) + 0.1 * len(heights) + 0.7)
    drawn = figure.subplots(
        len(heights), 1, sharex=True, height_ratios=list(heights.values()), squeeze=False
    )
    axes = dict(zip(heights, drawn[:, 0], strict=True))
    seconds = frames * stft.hop_length / sample_rate
    edges = np.arange(frames + 1) * stft.hop_length / sample_rate
    times = (edges[1:] + edges[:-1]) / 2
    levels = level_spectrum(noisy, stft)
    draw_levels(axes["noisy"], levels, levels.max(), seconds, sample_rate)
    if voice is not None:
        _draw_voice(axes["voice"], edges, voice_true, voice)
    if f0 is not None:
        if f0_true is not None:
            shown = np.asarray(f0_true) > 0
        else:
            shown = np.ones(frames, bool) if voice is None else np.asarray(voice, bool)
        _draw_f0(axes["f0"], times, f0_true, np.where(shown, f0, np.nan))
    if snr is not None:
        if snr_true is not None:
            axes["snr"].plot(times, snr_true, color=TRUE, linewidth=1.4)
        axes["snr"].plot(times, snr, color=PREDICTED, linewidth=1.4)
        axes["snr"].set_ylabel("SNR\nin dB", size=9)
    if class_scores is not None:
        _draw_classes(axes["class"], edges, class_names, np.asarray(class_scores), class_true)
    drawn[-1, 0].set_xlabel("time in s")
    drawn[-1, 0].set_xlim(0, seconds)
    figure.align_ylabels(list(axes.values()))
    figure.suptitle(title, size=12)
    if len(heights) > 1:
        figure.legend(
            [Patch(color=TRUE), Patch(color=PREDICTED)],
            ["true", "predicted"],
            loc="outside lower center",
            ncols=2,
            frameon=False,
            fontsize=9,
        )
    return png_bytes(figure)


def _draw_voice(
    axis: Axes, edges: np.ndarray, voice_true: np.ndarray | None, voice: np.ndarray
) -> None:
    rows = {"true": voice_true, "predicted": voice}
    rows = {name: row for name, row in rows.items() if row is not None}
    for height, (name, row) in enumerate(reversed(rows.items())):
        axis.stairs(
            height + 0.12 + 0.76 * np.asarray(row, float),
            edges,
            baseline=height + 0.12,
            fill=True,
            color=TRUE if name == "true" else PREDICTED,
        )
    axis.set_yticks(np.arange(len(rows)) + 0.5, list(reversed(rows)), size=8)
    axis.set_ylim(0, len(rows))
    axis.set_ylabel("voice", size=9)


def _draw_f0(axis: Axes, times: np.ndarray, f0_true: np.ndarray | None, f0: np.ndarray) -> None:
    values = [f0]
    if f0_true is not None:
        contour = np.where(np.asarray(f0_true) > 0, f0_true, np.nan)
        axis.plot(times, contour, color=TRUE, linewidth=3.2)
        values.append(contour)
    axis.plot(times, f0, ".", color=PREDICTED, markersize=5)
    axis.set_yscale("log", base=2)
    heard = np.concatenate(values)
    heard = heard[heard > 0]
    if len(heard):
        # A wild prediction does not flatten the contour.
        low, high = np.quantile(heard, [0.01, 0.99])
        axis.set_ylim(low / 1.25, high * 1.25)
        ticks = [
            hz for hz in (50, 70, 100, 140, 200, 280, 400, 560) if low / 1.25 < hz < high * 1.25
        ]
        axis.set_yticks(ticks, [str(hz) for hz in ticks])
    axis.minorticks_off()
    axis.set_ylabel("F0\nin Hz", size=9)


def _draw_classes(
    axis: Axes, edges: np.ndarray, names: Sequence[str], scores: np.ndarray, true: str | None
) -> None:
    """A heat map with a line through the winner of each moment; that of the mean is named."""
    axis.imshow(
        scores.T,
        aspect="auto",
        interpolation="nearest",
        cmap="Blues",
        extent=(edges[0], edges[-1], len(names) - 0.5, -0.5),
    )
    axis.hlines(scores.argmax(1), edges[:-1], edges[1:], color=PREDICTED, linewidth=2)
    axis.set_yticks(range(len(names)), names, size=8)
    for label, name in zip(axis.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name == true else "normal")
    winner = names[int(scores.mean(0).argmax())]
    said = f"over all: {winner}" + ("" if true is None else f", true: {true}")
    axis.set_title(said, size=9, loc="right", pad=3)
    axis.set_ylabel("noise class", size=9)
