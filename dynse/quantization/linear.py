"""An integer linear, y = x W + b, at every width of weights and of input.

    acc = sum_i qw_i (qx_i - Z_x) + qb,      qb = round(b / (S_w S_x)) in int32
    q_y = clip(round(acc M 2^-s) + Z_y),     M 2^-s ~ S_w S_x / S_y

The weights and the output have one width, the input another: biases and multipliers are tables
over both. All of it is made on the host; a program picks by the traced widths.

A matmul in float32 is exact as long as no sum can reach 2^24, which is tested per tensor on the
largest sum_i |qw_i| * 255 of all outputs and widths, and it is several times faster than int32 on
a CPU. Where the bound does not hold the matmul is done in int32.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dynse.quantization.numerics import (
    MIN_BITS,
    WIDTHS,
    inverse,
    multiplier_and_shift,
    quantize_on_host,
    rescale,
)
from dynse.quantization.qtensor import largest_weight, quantize_weights, weight_scale

LARGEST_CODE = 255
LARGEST_BIAS = 2**30
LARGEST_INPUT = (2**30 - 1) // (largest_weight(8) * LARGEST_CODE)


@flax.struct.dataclass
class IntegerLinear:
    """Arrays of a linear, W widths of weights and output x W of input, W = 7.

    Attributes:
        kernel: (W, D, K) int8.
        bias: (W, W, K) int32, |bias| <= 2^30, so that no accumulator reaches 2^31.
        multiplier, shift: (W, W) int32.
        scale: (W,) float32, S_w.
        inverse_scale: (W,) float32, 1 / S_w.
        inverse_bias_scale: (W, W) float32, 1 / (S_w S_x).
        exact: whether a float32 matmul is exact at all widths.
    """

    kernel: jax.Array
    bias: jax.Array
    multiplier: jax.Array
    shift: jax.Array
    scale: jax.Array
    inverse_scale: jax.Array
    inverse_bias_scale: jax.Array
    exact: bool = flax.struct.field(pytree_node=False)


class Linear(NamedTuple):
    """A linear at chosen widths.

    Attributes:
        kernel: (D, K) of integers; float32 if the matmul is exact in it, else int32.
        bias: (K,) int32.
        multiplier, shift: int32 scalars.
        low, high: bounds of the centred output, int32 scalars.
    """

    kernel: jax.Array
    bias: jax.Array
    multiplier: jax.Array
    shift: jax.Array
    low: jax.Array
    high: jax.Array


def build_linear(
    kernel: ArrayLike,
    bias: ArrayLike,
    input_scale: np.ndarray,
    output_scale: np.ndarray,
    method: str = "minmax",
) -> IntegerLinear:
    """The integer form of a linear, on the host.

    Args:
        kernel: (D, K) floats.
        bias: (K,) floats.
        input_scale: (W,) float64, S_x at each width.
        output_scale: (W,) float64, S_y at each width.
        method: of the weights' scale, see `weight_scale`.

    Returns:
        IntegerLinear of NumPy arrays.

    Raises:
        ValueError: shapes that do not fit, or so many inputs that int32 could overflow.
    """
    kernel, bias = np.asarray(kernel, np.float32), np.asarray(bias, np.float32)
    if kernel.ndim != 2 or bias.shape != kernel.shape[1:]:
        raise ValueError(f"expected (D, K) and (K,), got shapes {kernel.shape} and {bias.shape}")
    if kernel.shape[0] > LARGEST_INPUT:
        raise ValueError(f"expected at most {LARGEST_INPUT} inputs, got {kernel.shape[0]}")
    scale = np.array([weight_scale(kernel, bits, method) for bits in WIDTHS])
    accumulator_scale = scale[:, None] * input_scale
    multiplier, shift = multiplier_and_shift(accumulator_scale / output_scale[:, None])
    empty = IntegerLinear(
        kernel=None,
        bias=None,
        multiplier=multiplier,
        shift=shift,
        scale=scale.astype(np.float32),
        inverse_scale=inverse(scale),
        inverse_bias_scale=inverse(accumulator_scale),
        exact=False,
    )
    return requantize_linear(empty, kernel, bias)


def requantize_linear(linear: IntegerLinear, kernel: ArrayLike, bias: ArrayLike) -> IntegerLinear:
    """Other weights on the same grids.

    Args:
        linear: IntegerLinear.
        kernel: (D, K) floats.
        bias: (K,) floats.

    Returns:
        IntegerLinear.
    """
    tensors = [
        quantize_weights(kernel, bits, 1 / np.float64(inverse_scale))
        for bits, inverse_scale in zip(WIDTHS, np.asarray(linear.inverse_scale), strict=True)
    ]
    codes = np.stack([tensor.values for tensor in tensors])
    scaled = np.asarray(linear.inverse_bias_scale)[..., None]
    largest_sum = int(np.abs(codes.astype(np.int64)).sum(1).max(initial=0))
    return linear.replace(
        kernel=codes,
        bias=quantize_on_host(bias, scaled, -LARGEST_BIAS, LARGEST_BIAS),
        exact=exact_in_float32(largest_sum),
    )


def exact_in_float32(largest_sum: int) -> bool:
    """Whether sum_i qw_i (qx_i - Z_x) is exact in float32, whatever the order of the sum.

    Args:
        largest_sum: bound of sum_i |qw_i|.
    """
    return largest_sum * LARGEST_CODE < 2**24


def pick_linear(
    linear: IntegerLinear,
    bits: jax.Array | int,
    input_bits: jax.Array | int,
    low: jax.Array,
    high: jax.Array,
) -> Linear:
    """The linear at a width of weights and output, and a width of input; both may be traced."""
    width, input_width = bits - MIN_BITS, input_bits - MIN_BITS
    kernel = linear.kernel[width]
    return Linear(
        kernel=kernel.astype(jnp.float32 if linear.exact else jnp.int32),
        bias=linear.bias[width, input_width],
        multiplier=linear.multiplier[width, input_width],
        shift=linear.shift[width, input_width],
        low=low,
        high=high,
    )


def apply_linear(linear: Linear, x: jax.Array) -> jax.Array:
    """Centred codes to centred codes.

    Args:
        linear: Linear.
        x: (..., D) int32 centred codes, |x| <= 255.

    Returns:
        (..., K) int32.
    """
    return jnp.clip(
        rescale(accumulate(linear, x), linear.multiplier, linear.shift), linear.low, linear.high
    )


def accumulate(linear: Linear, x: jax.Array) -> jax.Array:
    """The int32 accumulators (..., K) of `apply_linear`, before rescaling."""
    sums = jnp.matmul(
        x.astype(linear.kernel.dtype), linear.kernel, precision=jax.lax.Precision.HIGHEST
    )
    return sums.astype(jnp.int32) + linear.bias
