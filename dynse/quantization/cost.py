"""What a genome costs: bits of its weights, and bit operations of its multiplications.

    weight_bits = sum over linears of weights * width + 32 * biases
    mac_bits    = sum over linears of MACs * weight width * input width
                + sum over products of H * width of one operand * width of the other

Both are traced scalars of the genome, so they are objectives of a search as they stand. The
multipliers, zero points and tables are not counted: they do not grow with the layer.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from dynse.quantization.dense import IntegerDense
from dynse.quantization.genome import split_genome
from dynse.quantization.gru import INPUT_LINEARS, PRODUCTS, IntegerGRU
from dynse.quantization.linear import IntegerLinear
from dynse.quantization.net import IntegerNet

BIAS_BITS = 32


def weight_bits(net: IntegerNet, genome: jax.typing.ArrayLike) -> jax.Array:
    """Bits of all weights and biases, int32 scalar.

    Args:
        net: IntegerNet.
        genome: (G,) int32, may be traced.
    """
    total = jnp.int32(0)
    for linear, bits, _ in _linears(net, genome):
        inputs, outputs = linear.kernel.shape[1:]
        total += inputs * outputs * bits + outputs * BIAS_BITS
    return total


def mac_bits(net: IntegerNet, genome: jax.typing.ArrayLike) -> jax.Array:
    """Bit operations of one frame, int32 scalar.

    Args:
        net: IntegerNet.
        genome: (G,) int32, may be traced.

    Raises:
        ValueError: a net with so many MACs that int32 could overflow (over 33 million a frame).
    """
    total, macs = jnp.int32(0), 0
    for linear, bits, input_bits in _linears(net, genome):
        inputs, outputs = linear.kernel.shape[1:]
        macs += inputs * outputs
        total += inputs * outputs * bits * input_bits
    for part, (widths, _) in _parts(net, genome):
        if isinstance(part, IntegerGRU):
            hidden = part.linears["W_hn"].kernel.shape[-1]
            macs += len(PRODUCTS) * hidden
            total += sum(hidden * widths[a] * widths[b] for a, b in PRODUCTS.values())
    if macs * 8 * 8 >= 2**31:
        raise ValueError(f"expected fewer than {2**25} MACs a frame, got {macs}")
    return total


def _parts(
    net: IntegerNet, genome: jax.typing.ArrayLike
) -> Iterator[tuple[IntegerGRU | IntegerDense, tuple[dict[str, jax.Array], jax.Array | int]]]:
    return zip(net.parts, split_genome(net.layers, genome), strict=True)


def _linears(
    net: IntegerNet, genome: jax.typing.ArrayLike
) -> Iterator[tuple[IntegerLinear, jax.Array, jax.Array | int]]:
    """(IntegerLinear, width of its weights, width of its input) of the whole net."""
    for part, (widths, input_bits) in _parts(net, genome):
        if isinstance(part, IntegerGRU):
            for name, linear in part.linears.items():
                yield linear, widths[name], input_bits if name in INPUT_LINEARS else widths["h"]
        else:
            yield part.linear, widths["dense"], input_bits
