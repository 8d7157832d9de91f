"""Convolutions over time and frequency, causal in time, and their transposed twins.

With K1 x K2 taps, frequency stride s and frequency padding p,

    convolution   y[t, f] = sum_jk x[t - (K1 - 1 - j), s f + k - p] kernel[j, k]
    transposed    y[t, s f + k - p] = sum x[t - j, f] kernel[j, k], over all j, k, f that hit there

so both have K1 - 1 past frames of their input as state, and none where K1 = 1. A gated layer
(GLU; Dauphin et al., ICML 2017) is a * sigmoid(b) of two of them.

The transposed convolution is one matmul over the input positions, whose results are shifted and
added: the MACs that are really needed. Written as a convolution over an input stretched by zeros,
its gradient takes many times as long on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.layers.conv import uniform_fan_in
from dynse.layers.cost import LayerCost

State = jax.Array | None


def conv2d(
    kernel: jax.Array, state: State, x: jax.Array, *, stride: int = 1, padding: int = 0
) -> tuple[State, jax.Array]:
    """Convolution of the module's docstring.

    Args:
        kernel: (K1, K2, C, D).
        state: (B, K1 - 1, F, C), the frames before the block; None where K1 = 1.
        x: (B, T, F, C).
        stride: s.
        padding: p, zeros on either side of the frequencies.

    Returns:
        The next state and y (B, T, conv_width(F, K2, stride, padding), D).

    Raises:
        ValueError: where the state has not K1 - 1 frames.
    """
    state, signal = _with_past(kernel.shape[0], state, x)
    y = jax.lax.conv_general_dilated(
        signal,
        kernel,
        (1, stride),
        ((0, 0), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return state, y


def deconv2d(
    kernel: jax.Array,
    state: State,
    x: jax.Array,
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
) -> tuple[State, jax.Array]:
    """Transposed convolution of the module's docstring.

    Args:
        kernel: (K1, K2, C, D).
        state: (B, K1 - 1, F, C), the frames before the block; None where K1 = 1.
        x: (B, T, F, C).
        stride: s.
        padding: p, frequencies that are cut off on either side.
        output_padding: further frequencies at the upper end.

    Returns:
        The next state and y (B, T, deconv_width(F, K2, stride, padding, output_padding), D).

    Raises:
        ValueError: where the state has not K1 - 1 frames.
    """
    frame_taps, taps, _, features = kernel.shape
    batch, frames, width, _ = x.shape
    state, signal = _with_past(frame_taps, state, x)
    delayed = [signal[:, frame_taps - 1 - j :][:, :frames] for j in range(frame_taps)]
    rows = jnp.concatenate(delayed, axis=-1)
    matrix = kernel.swapaxes(1, 2).reshape(-1, taps * features)
    y = (rows.reshape(-1, matrix.shape[0]) @ matrix).reshape(*x.shape[:3], taps, features)
    # Tap k = m s + r of input f lands at s (f + m) + r: shift by m, then interleave the r.
    shifts = -(-(taps + output_padding) // stride)
    y = jnp.pad(y, ((0, 0), (0, 0), (0, 0), (0, shifts * stride - taps), (0, 0)))
    y = y.reshape(batch, frames, width, shifts, stride, features)
    around = ((0, 0), (0, 0))
    y = sum(
        jnp.pad(y[:, :, :, m], (*around, (m, shifts - 1 - m), *around)) for m in range(shifts)
    ).reshape(batch, frames, -1, features)
    end = padding + deconv_width(width, taps, stride, padding, output_padding)
    return state, y[:, :, padding:end]


def conv_width(width: int, taps: int, stride: int = 1, padding: int = 0) -> int:
    """Frequencies behind a convolution."""
    return (width + 2 * padding - taps) // stride + 1


def deconv_width(
    width: int, taps: int, stride: int = 1, padding: int = 0, output_padding: int = 0
) -> int:
    """Frequencies behind a transposed convolution."""
    return (width - 1) * stride - 2 * padding + taps + output_padding


def _with_past(taps: int, state: State, x: jax.Array) -> tuple[State, jax.Array]:
    """The next state, and the block behind the frames that its first outputs see."""
    past = 0 if state is None else state.shape[1]
    if past != taps - 1:
        raise ValueError(f"expected a state of {taps - 1} frames, got {past}")
    if state is None:
        return None, x
    signal = jnp.concatenate([state, x], axis=1)
    return signal[:, x.shape[1] :], signal


class Conv2d(nn.Module):
    """`conv2d` with parameters `kernel` (K1, K2, C, D) and `bias` (D,).

    Attributes:
        features: D.
        taps: K1 over time, K2 over frequency.
        stride: over frequency.
        padding: zeros on either side of the frequencies.
    """

    features: int
    taps: tuple[int, int]
    stride: int = 1
    padding: int = 0

    @nn.compact
    def __call__(self, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        """State (B, K1 - 1, F, C) or None and x (B, T, F, C) -> next state and y (B, T, F', D)."""
        kernel, bias = _parameters(self, x.shape[-1])
        state, y = conv2d(kernel, state, x, stride=self.stride, padding=self.padding)
        return state, y + bias


class Deconv2d(nn.Module):
    """`deconv2d` with parameters `kernel` (K1, K2, C, D) and `bias` (D,).

    Attributes:
        features: D.
        taps: K1 over time, K2 over frequency.
        stride: over frequency.
        padding: frequencies that are cut off on either side.
        output_padding: further frequencies at the upper end.
    """

    features: int
    taps: tuple[int, int]
    stride: int = 1
    padding: int = 0
    output_padding: int = 0

    @nn.compact
    def __call__(self, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        """State (B, K1 - 1, F, C) or None and x (B, T, F, C) -> next state and y (B, T, F', D)."""
        kernel, bias = _parameters(self, x.shape[-1])
        state, y = deconv2d(
            kernel,
            state,
            x,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
        )
        return state, y + bias


def _parameters(layer: Conv2d | Deconv2d, channels: int) -> tuple[jax.Array, jax.Array]:
    """Kernel and bias, at first U(-1/sqrt(K1 K2 C), 1/sqrt(K1 K2 C)); the transposed one's ours."""
    initial = uniform_fan_in(layer.taps[0] * layer.taps[1] * channels)
    kernel = layer.param("kernel", initial, (*layer.taps, channels, layer.features))
    return kernel, layer.param("bias", initial, (layer.features,))


class GLU(nn.Module):
    """a * sigmoid(b) of two layers of one kind, `linear` and `sigmoid`.

    Attributes:
        layer: makes either, given its name: `functools.partial(Conv2d, 16, (1, 3))`.
    """

    layer: Callable[..., Conv2d | Deconv2d]

    @nn.compact
    def __call__(self, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        """As the layer's."""
        _, b = self.layer(name="sigmoid")(state, x)
        state, a = self.layer(name="linear")(state, x)
        return state, a * nn.sigmoid(b)


def conv2d_cost(
    path: str, taps: tuple[int, int], in_features: int, features: int, *, outputs: int
) -> LayerCost:
    """Cost per frame: the kernel at each of `outputs` frequencies, those of the padding as well."""
    weights = taps[0] * taps[1] * in_features * features
    return LayerCost(path, weights + features, weights * outputs)


def deconv2d_cost(
    path: str, taps: tuple[int, int], in_features: int, features: int, *, inputs: int, outputs: int
) -> LayerCost:
    """Cost per frame: the kernel at each of `inputs` frequencies; beside it, at the outputs."""
    weights = taps[0] * taps[1] * in_features * features
    return LayerCost(path, weights + features, weights * inputs, macs_at_outputs=weights * outputs)
