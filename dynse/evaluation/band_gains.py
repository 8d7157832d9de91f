"""Gains per mel band judged by the signal that they give.

`gain_si_sdr` spreads the gains over the bins, multiplies the noisy spectrum and compares the
inverse with the clean signal, all inside jit:

    enhanced = istft((g A) Y)           A: `spread_matrix`, what bands give to each bin
    score = SI-SDR(enhanced, clean)     over the valid samples
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dynse.audio.mel import spread_matrix
from dynse.audio.sdr import si_sdr
from dynse.data.gain_sequences import BANDS, FILTERBANK, SHAPE, MixtureAudio


def gain_si_sdr(gains: jax.Array, audio: MixtureAudio) -> jax.Array:
    """SI-SDR of mixtures after gains per band.

    Args:
        gains: (N, T, 32), T that of ``audio.spectrum``; padded frames do not count.
        audio: the mixtures.

    Returns:
        (N,) in dB over the valid samples of each; NaN where gains or clean are silent.

    Raises:
        ValueError: where the gains' shape does not belong to the spectrum's.
    """
    if gains.shape != (*audio.spectrum.shape[:2], BANDS):
        raise ValueError(f"expected gains {(*audio.spectrum.shape[:2], BANDS)}, got {gains.shape}")
    length = audio.clean.shape[1]
    spectrum = audio.spectrum * (gains @ spread_matrix(FILTERBANK))
    valid = jnp.arange(length) < audio.samples[:, None]

    def centred(signal: jax.Array) -> jax.Array:
        # Without a mean over its valid samples a signal keeps its SI-SDR when zeros follow.
        mean = jnp.sum(signal * valid, 1, keepdims=True) / audio.samples[:, None]
        return jnp.where(valid, signal - mean, 0.0)

    return si_sdr(centred(SHAPE.inverse(spectrum, length)), centred(audio.clean))
