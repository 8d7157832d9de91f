"""A whole net in integers: GRUs and dense layers in a row, from float input to float output.

    ranges = calibrate(layers, params, batches)
    net = build(layers, params, ranges)
    state = init_state(net, genome, batch_size)
    state, q = apply_integer(net, genome, state, quantize_input(net, x))
    y = dequantize_output(net, genome, q)

Between `quantize_input` and `dequantize_output` everything is an integer, but for matmuls whose
sums float32 holds exactly. `build` makes the arrays of all widths at once, so the genome is a
traced array: one compilation for all genomes of a net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dynse.quantization.dense import IntegerDense, build_dense, run_dense
from dynse.quantization.genome import INPUT_BITS, DenseLayer, GRULayer, split_genome
from dynse.quantization.gru import (
    CALIBRATED,
    IntegerGRU,
    build_gru,
    pick_gru,
    run_gru,
    split_gates,
)
from dynse.quantization.linear import requantize_linear
from dynse.quantization.numerics import MIN_BITS, WIDTHS, affine_grid, dequantize, inverse, quantize
from dynse.quantization.qtensor import Grid, code_bounds


@flax.struct.dataclass
class IntegerNet:
    """A net at all widths. A pytree: it can be an argument of a jitted function.

    Attributes:
        input_grid: `Grid` of the input.
        input_inverse_scale: (W,) float32, 1 / S of the input.
        parts: for each layer its `IntegerGRU` or `IntegerDense`.
        layers: the layers, static.
    """

    input_grid: Grid
    input_inverse_scale: jax.Array
    parts: tuple[IntegerGRU | IntegerDense, ...]
    layers: tuple[GRULayer | DenseLayer, ...] = flax.struct.field(pytree_node=False)


def tensor_names(layers: Sequence[GRULayer | DenseLayer]) -> tuple[str, ...]:
    """The tensors whose ranges `build` needs: the input, GRUs' results, dense layers' x W + b."""
    names = ["input"]
    for layer in layers:
        own = [f"{layer.name}/{operation}" for operation in CALIBRATED]
        names += own if isinstance(layer, GRULayer) else [layer.name]
    return tuple(names)


def build(
    layers: Sequence[GRULayer | DenseLayer],
    params: Mapping[str, Any],
    ranges: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    weights: str = "minmax",
) -> IntegerNet:
    """The integer form of a float net, on the host.

    Args:
        layers: tuple of `GRULayer` and `DenseLayer`.
        params: of each layer by its name, see the layers.
        ranges: (low, high) of each tensor in `tensor_names`, from `calibrate`; low and high are
            numbers, or (7,) with one for each width.
        weights: method of the weights' scales: "minmax" or "mse".

    Returns:
        IntegerNet.

    Raises:
        ValueError: ranges that are missing, or shapes that do not fit.
    """
    layers = tuple(layers)
    names = [layer.name for layer in layers]
    if len(set(names)) < len(names):
        raise ValueError(f"expected layers with names of their own, got {names}")
    missing = [name for name in tensor_names(layers) if name not in ranges]
    if missing:
        raise ValueError(f"expected ranges of all tensors, got none of {missing}")
    scale, zero_point = affine_grid(*ranges["input"], np.array(WIDTHS))
    input_grid = Grid(scale.astype(np.float32), zero_point)
    input_inverse_scale = inverse(scale)
    parts = []
    for layer in layers:
        own = params[layer.name]
        if isinstance(layer, GRULayer):
            inside = {name: ranges[f"{layer.name}/{name}"] for name in CALIBRATED}
            part, scale = build_gru(own, inside, scale, weights)
        else:
            part, scale = build_dense(own, layer.activation, ranges[layer.name], scale, weights)
        parts.append(part)
    net = IntegerNet(input_grid, input_inverse_scale, tuple(parts), layers)
    return jax.tree.map(jnp.asarray, net)


def requantize(net: IntegerNet, params: Mapping[str, Any]) -> IntegerNet:
    """The net with other weights on the same grids, as after fine-tuning with `apply_fake`.

    Args:
        net: IntegerNet.
        params: of the shapes it was built from.
    """
    parts = []
    for layer, part in zip(net.layers, net.parts, strict=True):
        own = params[layer.name]
        if isinstance(layer, GRULayer):
            gates = split_gates(own)
            linears = {
                name: requantize_linear(linear, *gates[name])
                for name, linear in part.linears.items()
            }
            parts.append(part.replace(linears=linears))
        else:
            linear = requantize_linear(part.linear, own["kernel"], own["bias"])
            parts.append(part.replace(linear=linear))
    return jax.tree.map(jnp.asarray, net.replace(parts=tuple(parts)))


def quantize_input(net: IntegerNet, x: jax.typing.ArrayLike) -> jax.Array:
    """Codes of the input, 8 bits.

    Args:
        net: IntegerNet.
        x: (B, T, D) float32. Values out of range saturate, NaN counts as 0.

    Returns:
        (B, T, D) int32, 0 to 255.
    """
    low, high = code_bounds(net.input_grid, INPUT_BITS)
    return quantize(x, net.input_inverse_scale[INPUT_BITS - MIN_BITS], low, high) - low


def init_state(
    net: IntegerNet, genome: jax.typing.ArrayLike, batch_size: int
) -> tuple[jax.Array | tuple[()], ...]:
    """h = 0 of every GRU, as codes: its zero point at this genome's width.

    Returns:
        Tuple with (batch_size, H) int32 for each GRU and () for each dense layer.
    """
    states = []
    for part, (widths, _) in zip(net.parts, split_genome(net.layers, genome), strict=True):
        if isinstance(part, IntegerGRU):
            zero_point = -code_bounds(part.grids["h"], widths["h"])[0]
            hidden = part.linears["W_hn"].kernel.shape[-1]
            states.append(jnp.full((batch_size, hidden), zero_point, jnp.int32))
        else:
            states.append(())
    return tuple(states)


def apply_integer(
    net: IntegerNet,
    genome: jax.typing.ArrayLike,
    state: tuple[jax.Array | tuple[()], ...],
    qx: jax.Array,
) -> tuple[tuple[jax.Array | tuple[()], ...], jax.Array]:
    """The net on a block of frames, in integers. Any split into blocks gives the same bits.

    Args:
        net: IntegerNet.
        genome: (G,) int32, 2 to 8, may be traced. (Values outside are not checked.)
        state: from `init_state` with the same genome, or what the last call returned.
        qx: (B, T, D) integers, from `quantize_input`.

    Returns:
        ``(state, q)``: q (B, T, K) int32, codes at the width of the last gene.
    """
    x = qx.astype(jnp.int32) + code_bounds(net.input_grid, INPUT_BITS)[0]
    states = []
    for part, own, (widths, input_bits) in zip(
        net.parts, state, split_genome(net.layers, genome), strict=True
    ):
        if isinstance(part, IntegerGRU):
            low, _ = code_bounds(part.grids["h"], widths["h"])
            h, x = run_gru(pick_gru(part, widths, input_bits), own + low, x)
            own = h - low
        else:
            x = run_dense(part, widths["dense"], input_bits, x)
        states.append(own)
    return tuple(states), x - code_bounds(*_output(net, genome))[0]


def dequantize_output(net: IntegerNet, genome: jax.typing.ArrayLike, q: jax.Array) -> jax.Array:
    """Real values of the output's codes.

    Args:
        q: (B, T, K) integers, from `apply_integer` with the same genome.

    Returns:
        (B, T, K) float32.
    """
    grid, bits = _output(net, genome)
    return dequantize(q + code_bounds(grid, bits)[0], grid.scale[bits - MIN_BITS])


def _output(net: IntegerNet, genome: jax.typing.ArrayLike) -> tuple[Grid, jax.Array]:
    """Grid and width of the output."""
    part = net.parts[-1]
    return part.grids["h"] if isinstance(part, IntegerGRU) else part.grid, genome[-1]
