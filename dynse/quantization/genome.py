"""Which layers a net has, which operations they do, and the genome that gives each its width.

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)         z likewise
    n = tanh(W_in x + b_in + r * (W_hn h + b_hn))
    h' = (1 - z) n + z h

This GRU (reset after the matmul, as PyTorch and cuDNN do) has 17 operations, each with a width
of its own (Miccini et al., arXiv 2402.12263). A genome is the widths of all operations of all
layers in order, int32 (G,), 2 to 8 bits, traced: one compiled program runs every genome. A
linear's gene is the width of its weights and of its output; the gene of a layer's last operation
is the width at which the next layer takes its input; the first input has 8 bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dynse.quantization.numerics import MAX_BITS, MIN_BITS

INPUT_BITS = 8

GRU_OPERATIONS = (
    "W_ir",
    "W_iz",
    "W_in",
    "W_hr",
    "W_hz",
    "W_hn",
    "r_pre",
    "z_pre",
    "n_pre",
    "r",
    "z",
    "n",
    "r*hn",
    "(1-z)*n",
    "z*h",
    "1-z",
    "h",
)
ACTIVATIONS = ("none", "relu", "sigmoid")


@dataclasses.dataclass(frozen=True)
class GRULayer:
    """A GRU; its parameters in the gate order r, z, n.

    ``params[name]`` holds "input_kernel" (D, 3H), "hidden_kernel" (H, 3H), "input_bias" (3H,)
    and "hidden_bias" (3H,).
    """

    name: str


@dataclasses.dataclass(frozen=True)
class DenseLayer:
    """y = activation(x W + b); ``params[name]`` holds "kernel" (D, K) and "bias" (K,)."""

    name: str
    activation: str = "none"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"expected one of {ACTIVATIONS}, got {self.activation!r}")


def operation_names(layer: GRULayer | DenseLayer) -> tuple[str, ...]:
    """Names of a layer's genes, within the layer."""
    return GRU_OPERATIONS if isinstance(layer, GRULayer) else ("dense",)


def genome_length(layers: Sequence[GRULayer | DenseLayer]) -> int:
    """Number of genes G of a net."""
    return sum(len(operation_names(layer)) for layer in layers)


def gene_names(layers: Sequence[GRULayer | DenseLayer]) -> tuple[str, ...]:
    """Name of each gene: "gru1/W_ir" ... "gru1/h" of a GRU, the layer's own of a dense layer."""
    return tuple(
        f"{layer.name}/{operation}" if isinstance(layer, GRULayer) else layer.name
        for layer in layers
        for operation in operation_names(layer)
    )


def homogeneous(layers: Sequence[GRULayer | DenseLayer], bits: int) -> jax.Array:
    """The genome in which every gene is `bits`.

    Raises:
        ValueError: the width is not 2 to 8.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"expected {MIN_BITS} to {MAX_BITS} bits, got {bits}")
    return jnp.full(genome_length(layers), bits, jnp.int32)


def split_genome(
    layers: Sequence[GRULayer | DenseLayer], genome: jax.typing.ArrayLike
) -> list[tuple[dict[str, jax.Array], jax.Array | int]]:
    """The genes of each layer and the width at which its input comes.

    Args:
        layers: tuple of layers.
        genome: int32 (G,), may be traced.

    Returns:
        For each layer ``(widths, input_bits)``: a dict from operation to width, and a width.

    Raises:
        ValueError: the genome is not of this net's length.
    """
    if genome.shape != (genome_length(layers),):
        raise ValueError(f"expected {genome_length(layers)} genes, got shape {genome.shape}")
    parts, start, input_bits = [], 0, INPUT_BITS
    for layer in layers:
        names = operation_names(layer)
        widths = {name: genome[start + place] for place, name in enumerate(names)}
        parts.append((widths, input_bits))
        start, input_bits = start + len(names), widths[names[-1]]
    return parts
