"""Mel bands: the filterbank, its way back to bins, and the log-mel spectrum of a clip.

Band b is a triangle over frequency with its corners at three neighbouring points of a grid that is
even in mel,

    mel(f) = 2595 log10(1 + f / 700)        (O'Shaughnessy, "Speech communication", 1987),

and height 1 at the middle one. The energy of a band is the mean power under its triangle, so that
white noise has the same energy in every band. Gains per band become gains per bin by the transposed
triangles, normalised to a sum of 1 in every bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


def mel_filterbank(
    bands: int,
    n_fft: int,
    sample_rate: int,
    *,
    low_hz: float = 0.0,
    high_hz: float | None = None,
) -> np.ndarray:
    """Triangles over the bins of a spectrum.

    Args:
        bands: number of bands.
        n_fft: length of the transform; F = n_fft // 2 + 1 bins.
        sample_rate: in Hz.
        low_hz: lower corner of the first band.
        high_hz: upper corner of the last band; half the sample rate if None.

    Returns:
        (bands, F) float32, each triangle of height 1 between the bins.

    Raises:
        ValueError: corners out of order, or a band so narrow that no bin falls into it.
    """
    high_hz = sample_rate / 2 if high_hz is None else high_hz
    if bands < 1 or not 0 <= low_hz < high_hz <= sample_rate / 2:
        raise ValueError(
            f"expected bands >= 1 and 0 <= low_hz < high_hz <= {sample_rate / 2}, "
            f"got {bands}, {low_hz} and {high_hz}"
        )
    low_mel, high_mel = (2595 * np.log10(1 + hz / 700) for hz in (low_hz, high_hz))
    corners = 700 * (10 ** (np.linspace(low_mel, high_mel, bands + 2) / 2595) - 1)
    bins_hz = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    lower, middle, upper = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (bins_hz - lower) / (middle - lower)
    falling = (upper - bins_hz) / (upper - middle)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    empty = np.flatnonzero(triangles.sum(1) == 0)
    if empty.size:
        raise ValueError(
            f"band {empty[0]} of {bands} holds no bin of a transform of {n_fft} at "
            f"{sample_rate} Hz: take fewer bands or a longer transform"
        )
    return triangles.astype(np.float32)


def band_power(power: Any, filterbank: np.ndarray) -> Any:
    """Mean power under each triangle: (..., F) -> (..., bands); NumPy or JAX arrays."""
    return power @ (filterbank / filterbank.sum(1, keepdims=True)).T


def spread_matrix(filterbank: np.ndarray) -> np.ndarray:
    """What turns gains per band into gains per bin: ``gains @ spread_matrix(filterbank)``.

    Bins below the first and above the last triangle take the gain of the nearest bin that has one.

    Returns:
        (bands, F) float32; every column sums to 1.
    """
    total = filterbank.sum(0)
    # not 0: the last corner may lie a rounding error beyond the last bin
    covered = np.flatnonzero(total > 1e-6)
    bins = np.arange(filterbank.shape[1])
    nearest = covered[np.abs(bins[:, None] - covered).argmin(1)]
    return filterbank[:, nearest] / total[nearest]


@dataclass(frozen=True)
class LogMel:
    """The log-mel spectrum of a clip, relative to the clip's own level.

        E[t, b] = 10 log10(max(band power of |rfft(w x_t)|^2 / (sum w^2 * mean x^2), floor))

    White noise of whatever level has 0 dB in every band; scaling a clip changes nothing. Frame t
    covers the samples [t * hop, t * hop + win), zeros after the last.

    Attributes:
        sample_rate: in Hz.
        win_length: samples of the periodic Hann window w, and of the transform.
        hop_length: samples between frames.
        bands: number of mel bands.
        low_hz: lower corner of the first band; below 60 Hz recordings hold rumble.
        floor_db: lowest value.
    """

    sample_rate: int
    win_length: int
    hop_length: int
    bands: int
    low_hz: float = 60.0
    floor_db: float = -60.0

    @cached_property
    def filterbank(self) -> np.ndarray:
        """(bands, win_length // 2 + 1) float32."""
        return mel_filterbank(self.bands, self.win_length, self.sample_rate, low_hz=self.low_hz)

    def frames(self, samples: int) -> int:
        """Frames T that cover so many samples, at least 1."""
        return 1 + max(0, -(-(samples - self.win_length) // self.hop_length))

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The features of a clip.

        Args:
            samples: (N,) at `sample_rate`.

        Returns:
            (T, bands) float32 in dB, T = frames(N).

        Raises:
            ValueError: samples are not (N,) with N >= 1, or silent: silence has no level.
        """
        if samples.ndim != 1 or not np.any(samples):
            raise ValueError(f"expected samples (N,) that are not silent, got {samples.shape}")
        count = self.frames(samples.size)
        signal = np.zeros((count - 1) * self.hop_length + self.win_length)
        signal[: samples.size] = samples
        framed = np.lib.stride_tricks.sliding_window_view(signal, self.win_length)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.win_length) / self.win_length)
        spectrum = np.fft.rfft(framed[:: self.hop_length] * window)
        power = np.abs(spectrum) ** 2 / (
            np.sum(window**2) * np.mean(np.square(samples, dtype=np.float64))
        )
        energy = np.maximum(band_power(power, self.filterbank), 10 ** (self.floor_db / 10))
        return (10 * np.log10(energy)).astype(np.float32)
