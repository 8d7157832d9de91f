"""Batch normalisation over batch and time (Ioffe and Szegedy, 2015), with an optional ReLU.

    y = scale (x - mean) / sqrt(var + eps) + bias,      then max(y, 0) where asked for

With n the values per channel and x^ = (x - mean) / sqrt(var + eps), the gradient is

    dx = scale / sqrt(var + eps) (dy - mean(dy) - x^ mean(dy x^)).

It is written by hand, as one pass, and the ReLU is part of it: left to itself, XLA's CPU compiler
recomputes the whole normalisation in each consumer of y, several times per block. The barriers
say which arrays are worth keeping. `benchmarks/train_step.py` measures what that gains.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier

from dynse.layers.cost import LayerCost

EPS = 1e-5

Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array | None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize_batch(
    scale: jax.Array, bias: jax.Array, x: jax.Array, relu: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalise by the batch's own statistics.

    The statistics are returned for the running averages: no gradient flows through them.

    Args:
        scale: (C,).
        bias: (C,).
        x: (B, T, C).
        relu: clip the result at 0.

    Returns:
        y (B, T, C), mean (C,) and biased variance (C,).
    """
    return _normalize_forward(scale, bias, x, relu)[0]


def _normalize_forward(
    scale: jax.Array, bias: jax.Array, x: jax.Array, relu: bool
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Residuals]:
    mean = x.mean((0, 1))
    # E[x^2] - mean^2 reads x once where the two-pass form writes it out again; float32 is enough
    # for means up to a thousand standard deviations, and the bound keeps the root real.
    var = jnp.maximum(jnp.square(x).mean((0, 1)) - jnp.square(mean), 0)
    inverse = jax.lax.rsqrt(var + EPS)
    factor = inverse * scale
    y = x * factor + (bias - mean * factor)
    y = optimization_barrier(jnp.maximum(y, 0) if relu else y)
    return (y, mean, var), (factor, x, mean, inverse, y if relu else None)


def _normalize_backward(
    relu: bool, residuals: Residuals, cotangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    factor, x, mean, inverse, y = residuals
    dy = jnp.where(y > 0, cotangents[0], 0) if relu else cotangents[0]
    count = dy.shape[0] * dy.shape[1]
    dbias = dy.sum((0, 1))
    dscale = ((dy * x).sum((0, 1)) - mean * dbias) * inverse
    slope = factor * inverse * dscale / count
    dx = factor * dy - slope * x + (slope * mean - factor * dbias / count)
    return dscale, dbias, optimization_barrier(dx)


normalize_batch.defvjp(_normalize_forward, _normalize_backward)


class BatchNorm(nn.Module):
    """Batch normalisation: parameters `scale` and `bias`, running statistics `mean` and `var`.

    In training it normalises by the batch and moves the running statistics by `momentum` of the
    way; otherwise it is a fixed scale and shift, which an engine folds into the matrix before it.
    """

    relu: bool = False
    momentum: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, T, C) or (B, T, F, C), of which a channel is normalised over B, T and F."""
        whole, x = x.shape, x.reshape(x.shape[0], -1, x.shape[-1])
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            factor = jax.lax.rsqrt(var.value + EPS) * scale
            y = x * factor + (bias - mean.value * factor)
            return (jnp.maximum(y, 0) if self.relu else y).reshape(whole)
        y, batch_mean, batch_var = normalize_batch(scale, bias, x, self.relu)
        if not self.is_initializing():
            count = x.shape[0] * x.shape[1]
            unbiased = batch_var * (count / max(count - 1, 1))
            mean.value += self.momentum * (batch_mean - mean.value)
            var.value += self.momentum * (unbiased - var.value)
        return y.reshape(whole)


def batch_norm_cost(path: str, width: int) -> LayerCost:
    """No MACs: at inference it is folded into the matrix before it."""
    return LayerCost(path, 2 * width, 0)
