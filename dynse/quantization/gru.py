"""The integer GRU: 17 operations, each at its own width, for every width at once.

`gru_cell` is the data flow, written once. What its values are is up to the arithmetic it gets:
real numbers (calibration), centred codes (here), or both (fake quantisation). Per operation:

    linear       see `linear`
    sum          c_y = clip(round((M_a c_a + M_b c_b) 2^-s))
    product      c_y = clip(round(c_a c_b M 2^-s))
    sigmoid, tanh   a table of 2^b_in entries, round(f(S (q - Z)) / S_y) + Z_y
    1 - z        exact on z's grid, (2^b_z - 1) - q_z, then rescaled to its own width

r, z and 1 - z lie on [0, 1], S = 1 / (2^b - 1) and Z = 0; n on [-1, 1]; all other grids are
calibrated. The multipliers are tables over the widths of operands and result.

Miccini et al., arXiv 2402.12263; the arithmetic of each operation follows the usual rules for
asymmetric 8-bit tensors (Jacob et al., arXiv 1712.05877).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dynse.quantization.genome import GRU_OPERATIONS
from dynse.quantization.linear import (
    IntegerLinear,
    Linear,
    apply_linear,
    build_linear,
    pick_linear,
)
from dynse.quantization.numerics import (
    MIN_BITS,
    PRODUCT_BITS,
    WIDTHS,
    affine_grid,
    multiplier_and_shift,
    multipliers_of_sum,
    rescale,
    round_shift,
)
from dynse.quantization.qtensor import Grid, code_bounds
from dynse.quantization.tables import build_tables

INPUT_LINEARS = ("W_ir", "W_iz", "W_in")
HIDDEN_LINEARS = ("W_hr", "W_hz", "W_hn")
SUMS = {
    "r_pre": ("W_ir", "W_hr"),
    "z_pre": ("W_iz", "W_hz"),
    "n_pre": ("W_in", "r*hn"),
    "h": ("(1-z)*n", "z*h"),
}
PRODUCTS = {"r*hn": ("r", "W_hn"), "(1-z)*n": ("1-z", "n"), "z*h": ("z", "h")}
FUNCTIONS = {"r": ("r_pre", "sigmoid"), "z": ("z_pre", "sigmoid"), "n": ("n_pre", "tanh")}
FIXED_RANGES = {"r": (0.0, 1.0), "z": (0.0, 1.0), "1-z": (0.0, 1.0), "n": (-1.0, 1.0)}
CALIBRATED = tuple(name for name in GRU_OPERATIONS if name not in FIXED_RANGES)


def gru_cell(arithmetic: Any, x: Sequence[Any], h: Any) -> Any:
    """One step of the GRU, in the arithmetic's kind of values.

    Args:
        arithmetic: has `hidden(h)`, `add(name, a, b)`, `multiply(name, a, b)`,
            `activate(name, a)` and `complement(name, a)`; `name` is that of the operation.
        x: the values of W_ir x + b_ir, W_iz x + b_iz and W_in x + b_in, each (B, H).
        h: (B, H).

    Returns:
        The next h.
    """
    do = arithmetic
    x_r, x_z, x_n = x
    h_r, h_z, h_n = do.hidden(h)
    r = do.activate("r", do.add("r_pre", x_r, h_r))
    z = do.activate("z", do.add("z_pre", x_z, h_z))
    n = do.activate("n", do.add("n_pre", x_n, do.multiply("r*hn", r, h_n)))
    new = do.multiply("(1-z)*n", do.complement("1-z", z), n)
    return do.add("h", new, do.multiply("z*h", z, h))


@flax.struct.dataclass
class IntegerGRU:
    """Arrays of a GRU at all widths, W = 7, keyed by operation.

    Attributes:
        linears: the six `IntegerLinear`.
        sums: M_a, M_b, s, each (W, W, W) over the widths of both operands and of the result.
        products: M, s, each (W, W, W) likewise.
        complement: M, s, each (W, W) over the widths of z and of 1 - z.
        tables: (W, W, 256) uint8 codes over the widths of argument and value; the first 2^b_in
            entries count.
        grids: `Grid` of each operation's result.
    """

    linears: dict[str, IntegerLinear]
    sums: dict[str, tuple]
    products: dict[str, tuple]
    complement: tuple
    tables: dict[str, jax.Array]
    grids: dict[str, Grid]


def build_gru(
    params: Mapping[str, Any],
    ranges: Mapping[str, tuple[ArrayLike, ArrayLike]],
    input_scale: np.ndarray,
    method: str = "minmax",
) -> tuple[IntegerGRU, np.ndarray]:
    """The integer form of a GRU, on the host.

    Args:
        params: "input_kernel", "hidden_kernel", "input_bias", "hidden_bias".
        ranges: of each operation in `CALIBRATED`, (low, high), each a number or (W,).
        input_scale: (W,) float64, S_x at each width.
        method: of the weights' scales.

    Returns:
        IntegerGRU of NumPy arrays and its output's scale (W,) float64.
    """
    ranges = {**ranges, **FIXED_RANGES}
    grids = {name: affine_grid(*ranges[name], np.array(WIDTHS)) for name in GRU_OPERATIONS}
    scale = {name: grid[0] for name, grid in grids.items()}
    gates = split_gates(params)
    linears = {}
    for name in INPUT_LINEARS + HIDDEN_LINEARS:
        source = input_scale if name in INPUT_LINEARS else scale["h"]
        linears[name] = build_linear(*gates[name], source, scale[name], method)

    def over_widths(a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
        return scale[a][:, None, None], scale[b][None, :, None]

    sums, products = {}, {}
    for name, operands in SUMS.items():
        scale_a, scale_b = over_widths(*operands)
        sums[name] = multipliers_of_sum(scale_a / scale[name], scale_b / scale[name])
    for name, operands in PRODUCTS.items():
        scale_a, scale_b = over_widths(*operands)
        products[name] = multiplier_and_shift(scale_a * scale_b / scale[name], PRODUCT_BITS)
    complement = multiplier_and_shift(scale["z"][:, None] / scale["1-z"])
    tables = {
        name: build_tables(function, grids[argument], grids[name])
        for name, (argument, function) in FUNCTIONS.items()
    }
    kept = {name: Grid(s.astype(np.float32), z) for name, (s, z) in grids.items()}
    return IntegerGRU(linears, sums, products, complement, tables, kept), scale["h"]


def split_gates(params: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Kernel and bias of each of the six linears.

    Raises:
        ValueError: kernels that are not (D, 3H) and (H, 3H).
    """
    x_kernel, h_kernel = params["input_kernel"], params["hidden_kernel"]
    hidden = h_kernel.shape[0]
    if h_kernel.shape[1] != 3 * hidden or x_kernel.shape[1] != 3 * hidden:
        raise ValueError(
            f"expected kernels (D, 3H) and (H, 3H), got {x_kernel.shape} and {h_kernel.shape}"
        )
    parts = {}
    for gate in range(3):
        columns = slice(gate * hidden, (gate + 1) * hidden)
        parts[INPUT_LINEARS[gate]] = x_kernel[:, columns], params["input_bias"][columns]
        parts[HIDDEN_LINEARS[gate]] = h_kernel[:, columns], params["hidden_bias"][columns]
    return parts


