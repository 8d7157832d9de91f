"""A quantised tensor, the grids of one at all widths, and the quantisation of weights.

Weights are symmetric: S = max |w| / (2^(b-1) - 1), Z = 0, so a matmul needs no correction for
the weights' zero point. The lowest code -2^(b-1) is not used: at 2 bits weights are ternary. The
method "mse" takes the scale below that with the least squared error, which matters from 4 bits
down (Banner et al., NeurIPS 2019, arXiv 1810.05723).
"""

from __future__ import annotations

from typing import NamedTuple

import flax.struct
import jax
import numpy as np
from numpy.typing import ArrayLike

from dynse.quantization.numerics import MIN_BITS, SMALLEST_RANGE, inverse, quantize_on_host

METHODS = ("minmax", "mse")
# The scale of a tensor of zeros: small, as its bias is stored in steps of it.
ZERO_WEIGHTS_SCALE = 2.0**-16
_SHRINKS = np.linspace(1, 0.05, 64)


class QTensor(NamedTuple):
    """A symmetric tensor of integers that stand for real numbers, on the host.

    With S = scale and b = bits, these hold:

        real = S values,  S > 0
        |values| <= 2^(b-1) - 1 =: q
        |real - original| <= S / 2       where |original| <= S q
        real = S q sign(original)        where |original| > S q

    Attributes:
        values: integers, the shape of the original.
        scale: S.
        bits: b, 2 to 8.
    """

    values: np.ndarray
    scale: float
    bits: int

    def dequantize(self) -> np.ndarray:
        """The real values, float64."""
        return self.scale * self.values.astype(np.float64)


@flax.struct.dataclass
class Grid:
    """The asymmetric grids of one tensor at the W = 7 widths.

    Attributes:
        scale: (W,) float32.
        zero_point: (W,) int32.
    """

    scale: jax.Array
    zero_point: jax.Array


def code_bounds(grid: Grid, bits: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Bounds of a centred code: -Z and 2^b - 1 - Z."""
    low = -grid.zero_point[bits - MIN_BITS]
    return low, low + (1 << bits) - 1


def largest_weight(bits: int) -> int:
    """2^(b-1) - 1, the largest code of a symmetric tensor."""
    return 2 ** (bits - 1) - 1


def quantize_weights(weights: ArrayLike, bits: int, scale: float) -> QTensor:
    """A weight tensor on a given symmetric grid.

    Args:
        weights: floats of any shape.
        bits: 2 to 8.
        scale: from `weight_scale`; weights beyond the grid saturate.

    Returns:
        QTensor of int8 values.
    """
    bound = largest_weight(bits)
    values = quantize_on_host(weights, inverse(scale), -bound, bound)
    return QTensor(values.astype(np.int8), float(scale), bits)


def weight_scale(weights: ArrayLike, bits: int, method: str = "minmax") -> float:
    """The symmetric scale of a weight tensor.

    Args:
        weights: floats of any shape.
        bits: 2 to 8.
        method: "minmax", nothing saturates; "mse", least squared error among 64 scales from
            that one down to a twentieth of it.

    Returns:
        The scale, float; that of a tensor of zeros is 2^-16.

    Raises:
        ValueError: unknown method, or weights that are not finite.
    """
    if method not in METHODS:
        raise ValueError(f"expected one of {METHODS} as method of the weights, got {method!r}")
    weights = np.asarray(weights, np.float32)
    if not np.isfinite(weights).all():
        raise ValueError(f"expected finite weights, got some that are not in shape {weights.shape}")
    largest = float(np.abs(weights).max(initial=0))
    if largest < SMALLEST_RANGE:
        return ZERO_WEIGHTS_SCALE
    scale = largest / largest_weight(bits)
    if method == "minmax":
        return scale

    def squared_error(candidate: float) -> float:
        codes = quantize_weights(weights, bits, candidate).values
        return np.square(weights - np.float32(candidate) * codes).sum(dtype=np.float64)

    return min((scale * shrink for shrink in _SHRINKS), key=squared_error)
