"""PReLU with one shared slope, and dropout with an explicit key."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.layers.cost import LayerCost


class PReLU(nn.Module):
    """max(x, 0) + slope min(x, 0); one slope for all channels, 0.25 at first (He et al., 2015)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Any shape."""
        slope = self.param("slope", nn.initializers.constant(0.25), ())
        return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)


def prelu_cost(path: str) -> LayerCost:
    """One parameter, no MACs."""
    return LayerCost(path, 1, 0)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zero a share `rate` of the values and scale the rest up; the identity without a key."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)
