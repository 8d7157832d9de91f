"""Short-time Fourier transform and its inverse as steps over blocks of hops.

Frames are those of `dynse.audio.framing`: [t * hop - (win - hop), t * hop + hop). Analysis and
synthesis share the window w, a periodic Hann or a symmetric Hamming one; the synthesis is the
least-squares one of Griffin and Lim (1984),

    x[n] = sum_t w[n - t hop] y_t[n - t hop] / sum_t w^2[n - t hop],

so the inverse of an unchanged spectrum is the signal itself, first and last sample included.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from dynse.audio.framing import Framing


@dataclasses.dataclass(frozen=True)
class STFT(Framing):
    """Shape of the transform, in samples.

    Attributes:
        n_fft: of the DFT.
        win_length: of the window.
        hop_length: from frame to frame.
        window_kind: "hann", periodic, or "hamming", symmetric.

    Raises:
        ValueError: unless hop_length divides win_length and win_length <= n_fft, where the
            shifted squared windows leave a sample uncovered, or on another window.
    """

    n_fft: int = 512
    win_length: int = 512
    hop_length: int = 256
    window_kind: Literal["hann", "hamming"] = "hann"

    def __post_init__(self) -> None:
        if not 0 < self.hop_length <= self.win_length <= self.n_fft:
            raise ValueError(
                "expected 0 < hop_length <= win_length <= n_fft, got "
                f"{self.hop_length}, {self.win_length}, {self.n_fft}"
            )
        if self.win_length % self.hop_length:
            raise ValueError(
                f"hop_length must divide win_length, got {self.hop_length} and {self.win_length}"
            )
        if self.window_kind not in ("hann", "hamming"):
            raise ValueError(f"window_kind must be hann or hamming, got {self.window_kind!r}")
        if self._overlap_energy.min() < 1e-6:
            raise ValueError(
                f"hop_length {self.hop_length} leaves samples that no window of "
                f"{self.win_length} sees: take at most half the window"
            )

    @property
    def bins(self) -> int:
        """Frequency bins F = n_fft / 2 + 1."""
        return self.n_fft // 2 + 1

    @functools.cached_property
    def window(self) -> np.ndarray:
        """The window (win_length,) float32."""
        n = np.arange(self.win_length)
        if self.window_kind == "hamming":
            phase = 2 * np.pi * n / max(self.win_length - 1, 1)
            return (0.54 - 0.46 * np.cos(phase)).astype(np.float32)
        return (0.5 - 0.5 * np.cos(2 * np.pi * n / self.win_length)).astype(np.float32)

    @functools.cached_property
    def _overlap_energy(self) -> np.ndarray:
        """sum_t w^2[n - t hop], periodic in the hop: (hop_length,) float32."""
        return (self.window**2).reshape(-1, self.hop_length).sum(0)

    def step(self, state: jax.Array, samples: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Spectra of the frames that end in a block of hops.

        Args:
            state: (B, win_length - hop_length), the samples before the block.
            samples: (B, T * hop_length).

        Returns:
            The next state and the spectrum (B, T, F) complex64.

        Raises:
            ValueError: where the block is no whole number of hops.
        """
        state, framed = self.cut(state, samples)
        return state, jnp.fft.rfft(framed * self.window, self.n_fft)

    def step_inverse(self, state: jax.Array, spectrum: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Samples that are complete once the frames of a block have been added.

        Args:
            state: (B, win_length - hop_length), sums that still wait for later frames.
            spectrum: (B, T, F) complex.

        Returns:
            The next state and samples (B, T * hop_length), which lie win_length - hop_length
            samples behind those given to `step`.

        Raises:
            ValueError: where the number of bins is not F.
        """
        if spectrum.ndim != 3 or spectrum.shape[2] != self.bins:
            raise ValueError(f"expected a spectrum (B, T, {self.bins}), got {spectrum.shape}")
        framed = jnp.fft.irfft(spectrum, self.n_fft)[..., : self.win_length] * self.window
        state, total = self.overlap_add(state, framed)
        return state, (total / self._overlap_energy).reshape(len(spectrum), -1)
