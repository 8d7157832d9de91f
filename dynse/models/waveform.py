"""Waveform in, waveform out, by a network that estimates a gain on the spectrum.

    enhanced = iSTFT(gain * STFT(noisy)),     gain = network(|STFT(noisy)|)

The noisy phase is kept. Offline is a step over the whole signal.
"""

from __future__ import annotations

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


def init_waveform_state(model: Any, stft: STFT, batch_size: int) -> WaveformState:
    """State before the first sample."""
    return WaveformState(
        stft.init_state(batch_size), model.init_state(batch_size), stft.init_state(batch_size)
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
    analysis, spectrum = stft.step(state.analysis, samples)
    network, gain, aux = model.step(variables, state.network, magnitude(spectrum))
    synthesis, enhanced = stft.step_inverse(state.synthesis, gain * spectrum)
    return WaveformState(analysis, network, synthesis), enhanced, aux


def enhance(
    model: Any, variables: Any, noisy: jax.Array, *, stft: STFT | None = None, **options: Any
) -> tuple[jax.Array, Any]:
    """Enhance whole signals.

    Args:
        model: a network that maps magnitudes to a gain.
        variables: its parameters and statistics.
        noisy: (B, N).
        stft: the transform; its default where None.
        **options: handed to the network's `apply` (gates to replay, for instance).

    Returns:
        enhanced (B, N), aligned with the input, and the network's aux.
    """
    stft = stft or STFT()
    spectrum = stft.forward(jnp.asarray(noisy))
    _, gain, aux = model.apply(variables, magnitude(spectrum), **options)
    return stft.inverse(gain * spectrum, noisy.shape[1]), aux