class IntegerArithmetic(NamedTuple):
    """The cell's operations on centred codes, at the widths of one genome: scalars and tables,
    picked once, outside the loop over time. A matmul a gate is faster than one for all three."""

    linears: dict[str, Linear]
    sums: dict[str, tuple]
    products: dict[str, tuple]
    complements: tuple
    tables: dict[str, jax.Array]
    bounds: dict[str, tuple]

    def input(self, x: jax.Array) -> list[jax.Array]:
        """(..., D) codes -> three of (..., H)."""
        return [apply_linear(self.linears[name], x) for name in INPUT_LINEARS]

    def hidden(self, h: jax.Array) -> list[jax.Array]:
        return [apply_linear(self.linears[name], h) for name in HIDDEN_LINEARS]

    def add(self, name: str, a: jax.Array, b: jax.Array) -> jax.Array:
        multiplier_a, multiplier_b, shift = self.sums[name]
        return jnp.clip(round_shift(multiplier_a * a + multiplier_b * b, shift), *self.bounds[name])

    def multiply(self, name: str, a: jax.Array, b: jax.Array) -> jax.Array:
        multiplier, shift = self.products[name]
        return jnp.clip(round_shift(a * b * multiplier, shift), *self.bounds[name])

    def activate(self, name: str, a: jax.Array) -> jax.Array:
        index = a - self.bounds[FUNCTIONS[name][0]][0]
        return self.tables[name].at[index].get(mode="promise_in_bounds")

    def complement(self, name: str, z: jax.Array) -> jax.Array:
        _, one = self.bounds["z"]
        return jnp.clip(rescale(one - z, *self.complements), *self.bounds[name])


