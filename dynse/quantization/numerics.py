"""Integer numerics: grids, quantise and dequantise, rescaling by a multiplier and a shift.

    grid of a range     S = (high - low) / (2^b - 1),  Z = round(-low / S),  real = S (code - Z)
    rescale             round(acc M 2^-s)                   M 2^-s ~ a ratio of scales
    sum on one shift    round((M_a A + M_b B) 2^-s)         A = code_a - Z_a, B = code_b - Z_b

Ratios are turned into integers on the host, in float64; what runs in the jitted program is int32
alone. Inside it a value is its centred code c = code - Z, so that each operation ends with
clip(c, -Z, 2^b - 1 - Z) and no zero point is ever added.

Policy for the edges. Rounding: half away from zero, everywhere (jnp.round is half to even).
Out of range: saturates, infinities included. NaN: becomes the real value 0. A range always
contains 0, which is then exactly representable; a range that is only 0 gets S = 1, Z = 0.
int32 overflow: excluded by the bounds stated at each function.

The scheme is that of Jacob et al., CVPR 2018 (arXiv 1712.05877), with 15-bit multipliers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

MIN_BITS, MAX_BITS = 2, 8
WIDTHS = tuple(range(MIN_BITS, MAX_BITS + 1))
SMALLEST_RANGE = 1e-30  # anything narrower counts as constant 0: its float32 inverse overflows

LINEAR_BITS, PRODUCT_BITS, SUM_BITS = 15, 14, 21
_LARGEST_SHIFT = {LINEAR_BITS: 46, PRODUCT_BITS: 30}
_LARGEST_SUM_SHIFT = 30


def round_half_away(x: ArrayLike) -> np.ndarray:
    """Nearest integer, ties away from zero, NumPy float64."""
    x = np.asarray(x, np.float64)
    nearest = np.trunc(x)
    # x + 0.5 would round 0.49999999999999994 up.
    return nearest + np.where(np.abs(x - nearest) >= 0.5, np.sign(x), 0)


def affine_grid(low: ArrayLike, high: ArrayLike, bits: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of the asymmetric grid of a range.

    Args:
        low, high: the range; it is widened to contain 0. Arrays broadcast with `bits`.
        bits: width.

    Returns:
        scale (float64) and zero point (int32), arrays.

    Raises:
        ValueError: the range is not finite or turned round.
    """
    low, high, bits = np.broadcast_arrays(np.float64(low), np.float64(high), bits)
    if not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
        raise ValueError(f"expected finite ranges low <= high, got low {low} and high {high}")
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    levels = 2.0**bits - 1
    constant = high - low < SMALLEST_RANGE
    scale = np.where(constant, 1.0, (high - low) / levels)
    zero_point = np.where(constant, 0, round_half_away(-low / scale))
    return scale, zero_point.astype(np.int32)


def multiplier_and_shift(
    ratio: ArrayLike, significant_bits: int = LINEAR_BITS
) -> tuple[np.ndarray, np.ndarray]:
    """Integers with M 2^-s ~ ratio, M of `significant_bits` bits; on the host.

    With 15 bits, for accumulators up to 2^31 - 1 and `rescale`: M in [2^14, 2^15), s in 1 ... 46.
    With 14 bits, for products of two centred codes (at most 255^2) and `round_shift`: M in
    [2^13, 2^14), s in 1 ... 30, so that the product with M and its rounding stay in int32.
    A smaller ratio takes every accumulator below 1/2: M = 0. A larger one takes every
    accumulator but 0 out of all grids: the largest M and s = 1 do so too.

    Args:
        ratio: positive, any shape.

    Returns:
        M and s, int32 of the ratio's shape.
    """
    mantissa, exponent = np.frexp(np.asarray(ratio, np.float64))
    multiplier = round_half_away(mantissa * 2.0**significant_bits)
    carried = multiplier == 2.0**significant_bits
    multiplier = np.where(carried, multiplier / 2, multiplier)
    shift = significant_bits - exponent - carried
    largest = _LARGEST_SHIFT[significant_bits]
    multiplier = np.where(shift > largest, 0, multiplier)
    multiplier = np.where(shift < 1, 2.0**significant_bits - 1, multiplier)
    return multiplier.astype(np.int32), np.clip(shift, 1, largest).astype(np.int32)


