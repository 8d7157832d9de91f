"""What a network sees of a spectrum: (B, T, F) complex -> (B, T, F) real.

Each has a finite gradient at zero.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def magnitude(spectrum: jax.Array) -> jax.Array:
    """|X|, with gradient 0 where X is 0."""
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    silent = power == 0
    return jnp.where(silent, 0.0, jnp.sqrt(jnp.where(silent, 1.0, power)))


def compressed_magnitude(spectrum: jax.Array, exponent: float = 0.3) -> jax.Array:
    """(|X| + 1e-9)^exponent, the input of the later causal Conv-FSENets."""
    return (magnitude(spectrum) + 1e-9) ** exponent


def log_power(spectrum: jax.Array, floor: float = 1e-12) -> jax.Array:
    """log10(max(|X|^2, floor)), the input of nsNet2."""
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return jnp.log10(jnp.maximum(power, floor))
