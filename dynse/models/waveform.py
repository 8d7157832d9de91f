"""Waveform in, waveform out, by a network of any kind.

    X = transform(noisy),   enhanced = inverse transform(estimate(X, network(inputs(X))))

A network that does not say what it maps estimates a gain on the spectrum, the noisy phase kept:

    enhanced = iSTFT(gain * STFT(noisy)),     gain = network(|STFT(noisy)|)

Offline is a step over the whole signal.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dynse.audio.features import magnitude
from dynse.audio.stft import STFT


class WaveformState(NamedTuple):
    """State of `enhance_step`: past samples, the network's state, sums that wait for overlap."""

    analysis: jax.Array
    network: Any
    synthesis: jax.Array


@dataclasses.dataclass(frozen=True)
class GainPath:
    """What a signal goes through with a network that maps magnitudes (B, T, bins) to a gain.

    Attributes:
        model: the network.
    """

    model: Any

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame of the network's input."""
        return (self.model.bins,)

    def transform(self, stft: STFT) -> STFT:
        """What takes waveforms to what `inputs` sees, and back."""
        return stft

    def inputs(self, spectrum: jax.Array) -> jax.Array:
        """Frames (B, T, bins) of a noisy spectrum (B, T, bins)."""
        return magnitude(spectrum)

    def estimate(self, spectrum: jax.Array, output: jax.Array) -> jax.Array:
        """Enhanced spectrum, from the noisy one and the network's output."""
        return output * spectrum


def signal_path(model: Any) -> Any:
    """What names `frame_shape`, `transform`, `inputs` and `estimate`: the network, or a `GainPath`.

    Args:
        model: a network; one with `estimate` has the others as well.
    """
    return model if hasattr(model, "estimate") else GainPath(model)


def init_waveform_state(model: Any, stft: STFT, batch_size: int) -> WaveformState:
    """State before the first sample."""
    transform = signal_path(model).transform(stft)
    return WaveformState(
        transform.init_state(batch_size),
        model.init_state(batch_size),
        transform.init_state(batch_size),
    )


def enhance_step(
    model: Any, variables: Any, stft: STFT, state: WaveformState, samples: jax.Array
) -> tuple[WaveformState, jax.Array, Any]:
    """Enhance a block of hops.

    Args:
        model: a network with `init_state` and `step`.
        variables: its parameters and statistics.
        stft: the transform it was trained with.
        state: from `init_waveform_state` or the call before.
        samples: (B, T * hop_length).

    Returns:
        The next state, the enhanced samples (B, T * hop_length), which lie
        `stft.win_length - stft.hop_length` samples behind, and the network's aux.
    """
    path = signal_path(model)
    transform = path.transform(stft)
    analysis, frames = transform.step(state.analysis, samples)
    network, output, aux = model.step(variables, state.network, path.inputs(frames))
    synthesis, enhanced = transform.step_inverse(state.synthesis, path.estimate(frames, output))
    return WaveformState(analysis, network, synthesis), enhanced, aux


def enhance(
    model: Any, variables: Any, noisy: jax.Array, *, stft: STFT | None = None, **options: Any
) -> tuple[jax.Array, Any]:
    """Enhance whole signals.

    Args:
        model: the network.
        variables: its parameters and statistics.
        noisy: (B, N).
        stft: the transform; its default where None.
        **options: handed to the network's `apply` (gates to replay, for instance).

    Returns:
        enhanced (B, N), aligned with the input, and the network's aux.
    """
    path = signal_path(model)
    transform = path.transform(stft or STFT())
    frames = transform.forward(jnp.asarray(noisy))
    _, output, aux = model.apply(variables, path.inputs(frames), **options)
    return transform.inverse(path.estimate(frames, output), noisy.shape[1]), aux