def multipliers_of_sum(
    ratio_a: ArrayLike, ratio_b: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers with M_a 2^-s ~ ratio_a and M_b 2^-s ~ ratio_b; on the host.

    The larger M is in [2^20, 2^21), s in 1 ... 30: with centred codes of at most 255,
    2 * 255 * 2^21 + 2^29 < 2^31. As in `multiplier_and_shift`, where both ratios are so small
    that every sum rounds to 0, both are 0, and ratios beyond 2^20 saturate.

    Args:
        ratio_a, ratio_b: positive, of one shape.

    Returns:
        M_a, M_b and s, int32.
    """
    ratio_a, ratio_b = np.broadcast_arrays(np.float64(ratio_a), np.float64(ratio_b))
    larger = np.maximum(ratio_a, ratio_b)
    _, exponent = np.frexp(larger)
    shift = SUM_BITS - exponent
    shift = shift - (round_half_away(larger * 2.0**shift) == 2.0**SUM_BITS)
    nothing = shift > _LARGEST_SUM_SHIFT
    shift = np.clip(shift, 1, _LARGEST_SUM_SHIFT)
    multipliers = [
        np.where(nothing, 0, np.minimum(round_half_away(ratio * 2.0**shift), 2**SUM_BITS - 1))
        for ratio in (ratio_a, ratio_b)
    ]
    return *(multiplier.astype(np.int32) for multiplier in multipliers), shift.astype(np.int32)


def round_shift(value: jax.Array, shift: jax.Array | int) -> jax.Array:
    """round(value 2^-shift), half away from zero, in int32.

    For value < 0, -floor((-v + half) / 2^s) = floor((v + half - 1) / 2^s): one arithmetic
    shift does both signs.

    Args:
        value: int32, ``|value| + 2^(shift - 1) < 2^31``.
        shift: at least 1, may be traced.
    """
    return (value + (1 << (shift - 1)) + (value >> 31)) >> shift


def rescale(
    accumulator: jax.Array, multiplier: jax.Array | int, shift: jax.Array | int
) -> jax.Array:
    """round(acc M 2^-s), half away from zero, in int32 without a 64-bit product.

    The product is split at 16 bits, acc M = (acc >> 16) M 2^16 + (acc & 65535) M, and the low
    half only passes its carry on; nested floors make that exact. For s <= 16 the bits below are
    needed, and |acc| is first limited to 65535: M 2^-s >= 1/4, so beyond it the result is over
    16383 anyway, outside every grid. Where the exact result is within that, this is it.

    Args:
        accumulator: int32, any but -2^31.
        multiplier: 0 or in [2^14, 2^15), int32.
        shift: 1 ... 46, int32. All broadcast, all may be traced.
    """
    long = shift > 16
    split = jnp.where(long, 16, 0)
    limit = jnp.where(long, 2**31 - 1, 65535)
    value = jnp.clip(accumulator, -limit, limit)
    high = (value >> split) * multiplier
    low = (value & ((1 << split) - 1)) * multiplier
    product = high + ((low + (value >> 31)) >> split)
    rest = shift - split
    return (product + (1 << (rest - 1))) >> rest


def quantize(
    x: jax.typing.ArrayLike,
    inverse_scale: jax.typing.ArrayLike,
    low: jax.typing.ArrayLike,
    high: jax.typing.ArrayLike,
) -> jax.Array:
    """Centred codes clip(round(x / S), low, high) in a jitted program.

    Multiplies by the float32 inverse: a division may be compiled to that or not, and the host
    (`quantize_on_host`) has to get the same bits.

    Args:
        x: float32. NaN becomes 0, infinities saturate.
        inverse_scale: 1 / S, float32.
        low, high: bounds of the centred code.

    Returns:
        int32 of x's shape.
    """
    scaled = jnp.where(jnp.isnan(x), 0, x) * inverse_scale
    nearest = jax.lax.round(scaled, jax.lax.RoundingMethod.AWAY_FROM_ZERO)
    low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    return jnp.clip(nearest, low, high).astype(jnp.int32)


def quantize_on_host(
    x: ArrayLike, inverse_scale: ArrayLike, low: ArrayLike, high: ArrayLike
) -> np.ndarray:
    """`quantize`, bit for bit, in NumPy."""
    x = np.asarray(x, np.float32)
    with np.errstate(over="ignore"):
        scaled = np.where(np.isnan(x), np.float32(0), x) * np.float32(inverse_scale)
    # Clipped first: rounding has no infinities to deal with, and the bounds are integers.
    return round_half_away(np.clip(scaled, np.float32(low), np.float32(high))).astype(np.int32)


def inverse(scale: ArrayLike) -> np.ndarray:
    """1 / S as float32, finite."""
    largest = np.finfo(np.float32).max
    return np.minimum(1 / np.asarray(scale, np.float64), largest).astype(np.float32)


def dequantize(centred: jax.typing.ArrayLike, scale: jax.typing.ArrayLike) -> jax.Array:
    """Real values S (code - Z) of centred codes, float32."""
    return jnp.asarray(centred, jnp.float32) * scale
