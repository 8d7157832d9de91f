"""What a network sees of a spectrum (B, T, F). Each feature has a finite gradient at zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def magnitude(spectrum: jax.Array) -> jax.Array:
    """|X|: complex to real, with gradient 0 where X is 0."""
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    silent = power == 0
    return jnp.where(silent, 0.0, jnp.sqrt(jnp.where(silent, 1.0, power)))


def compress(magnitudes: jax.Array, exponent: float = 0.3) -> jax.Array:
    """(|X| + 1e-9)^exponent, the compressed magnitude of the later causal Conv-FSENets."""
    # exp and log run vectorised on a CPU, where a power takes five times as long.
    return jnp.exp(exponent * jnp.log(magnitudes + 1e-9))


def log_power(spectrum: jax.Array, floor: float = 1e-12) -> jax.Array:
    """log10(max(|X|^2, floor)), complex to real: the input of nsNet2."""
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return jnp.log10(jnp.maximum(power, floor))
