"""Fake quantisation: the float simulation of an integer net, for training through it.

Each value is a pair: the centred code that the integer net has at this place, computed by the
same integer operations, and its real value, through which the gradient flows:

    forward     v = S c,   bit for bit what the integer net stands for
    backward    dv = d clip(f(operands' v), S (low - 1/2), S (high + 1/2))

the straight-through estimator, clipped: rounding counts as the identity and where a code
saturates nothing flows (Bengio et al. 2013, arXiv 1308.3432; Jacob et al., arXiv 1712.05877).
Weights and biases are quantised inside, on the net's fixed grids, so after training
`requantize(net, params)` is the integer net that scores the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dynse.quantization.dense import IntegerDense, look_up
from dynse.quantization.genome import INPUT_BITS, split_genome
from dynse.quantization.gru import (
    HIDDEN_LINEARS,
    INPUT_LINEARS,
    IntegerArithmetic,
    IntegerGRU,
    pick_gru,
    run_gru,
    split_gates,
)
from dynse.quantization.linear import (
    LARGEST_BIAS,
    IntegerLinear,
    Linear,
    apply_linear,
    exact_in_float32,
)
from dynse.quantization.net import IntegerNet, quantize_input
from dynse.quantization.numerics import MIN_BITS, dequantize, quantize
from dynse.quantization.qtensor import code_bounds, largest_weight


@jax.custom_jvp
def straight_through(value: jax.Array, smooth: jax.Array) -> jax.Array:
    """`value`, with the gradient of `smooth`; arrays of one shape."""
    del smooth
    return value


@straight_through.defjvp
def _straight_through_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return primals[0], tangents[1]


def fake_quant(
    smooth: jax.Array,
    codes: jax.Array,
    scale: jax.Array,
    low: jax.Array | int,
    high: jax.Array | int,
) -> jax.Array:
    """The real values of codes, with the clipped gradient of the smooth function.

    Args:
        smooth: float32, what the codes are the rounding of.
        codes: centred, int32.
        scale: S.
        low, high: bounds of the codes.
    """
    inside = jnp.clip(smooth, scale * (low - 0.5), scale * (high + 0.5))
    return straight_through(dequantize(codes, scale), inside)


class Pair(NamedTuple):
    """A quantised value twice.

    Attributes:
        code: centred, int32.
        value: S code, float32, with a gradient.
    """

    code: jax.Array
    value: jax.Array


class FakeLinear(NamedTuple):
    """A linear of float parameters on fixed grids: its integers and their real values."""

    linear: Linear
    kernel: jax.Array
    bias: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """The result before any clipping, float32."""
        return x @ self.kernel + self.bias


class FakeArithmetic(NamedTuple):
    """The cell's operations on pairs."""

    integer: IntegerArithmetic
    linears: dict[str, FakeLinear]
    scales: dict[str, jax.Array]

    def _pair(self, name: str, code: jax.Array, smooth: jax.Array) -> Pair:
        bounds = self.integer.bounds[name]
        return Pair(code, fake_quant(smooth, code, self.scales[name], *bounds))

    def _linears(self, names: Sequence[str], codes: Sequence[jax.Array], x: Pair) -> list[Pair]:
        return [
            self._pair(name, code, self.linears[name](x.value))
            for name, code in zip(names, codes, strict=True)
        ]

    def input(self, x: Pair) -> list[Pair]:
        return self._linears(INPUT_LINEARS, self.integer.input(x.code), x)

    def hidden(self, h: Pair) -> list[Pair]:
        return self._linears(HIDDEN_LINEARS, self.integer.hidden(h.code), h)

    def add(self, name: str, a: Pair, b: Pair) -> Pair:
        return self._pair(name, self.integer.add(name, a.code, b.code), a.value + b.value)

    def multiply(self, name: str, a: Pair, b: Pair) -> Pair:
        return self._pair(name, self.integer.multiply(name, a.code, b.code), a.value * b.value)

    def activate(self, name: str, a: Pair) -> Pair:
        smooth = jnp.tanh(a.value) if name == "n" else jax.nn.sigmoid(a.value)
        return self._pair(name, self.integer.activate(name, a.code), smooth)

    def complement(self, name: str, a: Pair) -> Pair:
        return self._pair(name, self.integer.complement(name, a.code), 1 - a.value)


