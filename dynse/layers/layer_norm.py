"""Layer normalisation of each frame over its channels (Ba, Kiros and Hinton, 2016).

    y = scale (x - mean(x)) / sqrt(var(x) + eps) + bias

Mean and biased variance are those of one frame, so it needs neither a state nor running
statistics.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.layers.cost import LayerCost

EPS = 1e-5


def layer_norm(scale: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    """Normalise over the last axis: scale and bias (C,), x (..., C)."""
    centred = x - x.mean(-1, keepdims=True)
    var = jnp.square(centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(var + EPS) * scale + bias


class LayerNorm(nn.Module):
    """`layer_norm` with parameters `scale` (C,), at first 1, and `bias` (C,), at first 0."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., C) -> (..., C)."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        return layer_norm(scale, self.param("bias", nn.initializers.zeros, shape), x)


def layer_norm_cost(path: str, width: int) -> LayerCost:
    """No MACs: normalisation is not counted, though this one cannot be folded away."""
    return LayerCost(path, 2 * width, 0)
