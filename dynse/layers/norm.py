"""Batch normalisation over batch and time (Ioffe and Szegedy, 2015), gradient by hand.

    y = scale (x - mean) / sqrt(var + eps) + bias

With n the values per channel and x^ = (x - mean) / sqrt(var + eps), the gradient is

    dx = scale / sqrt(var + eps) (dy - mean(dy) - x^ mean(dy x^)),

two column sums and one pass, where plain autodiff takes several passes more.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.layers.cost import LayerCost

EPS = 1e-5


@jax.custom_vjp
def normalize_batch(
    scale: jax.Array, bias: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalise by the batch's own statistics.

    The statistics are for the running averages: no gradient flows through them.

    Args:
        scale: (C,).
        bias: (C,).
        x: (B, T, C).

    Returns:
        y (B, T, C), mean (C,) and biased variance (C,).
    """
    return _normalize_forward(scale, bias, x)[0]


def _normalize_forward(scale, bias, x):
    mean = x.mean((0, 1))
    # The two-pass form: E[x^2] - mean^2 loses every digit where the mean is large.
    var = jnp.square(x - mean).mean((0, 1))
    inverse = jax.lax.rsqrt(var + EPS)
    factor = inverse * scale
    return (x * factor + (bias - mean * factor), mean, var), (scale, x, mean, inverse)


def _normalize_backward(residuals, cotangents):
    scale, x, mean, inverse = residuals
    dy = cotangents[0]
    count = dy.shape[0] * dy.shape[1]
    dbias = dy.sum((0, 1))
    dscale = (dy * (x - mean)).sum((0, 1)) * inverse
    dx = (scale * inverse) * (dy - dbias / count - (x - mean) * (inverse * dscale / count))
    return dscale, dbias, dx


normalize_batch.defvjp(_normalize_forward, _normalize_backward)


class BatchNorm(nn.Module):
    """Batch normalisation: parameters `scale` and `bias`, running statistics `mean` and `var`.

    In training it normalises by the batch and moves the running statistics by `momentum` of the
    way; otherwise it is a fixed scale and shift, which an engine folds into the matrix before it.
    """

    momentum: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, T, C) -> (B, T, C)."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not train:
            factor = jax.lax.rsqrt(var.value + EPS) * scale
            return x * factor + (bias - mean.value * factor)
        y, batch_mean, batch_var = normalize_batch(scale, bias, x)
        if not self.is_initializing():
            count = x.shape[0] * x.shape[1]
            unbiased = batch_var * (count / max(count - 1, 1))
            mean.value += self.momentum * (batch_mean - mean.value)
            var.value += self.momentum * (unbiased - var.value)
        return y


def batch_norm_cost(path: str, width: int) -> LayerCost:
    """No MACs: at inference it is folded into the matrix before it."""
    return LayerCost(path, 2 * width, 0)
