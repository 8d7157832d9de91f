"""Frames of samples and their overlap-add, in the place of an STFT, as steps over blocks of hops.

    frame t = x[t hop - (length - hop), t hop + hop),     x[n] = mean of the frames that hold n

The window is rectangular; dividing the sum of the frames by their number gives an unchanged signal
back. Timing, zeros at both ends and methods are those of `dynse.audio.stft.STFT`, so that one code
runs a network in either domain.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class SampleFrames:
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

    @property
    def past(self) -> int:
        """Samples that a frame shares with those before it: win_length - hop_length."""
        return self.win_length - self.hop_length

    def frames(self, samples: int) -> int:
        """Frames T that cover a signal of so many samples."""
        return -(-(samples + self.past) // self.hop_length)

    def init_state(self, batch_size: int) -> jax.Array:
        """Past samples before the first: zeros (B, win_length - hop_length)."""
        return jnp.zeros((batch_size, self.past), jnp.float32)

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
        if samples.ndim != 2 or samples.shape[1] % self.hop_length:
            raise ValueError(f"expected samples (B, T * {self.hop_length}), got {samples.shape}")
        signal = jnp.concatenate([state, samples], axis=1)
        hops = signal.reshape(signal.shape[0], -1, self.hop_length)
        overlaps = self.win_length // self.hop_length
        count = hops.shape[1] - overlaps + 1
        frames = jnp.concatenate([hops[:, k : k + count] for k in range(overlaps)], axis=-1)
        return signal[:, samples.shape[1] :], frames

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
        batch, count, _ = frames.shape
        overlaps = self.win_length // self.hop_length
        hops = frames.reshape(batch, count, overlaps, self.hop_length)
        waiting = state.reshape(batch, overlaps - 1, self.hop_length)
        total = jnp.pad(waiting, ((0, 0), (0, count), (0, 0)))
        for k in range(overlaps):
            total = total + jnp.pad(hops[:, :, k], ((0, 0), (k, overlaps - 1 - k), (0, 0)))
        done = total[:, :count] / overlaps
        return total[:, count:].reshape(batch, -1), done.reshape(batch, -1)

    def forward(self, samples: jax.Array) -> jax.Array:
        """Frames of whole signals: (B, N) -> (B, T, win_length), T = frames(N)."""
        batch, length = samples.shape
        missing = self.frames(length) * self.hop_length - length
        padded = jnp.pad(samples, ((0, 0), (0, missing)))
        return self.step(self.init_state(batch), padded)[1]

    def inverse(self, frames: jax.Array, length: int) -> jax.Array:
        """Signals of `length` samples from frames: (B, T, win_length) -> (B, N).

        Raises:
            ValueError: where the frames do not cover `length` samples.
        """
        if frames.shape[1] < self.frames(length):
            raise ValueError(
                f"{length} samples need {self.frames(length)} frames, got {frames.shape[1]}"
            )
        state = self.init_state(frames.shape[0])
        return self.step_inverse(state, frames)[1][:, self.past : self.past + length]