def fake_linear(
    linear: IntegerLinear,
    kernel: jax.Array,
    bias: jax.Array,
    bits: jax.Array | int,
    input_bits: jax.Array | int,
    low: jax.Array,
    high: jax.Array,
) -> FakeLinear:
    """Quantise the parameters of a linear on its grids, keeping their gradient.

    Args:
        linear: `IntegerLinear`, of which only the grids are used.
        kernel: (D, K) float32.
        bias: (K,) float32.
        bits, input_bits: widths, may be traced.
        low, high: bounds of the centred output.

    Returns:
        FakeLinear.
    """
    width, input_width = bits - MIN_BITS, input_bits - MIN_BITS
    bound = (1 << (bits - 1)) - 1
    scale = linear.scale[width]
    codes = quantize(kernel, linear.inverse_scale[width], -bound, bound)
    inverse_bias_scale = linear.inverse_bias_scale[width, input_width]
    bias_codes = quantize(bias, inverse_bias_scale, -LARGEST_BIAS, LARGEST_BIAS)
    # Training may move the weights anywhere on their grid: the bound for all of them.
    exact = exact_in_float32(kernel.shape[0] * largest_weight(8))
    return FakeLinear(
        Linear(
            kernel=codes.astype(jnp.float32 if exact else jnp.int32),
            bias=bias_codes,
            multiplier=linear.multiplier[width, input_width],
            shift=linear.shift[width, input_width],
            low=low,
            high=high,
        ),
        kernel=fake_quant(kernel, codes, scale, -bound, bound),
        bias=straight_through(bias_codes / inverse_bias_scale, bias),
    )


def apply_fake(
    net: IntegerNet,
    params: Mapping[str, Any],
    genome: jax.typing.ArrayLike,
    state: tuple[jax.Array | tuple[()], ...],
    x: jax.Array,
) -> tuple[tuple[jax.Array | tuple[()], ...], jax.Array]:
    """The integer net on a block of frames, differentiable in the parameters and the input.

    Args:
        net: IntegerNet, its grids.
        params: float parameters of the layers; those of `net` are not used.
        genome: (G,) int32, may be traced.
        state: from `init_state`, or what the last call returned: codes, so no gradient flows
            from one block into the one before.
        x: (B, T, D) float32.

    Returns:
        ``(state, y)``: y (B, T, K) float32. State and y are exactly those of `apply_integer` with
        ``requantize(net, params)``, y dequantised.
    """
    low, high = code_bounds(net.input_grid, INPUT_BITS)
    scale = net.input_grid.scale[INPUT_BITS - MIN_BITS]
    code = quantize_input(net, x) + low
    pair = Pair(code, fake_quant(x, code, scale, low, high))
    states = []
    for layer, part, own, (widths, input_bits) in zip(
        net.layers, net.parts, state, split_genome(net.layers, genome), strict=True
    ):
        floats = params[layer.name]
        if isinstance(part, IntegerGRU):
            own, pair = _fake_gru(part, floats, widths, input_bits, own, pair)
        else:
            pair = _fake_dense(part, floats, widths["dense"], input_bits, pair)
        states.append(own)
    return tuple(states), pair.value


def _fake_gru(
    gru: IntegerGRU,
    params: Mapping[str, Any],
    widths: Mapping[str, jax.Array],
    input_bits: jax.Array | int,
    state: jax.Array,
    x: Pair,
) -> tuple[jax.Array, Pair]:
    linears = {
        name: fake_linear(
            gru.linears[name],
            *gate,
            widths[name],
            input_bits if name in INPUT_LINEARS else widths["h"],
            *code_bounds(gru.grids[name], widths[name]),
        )
        for name, gate in split_gates(params).items()
    }
    integer = pick_gru(
        gru, widths, input_bits, {name: fake.linear for name, fake in linears.items()}
    )
    scales = {name: grid.scale[widths[name] - MIN_BITS] for name, grid in gru.grids.items()}
    low, _ = integer.bounds["h"]
    code = state + low
    arithmetic = FakeArithmetic(integer, linears, scales)
    h, hs = run_gru(arithmetic, Pair(code, dequantize(code, scales["h"])), x)
    return h.code - low, hs


def _fake_dense(
    dense: IntegerDense,
    params: Mapping[str, Any],
    bits: jax.Array | int,
    input_bits: jax.Array | int,
    x: Pair,
) -> Pair:
    low, high = code_bounds(dense.linear_grid, bits)
    fake = fake_linear(dense.linear, params["kernel"], params["bias"], bits, input_bits, low, high)
    code = apply_linear(fake.linear, x.code)
    # A ReLU is the clipping at the lower end of its grid.
    scale = dense.linear_grid.scale[bits - MIN_BITS]
    value = fake_quant(fake(x.value), code, scale, low, high)
    if dense.table is None:
        return Pair(code, value)
    code = look_up(dense, bits, code)
    bounds = code_bounds(dense.grid, bits)
    smooth = jax.nn.sigmoid(value)
    return Pair(code, fake_quant(smooth, code, dense.grid.scale[bits - MIN_BITS], *bounds))
