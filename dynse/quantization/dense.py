"""The integer dense layer: a linear, then nothing, a ReLU or a sigmoid, all at one width.

The grid of a ReLU's output starts at 0, so clipping to the grid is the ReLU. A sigmoid is a table
from the grid of its argument to S = 1 / (2^b - 1), Z = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dynse.quantization.linear import IntegerLinear, apply_linear, build_linear, pick_linear
from dynse.quantization.numerics import MIN_BITS, WIDTHS, affine_grid
from dynse.quantization.qtensor import Grid, code_bounds
from dynse.quantization.tables import build_tables


@flax.struct.dataclass
class IntegerDense:
    """Arrays of a dense layer at all widths.

    Attributes:
        linear: IntegerLinear.
        linear_grid: `Grid` of the linear's result.
        table: (W, 256) uint8 codes of the sigmoid; None without one.
        grid: `Grid` of the output.
    """

    linear: IntegerLinear
    linear_grid: Grid
    table: jax.Array | None
    grid: Grid


def build_dense(
    params: Mapping[str, Any],
    activation: str,
    bounds: tuple[ArrayLike, ArrayLike],
    input_scale: np.ndarray,
    method: str = "minmax",
) -> tuple[IntegerDense, np.ndarray]:
    """The integer form of a dense layer, on the host.

    Args:
        params: "kernel" and "bias".
        activation: "none", "relu" or "sigmoid".
        bounds: (low, high) of x W + b, each a number or (W,).
        input_scale: (W,) float64, S_x at each width.
        method: of the weights' scale.

    Returns:
        IntegerDense of NumPy arrays and its output's scale (W,) float64.
    """
    low, high = bounds
    if activation == "relu":
        low, high = np.zeros_like(low), np.maximum(high, 0)
    linear_grid = affine_grid(low, high, np.array(WIDTHS))
    grid, table = linear_grid, None
    if activation == "sigmoid":
        grid = affine_grid(0.0, 1.0, np.array(WIDTHS))
        # Argument and value have the layer's one width: the diagonal of the tables.
        table = np.stack([t[i] for i, t in enumerate(build_tables("sigmoid", linear_grid, grid))])
    linear = build_linear(params["kernel"], params["bias"], input_scale, linear_grid[0], method)
    grids = [Grid(scale.astype(np.float32), zero) for scale, zero in (linear_grid, grid)]
    return IntegerDense(linear, grids[0], table, grids[1]), grid[0]


def run_dense(
    dense: IntegerDense, bits: jax.Array | int, input_bits: jax.Array | int, x: jax.Array
) -> jax.Array:
    """Centred codes (..., D) to centred codes (..., K).

    Args:
        dense: IntegerDense.
        bits, input_bits: widths, may be traced.
        x: int32 centred codes.
    """
    low, high = code_bounds(dense.linear_grid, bits)
    y = apply_linear(pick_linear(dense.linear, bits, input_bits, low, high), x)
    return y if dense.table is None else look_up(dense, bits, y)


def look_up(dense: IntegerDense, bits: jax.Array | int, y: jax.Array) -> jax.Array:
    """The sigmoid of centred codes of the linear; its own codes are centred, as Z = 0."""
    low, _ = code_bounds(dense.linear_grid, bits)
    table = dense.table[bits - MIN_BITS].astype(jnp.int32)
    return table.at[y - low].get(mode="promise_in_bounds")
