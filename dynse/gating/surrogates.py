"""Surrogate derivatives of the Heaviside step.

The step's own derivative is zero wherever it exists, so nothing would be learned through it.
A surrogate is a function ``derivative(scores) -> array`` of the scores' shape, and the backward
pass uses ``d gate / d score := derivative(score)``.

The two straight-through forms take slope 1 (everywhere, or within |s| <= 1). The others are the
derivative of a soft step that rises from 0 to 1, so at their default parameters their integral
is 1. They are deliberately not scaled to a peak of 1: the plain sigmoid derivative is exactly
the derivative of the expected gate when logistic noise is added to the score,
``E[score + noise > 0] = sigmoid(score)``, and its peak of 1/4 keeps the gradient that reaches
the trunk through a gate small. ``partial(sigmoid, temperature=0.25)`` has a peak of 1.

A new surrogate is one function here, one row in `SURROGATES`, and one row in the table of
tests/gating/test_surrogates.py.

Bengio, Leonard, Courville 2013 (arXiv 1308.3432), straight-through; Zenke and Ganguli 2018
(arXiv 1705.11146), fast sigmoid; Fang et al. 2021 (arXiv 2007.05785), arctan; Jang, Gu, Poole
2017 (arXiv 1611.01144), Gumbel noise.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

Surrogate = Callable[[jax.Array], jax.Array]


def identity(scores: jax.Array) -> jax.Array:
    """Straight-through: 1 everywhere."""
    return jnp.ones_like(scores)


def clipped(scores: jax.Array) -> jax.Array:
    """Clipped straight-through: 1 where ``|s| <= 1``, else 0."""
    return (jnp.abs(scores) <= 1).astype(scores.dtype)


def sigmoid(scores: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Derivative of ``sigmoid(s / temperature)``; peak ``1 / (4 temperature)``, integral 1."""
    soft = jax.nn.sigmoid(scores / temperature)
    return soft * (1 - soft) / temperature


def fast_sigmoid(scores: jax.Array, slope: jax.Array | float = 2.0) -> jax.Array:
    """``1 / (1 + slope |s|)^2``; peak 1, integral ``2 / slope``."""
    return 1 / jnp.square(1 + slope * jnp.abs(scores))


def arctan(scores: jax.Array, slope: jax.Array | float = jnp.pi) -> jax.Array:
    """``1 / (1 + (slope s)^2)``, derivative of ``arctan(slope s) / slope``; peak 1, integral
    ``pi / slope``."""
    return 1 / (1 + jnp.square(slope * scores))


def gumbel_sigmoid(scores: jax.Array, temperature: jax.Array | float = 1.0) -> jax.Array:
    """Derivative of the relaxed Bernoulli sample ``sigmoid((s + logistic noise) / temperature)``.

    The difference of two Gumbel variables is logistic. `hard_step` draws that noise when it is
    given a ``key`` and evaluates this function at the noisy score, so forward and backward see
    one sample. Without a key the step is deterministic and this is `sigmoid`.
    """
    return sigmoid(scores, temperature)


SURROGATES: dict[str, Surrogate] = {
    "identity": identity,
    "clipped": clipped,
    "sigmoid": sigmoid,
    "fast_sigmoid": fast_sigmoid,
    "arctan": arctan,
    "gumbel_sigmoid": gumbel_sigmoid,
}
