"""The loss of Conv-FSENet, on the spectrum of the re-synthesised waveform.

With P and S the STFTs of the enhanced and the clean signal, both divided by sigma,

    L = 0.7 mean(||P|^c - |S|^c|^2) + 0.3 mean(|P |P|^(c-1) - S |S|^(c-1)|^2),  c = 0.3.

Taking the STFT of the waveform, not the network's own spectrum, makes consistency count. sigma is
the mean over active frames of e_t = ||S_t||_2 sqrt(2) / n_fft (arXiv 2412.17121 and its authors'
code). The authors call a frame active where e_t > 0.025, about -28 dBFS, which quiet corpora never
reach; the rule here is `dynse.audio.activity` unless a threshold is given.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dynse.audio.activity import active_frames
from dynse.audio.stft import STFT

# Added to |P|^2, so that the gradient of |P|^c stays finite; the authors state 1e-9 but not where.
EPS = 1e-9


def _compress(spectrum: jax.Array, exponent: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """|P|^c and the real and imaginary parts of P |P|^(c-1)."""
    # exp and log run vectorised on a CPU, where a power takes five times as long.
    log_power = jnp.log(jnp.square(spectrum.real) + jnp.square(spectrum.imag) + EPS)
    factor = jnp.exp((exponent - 1) / 2 * log_power)
    return jnp.exp(exponent / 2 * log_power), spectrum.real * factor, spectrum.imag * factor


def compressed_spectral_loss(
    enhanced: jax.Array,
    clean: jax.Array,
    *,
    stft: STFT,
    exponent: float = 0.3,
    complex_weight: float = 0.3,
    threshold: float | None = None,
) -> jax.Array:
    """The loss of every utterance.

    Args:
        enhanced: (B, N).
        clean: (B, N).
        stft: the transform.
        exponent: c.
        complex_weight: weight of the complex term; the magnitude term has the rest.
        threshold: e_t above which a frame is active (the paper: 0.025); None for our rule.

    Returns:
        (B,).
    """
    target = stft.forward(clean)
    power = (jnp.square(target.real) + jnp.square(target.imag)).sum(-1)
    energy = jnp.sqrt(2 * power) / stft.n_fft
    if threshold is None:
        active = active_frames(clean, stft.win_length, stft.hop_length)
    else:
        active = energy > threshold
    count = active.sum(-1)
    # Without an active frame there is no level to divide by: the utterance counts as it is.
    sigma = jnp.where(count > 0, (energy * active).sum(-1) / jnp.maximum(count, 1), 1.0)

    normalised = enhanced / sigma[:, None]
    magnitude, real, imag = _compress(stft.forward(normalised), exponent)
    target = target / sigma[:, None, None]
    target_magnitude, target_real, target_imag = _compress(target, exponent)
    by_magnitude = jnp.square(magnitude - target_magnitude).mean((1, 2))
    by_complex = (jnp.square(real - target_real) + jnp.square(imag - target_imag)).mean((1, 2))
    return (1 - complex_weight) * by_magnitude + complex_weight * by_complex


def squared_error(output: jax.Array, target: jax.Array) -> jax.Array:
    """Mean of (output - target)^2 of every utterance: (B, ...) -> (B,).

    The loss of Tan and Wang, "Towards Model Compression for Deep Learning Based Speech
    Enhancement", IEEE/ACM TASLP 29, 2021, over what each of their networks is trained towards.
    """
    return jnp.square(output - target).mean(tuple(range(1, output.ndim)))


def waveform_loss(enhanced: jax.Array, clean: jax.Array, limit_db: float = 30.0) -> jax.Array:
    """Minus the SNR of the enhanced waveform, which levels off at `limit_db`.

        10 log10((|s - x|^2 + 10^(-limit_db / 10) |s|^2) / |s|^2)

    The soft limit (Wisdom et al., NeurIPS 2020) keeps easy utterances from taking over.

    Args:
        enhanced: x (B, N).
        clean: s (B, N).
        limit_db: of the SNR.

    Returns:
        (B,) in dB; 0 where clean is silent.
    """
    energy = jnp.square(clean).sum(-1)
    silent = energy < 1e-8
    safe = jnp.where(silent, 1.0, energy)
    error = jnp.square(enhanced - clean).sum(-1) / safe + 10 ** (-limit_db / 10)
    return jnp.where(silent, 0.0, 10 * jnp.log10(error))