def pick_gru(
    gru: IntegerGRU,
    widths: Mapping[str, jax.Array],
    input_bits: jax.Array | int,
    linears: dict[str, Linear] | None = None,
) -> IntegerArithmetic:
    """The arithmetic of one genome.

    Args:
        gru: IntegerGRU.
        widths: dict from operation to width, may be traced.
        input_bits: width of the input, may be traced.
        linears: the six `Linear` at these widths, if they are not those of `gru`.
    """
    at = {name: bits - MIN_BITS for name, bits in widths.items()}
    bounds = {name: code_bounds(gru.grids[name], bits) for name, bits in widths.items()}
    linears = linears or {
        name: pick_linear(
            linear,
            widths[name],
            input_bits if name in INPUT_LINEARS else widths["h"],
            *bounds[name],
        )
        for name, linear in gru.linears.items()
    }

    def pick(
        arrays: tuple[jax.Array, ...], name: str, operands: Mapping[str, tuple[str, str]]
    ) -> tuple[jax.Array, ...]:
        a, b = (at[operand] for operand in operands[name])
        return tuple(array[a, b, at[name]] for array in arrays)

    return IntegerArithmetic(
        linears=linears,
        sums={name: pick(arrays, name, SUMS) for name, arrays in gru.sums.items()},
        products={name: pick(arrays, name, PRODUCTS) for name, arrays in gru.products.items()},
        complements=tuple(array[at["z"], at["1-z"]] for array in gru.complement),
        tables={
            name: table[at[FUNCTIONS[name][0]], at[name]].astype(jnp.int32) + bounds[name][0]
            for name, table in gru.tables.items()
        },
        bounds=bounds,
    )


def run_gru(arithmetic: Any, h: Any, x: Any) -> tuple[Any, Any]:
    """A block of frames: all of W_i x first, then the recurrence.

    Args:
        arithmetic: from `pick_gru`, or another that `gru_cell` takes, with `input(x)`.
        h: (B, H) values.
        x: (B, T, D) values.

    Returns:
        The last h and all of them, (B, T, H).
    """

    def step(h: Any, x: Sequence[Any]) -> tuple[Any, Any]:
        return gru_cell(arithmetic, x, h), h

    # The scan puts out the h it begins a step with. Were it the new one, XLA's CPU compiler would
    # compute it twice, once for the next step and once for the output: twice the time in all.
    last, before = jax.lax.scan(step, h, arithmetic.input(swap_time(x)))
    hs = jax.tree.map(lambda old, new: jnp.concatenate([old[1:], new[None]]), before, last)
    return last, swap_time(hs)


def swap_time(values: Any) -> Any:
    """(B, T, ...) to (T, B, ...) and back."""
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), values)
