"""Frames of samples and their overlap-add, in the place of an STFT, as steps over blocks of hops.

    frame t = x[t hop - (length - hop), t hop + hop),     x[n] = mean of the frames that hold n

The window is rectangular; dividing the sum of the frames by their number gives an unchanged signal
back. Timing and methods are those of `dynse.audio.stft.STFT`, so that one code runs a network in
either domain.
"""

from __future__ import annotations

import dataclasses

import jax

from dynse.audio.framing import Framing


@dataclasses.dataclass(frozen=True)
class SampleFrames(Framing):
    """Shape of the frames, in samples.

    Raises:
        ValueError: unless hop_length divides win_length.
    """

    win_length: int = 320
    hop_length: int = 160

    def __post_init__(self) -> None:
        if self.hop_length < 1 or self.win_length < 1 or self.win_length % self.hop_length:
            raise ValueError(
                f"hop_length must divide win_length, got {self.hop_length} and {self.win_length}"
            )

    def step(self, state: jax.Array, samples: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Frames that end in a block of hops.

        Args:
            state: (B, win_length - hop_length), the samples before the block.
            samples: (B, T * hop_length).

        Returns:
            The next state and the frames (B, T, win_length).

        Raises:
            ValueError: where the block is no whole number of hops.
        """
        return self.cut(state, samples)

    def step_inverse(self, state: jax.Array, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Samples that are complete once the frames of a block have been added.

        Args:
            state: (B, win_length - hop_length), sums that still wait for later frames.
            frames: (B, T, win_length).

        Returns:
            The next state and samples (B, T * hop_length), which lie win_length - hop_length
            samples behind those given to `step`.

        Raises:
            ValueError: where the frames have another length.
        """
        if frames.ndim != 3 or frames.shape[2] != self.win_length:
            raise ValueError(f"expected frames (B, T, {self.win_length}), got {frames.shape}")
        state, total = self.overlap_add(state, frames)
        return state, (total / self.overlaps).reshape(len(frames), -1)
