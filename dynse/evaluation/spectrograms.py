"""Pictures over time as PNG bytes: spectrograms, and the gates between them.

`gate_figure` is the figure of arXiv 2412.17121. matplotlib is imported inside the functions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynse.audio.stft import STFT
from dynse.evaluation.figures import PALETTE, new_figure, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

COLOUR_MAP = "magma"
RANGE_DB = 70.0
_LENGTH_STEP = 16000


def level_spectrum(signal: np.ndarray, stft: STFT | None = None) -> np.ndarray:
    """Level of each bin in dB: (N,) -> (T, F), at least -120."""
    stft = stft or STFT()
    # Whole seconds: few shapes are compiled.
    padded = np.pad(np.asarray(signal, np.float32), (0, -len(signal) % _LENGTH_STEP))
    spectrum = np.asarray(stft.forward(padded[None]))[0, : stft.frames(len(signal))]
    return 10 * np.log10(np.maximum(np.abs(spectrum) ** 2, 1e-12))


def draw_levels(
    axis: Axes, levels: np.ndarray, top: float, seconds: float, sample_rate: int
) -> AxesImage:
    """A spectrogram on an axis, in kHz over seconds.

    Args:
        axis: where to.
        levels: (T, F) in dB, see `level_spectrum`.
        top: dB of the brightest colour; RANGE_DB below it all is dark.
        seconds: that the T frames last.
        sample_rate: in Hz.
    """
    image = axis.imshow(
        levels.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=COLOUR_MAP,
        vmin=top - RANGE_DB,
        vmax=top,
        extent=(0, seconds, 0, sample_rate / 2000),
    )
    axis.set_ylabel("kHz")
    return image


def gate_figure(
    noisy: np.ndarray,
    enhanced: np.ndarray,
    gates: Sequence[np.ndarray],
    *,
    title: str = "",
    names: Sequence[str] | None = None,
    stft: STFT | None = None,
    sample_rate: int = 16000,
) -> bytes:
    """The figure of arXiv 2412.17121: noisy spectrogram, gates of each block, enhanced spectrogram.

    White is a channel that was computed, black one that was not; the curve is the fraction kept at
    each moment, its mean stands at the right.

    Args:
        noisy: (N,).
        enhanced: (N,).
        gates: over blocks, (T, C) zeros and ones, T the STFT's frames.
        title: above the figure.
        names: of the blocks; B0, B1, ... by default.
        stft: the network's.
        sample_rate: in Hz.

    Returns:
        A PNG.

    Raises:
        ValueError: where the shapes do not fit together.
    """
    stft = stft or STFT()
    gates = [np.asarray(gate, np.float32) for gate in gates]
    frames = stft.frames(len(noisy))
    if np.shape(noisy) != np.shape(enhanced) or np.ndim(noisy) != 1:
        raise ValueError(
            f"expected noisy and enhanced (N,), got {np.shape(noisy)} and {np.shape(enhanced)}"
        )
    for index, gate in enumerate(gates):
        if gate.ndim != 2 or len(gate) != frames:
            raise ValueError(f"gate {index}: expected ({frames}, channels), got {gate.shape}")
    names = names or [f"B{index}" for index in range(len(gates))]
    seconds = frames * stft.hop_length / sample_rate
    heights = [1.7, *([1.15] * len(gates)), 1.7]
    figure = new_figure(9.0, sum(heights) + 0.12 * len(heights) + 0.9)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    levels = level_spectrum(noisy, stft), level_spectrum(enhanced, stft)
    top = max(level.max() for level in levels)
    for axis, level, name in ((axes[0], levels[0], "noisy"), (axes[-1], levels[1], "enhanced")):
        image = draw_levels(axis, level, top, seconds, sample_rate)
        axis.text(0.008, 0.92, name, transform=axis.transAxes, va="top", color="white", size=10)
        figure.colorbar(image, ax=axis, pad=0.01, fraction=0.04, aspect=12, label="dB")
    times = (np.arange(frames) + 0.5) * stft.hop_length / sample_rate
    for axis, gate, name in zip(axes[1:-1], gates, names, strict=True):
        _draw_gate(axis, gate, times, seconds, name)
    axes[-1].set_xlabel("time in s")
    if gates:
        kept = np.mean([gate.mean() for gate in gates])
        title = f"{title}{': ' if title else ''}{kept:.1%} of the channels kept on average"
    figure.suptitle(title, size=12)
    return png_bytes(figure)


def _draw_gate(axis: Axes, gate: np.ndarray, times: np.ndarray, seconds: float, name: str) -> None:
    from matplotlib.patheffects import Normal, Stroke

    channels = gate.shape[1]
    axis.imshow(
        gate.T,
        origin="lower",
        aspect="auto",
        # A gate panel is about 150 pixels high: more channels are averaged, never dropped.
        interpolation="nearest" if channels <= 150 else "antialiased",
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(0, seconds, 0, channels),
    )
    axis.set_ylabel(f"{name}\nchannel", size=8)
    axis.set_yticks([0, channels])
    (line,) = axis.plot(times, gate.mean(1) * channels, color=PALETTE[1], linewidth=1.5)
    # Readable on black and on white.
    line.set_path_effects([Stroke(linewidth=3.2, foreground="white"), Normal()])
    axis.set_xlim(0, seconds)
    axis.set_ylim(0, channels)
    right = axis.twinx()
    right.set_ylim(0, 1)
    right.set_yticks([0, 1])
    right.tick_params(axis="y", colors=PALETTE[1])
    right.set_ylabel(f"kept {gate.mean():.2f}", color=PALETTE[1], size=9)


def spectrogram_image(
    signal: np.ndarray, *, top_db: float | None = None, range_db: float = RANGE_DB
) -> bytes:
    """A small spectrogram without axes, one pixel a frame and bin, to stand beside a player.

    Args:
        signal: (N,).
        top_db: level of the brightest colour, the same for signals that are compared; the
            signal's own maximum by default.
        range_db: from there down to black.

    Returns:
        A PNG.
    """
    from matplotlib import colormaps
    from PIL import Image

    levels = level_spectrum(signal)
    top = levels.max() if top_db is None else top_db
    # 64 colours: not to be told from 256 by eye, and half the bytes.
    index = np.clip((levels - top) / range_db + 1, 0, 1) * 63
    image = Image.fromarray(np.round(index.T[::-1]).astype(np.uint8), mode="P")
    colours = np.round(colormaps[COLOUR_MAP](np.linspace(0, 1, 64))[:, :3] * 255).astype(np.uint8)
    image.putpalette(colours.tobytes())
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return png.getvalue()
