"""Convolutions over time alone, with biases and with kernels (K, C per group, D).

Pointwise and depthwise, as in `dynse.layers.conv`. The layout of the kernels tells the two from
each other and from a dense layer's, without their names: the weights that join one input and one
output channel lie along the first axis.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from dynse.layers.conv import depthwise, pointwise, uniform_fan_in
from dynse.layers.cost import LayerCost


class PointwiseConv1d(nn.Module):
    """1x1 convolution with parameters `kernel` (1, C, D) and `bias` (D,)."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, T, C) -> (B, T, D)."""
        channels = x.shape[-1]
        initial = uniform_fan_in(channels)
        kernel = self.param("kernel", initial, (1, channels, self.features))
        return pointwise(kernel[0], x) + self.param("bias", initial, (self.features,))


class DepthwiseConv1d(nn.Module):
    """Causal depthwise convolution with parameters `kernel` (K, 1, C) and `bias` (C,)."""

    taps: int
    dilation: int = 1

    @nn.compact
    def __call__(self, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """State (B, (K - 1) * dilation, C) and x (B, T, C) -> next state and y (B, T, C)."""
        channels = x.shape[-1]
        initial = uniform_fan_in(self.taps)
        kernel = self.param("kernel", initial, (self.taps, 1, channels))
        state, y = depthwise(kernel[:, 0], state, x, self.dilation)
        return state, y + self.param("bias", initial, (channels,))


def conv1d_cost(
    path: str, taps: int, in_features: int, features: int, *, groups: int = 1
) -> LayerCost:
    """Cost per frame; a depthwise one has as many groups as features."""
    weights = taps * in_features // groups * features
    return LayerCost(path, weights + features, weights)
