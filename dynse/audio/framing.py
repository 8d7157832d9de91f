"""Overlapping frames of a signal and their sum, as steps over blocks of hops.

Frame t sees the samples [t * hop - (win - hop), t * hop + hop): it is complete as soon as its last
hop has arrived; zeros stand before the first sample and after the last. Offline is a step over all
hops at once: one code, any block size, the same result.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


class Framing:
    """Timing of a transform of frames; a transform adds `step` and `step_inverse`.

    Attributes:
        win_length: samples of a frame.
        hop_length: from frame to frame; divides win_length.
    """

    win_length: int
    hop_length: int

    @property
    def past(self) -> int:
        """Samples that a frame shares with those before it: win_length - hop_length."""
        return self.win_length - self.hop_length

    @property
    def overlaps(self) -> int:
        """Frames that hold a sample."""
        return self.win_length // self.hop_length

    def frames(self, samples: int) -> int:
        """Frames T that cover a signal of so many samples."""
        return -(-(samples + self.past) // self.hop_length)

    def init_state(self, batch_size: int) -> jax.Array:
        """Past samples before the first: zeros (B, win_length - hop_length)."""
        return jnp.zeros((batch_size, self.past), jnp.float32)

    def cut(self, state: jax.Array, samples: jax.Array) -> tuple[jax.Array, jax.Array]:
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
        count = samples.shape[1] // self.hop_length
        # A frame is win/hop neighbouring hops: slices instead of a gather of every sample.
        framed = jnp.concatenate([hops[:, k : k + count] for k in range(self.overlaps)], axis=-1)
        return signal[:, samples.shape[1] :], framed

    def overlap_add(self, state: jax.Array, framed: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Sums of the frames, of the hops that are complete once those of a block are added.

        Args:
            state: (B, win_length - hop_length), sums that still wait for later frames.
            framed: (B, T, win_length).

        Returns:
            The next state and the sums (B, T, hop_length).
        """
        batch, count, _ = framed.shape
        hops = framed.reshape(batch, count, self.overlaps, self.hop_length)
        waiting = state.reshape(batch, self.overlaps - 1, self.hop_length)
        total = jnp.pad(waiting, ((0, 0), (0, count), (0, 0)))
        for k in range(self.overlaps):
            total = total + jnp.pad(hops[:, :, k], ((0, 0), (k, self.overlaps - 1 - k), (0, 0)))
        return total[:, count:].reshape(batch, -1), total[:, :count]

    def forward(self, samples: jax.Array) -> jax.Array:
        """The transform of whole signals: (B, N) -> (B, T, ...), T = frames(N)."""
        batch, length = samples.shape
        missing = self.frames(length) * self.hop_length - length
        padded = jnp.pad(samples, ((0, 0), (0, missing)))
        return self.step(self.init_state(batch), padded)[1]

    def inverse(self, frames: jax.Array, length: int) -> jax.Array:
        """Signals of `length` samples from what `forward` gave: (B, T, ...) -> (B, N).

        Raises:
            ValueError: where the frames do not cover `length` samples.
        """
        if frames.shape[1] < self.frames(length):
            raise ValueError(
                f"{length} samples need {self.frames(length)} frames, got {frames.shape[1]}"
            )
        state = self.init_state(frames.shape[0])
        return self.step_inverse(state, frames)[1][:, self.past : self.past + length]
