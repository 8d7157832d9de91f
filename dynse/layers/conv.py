"""Convolutions over time: pointwise (a matmul) and depthwise causal (shift, multiply, add).

The gradients are written by hand. They are the textbook ones, but formed in the shape that XLA's
CPU compiler does best: two-dimensional matmuls and column sums. `lax.conv_general_dilated` with
groups is many times slower than three shifted products. The barriers keep it from recomputing a
layer's input in each of its consumers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier

from dynse.layers.cost import LayerCost


@jax.custom_vjp
def pointwise(kernel: jax.Array, x: jax.Array) -> jax.Array:
    """y = x W: kernel (C, D), x (B, T, C) -> (B, T, D)."""
    batch, frames, channels = x.shape
    return (x.reshape(-1, channels) @ kernel).reshape(batch, frames, -1)


def _pointwise_forward(
    kernel: jax.Array, x: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return pointwise(kernel, x), (kernel, x)


def _pointwise_backward(
    residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    kernel, x = residuals
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return rows.T @ drows, (drows @ kernel.T).reshape(x.shape)


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shift_multiply_add(kernel: jax.Array, signal: jax.Array, dilation: int) -> jax.Array:
    """y[t] = sum_k kernel[k] signal[t + k dilation] for every t that has all taps."""
    taps = kernel.shape[0]
    frames = signal.shape[1] - (taps - 1) * dilation
    y = sum(kernel[k] * signal[:, k * dilation : k * dilation + frames] for k in range(taps))
    return optimization_barrier(y)


def _shift_forward(
    kernel: jax.Array, signal: jax.Array, dilation: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _shift_multiply_add(kernel, signal, dilation), (kernel, signal)


def _shift_backward(
    dilation: int, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    kernel, signal = residuals
    taps, frames = kernel.shape[0], dy.shape[1]
    dsignal = sum(
        jnp.pad(kernel[k] * dy, ((0, 0), (k * dilation, (taps - 1 - k) * dilation), (0, 0)))
        for k in range(taps)
    )
    dkernel = [
        (dy * signal[:, k * dilation : k * dilation + frames]).sum((0, 1)) for k in range(taps)
    ]
    return jnp.stack(dkernel), optimization_barrier(dsignal)


_shift_multiply_add.defvjp(_shift_forward, _shift_backward)


def depthwise(
    kernel: jax.Array, state: jax.Array, x: jax.Array, dilation: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Causal depthwise convolution, y[t] = sum_k kernel[k] x[t - (K - 1 - k) dilation].

    Args:
        kernel: (K, C).
        state: (B, (K - 1) * dilation, C), the frames before the block.
        x: (B, T, C).
        dilation: frames between taps.

    Returns:
        The next state and y (B, T, C).
    """
    signal = optimization_barrier(jnp.concatenate([state, x], axis=1))
    return signal[:, x.shape[1] :], _shift_multiply_add(kernel, signal, dilation)


def pointwise_cost(
    path: str, in_features: int, features: int, *, use_bias: bool = True, **gate: int
) -> LayerCost:
    """Cost per frame; `gate`, `channels` and `gated_macs` as in `LayerCost`."""
    weights = in_features * features
    return LayerCost(path, weights + use_bias * features, weights, **gate)


def depthwise_cost(
    path: str, taps: int, width: int, *, use_bias: bool = False, **gate: int
) -> LayerCost:
    """Cost per frame; `gate`, `channels` and `gated_macs` as in `LayerCost`."""
    return LayerCost(path, (taps + use_bias) * width, taps * width, **gate)


def uniform_fan_in(fan_in: int) -> Callable[[jax.Array, tuple[int, ...]], jax.Array]:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the usual start of convolutions in this field."""
    bound = fan_in**-0.5
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)


class Pointwise(nn.Module):
    """1x1 convolution with parameters `kernel` (C, D) and, on request, `bias` (D,)."""

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, T, C) -> (B, T, D)."""
        initial = uniform_fan_in(x.shape[-1])
        y = pointwise(self.param("kernel", initial, (x.shape[-1], self.features)), x)
        return y + self.param("bias", initial, (self.features,)) if self.use_bias else y


class Depthwise(nn.Module):
    """Causal depthwise convolution with parameters `kernel` (K, C) and, on request, `bias` (C,)."""

    taps: int = 3
    dilation: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(self, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """State (B, past, C) and x (B, T, C) -> next state and y (B, T, C)."""
        initial, channels = uniform_fan_in(self.taps), x.shape[-1]
        kernel = self.param("kernel", initial, (self.taps, channels))
        state, y = depthwise(kernel, state, x, self.dilation)
        return state, y + self.param("bias", initial, (channels,)) if self.use_bias else y
