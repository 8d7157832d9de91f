"""Nets in integers of 2 to 8 bits, each operation at its own width, the widths traced.

`genome` says what can have a width, `calibration` finds the ranges, `net` builds and runs the
integer form, `fake` trains through it, `cost` counts its bits. Below them: `numerics`, `qtensor`,
`tables`, and one module for each of linear, GRU and dense layer.
"""

from dynse.quantization.calibration import calibrate
from dynse.quantization.cost import mac_bits, weight_bits
from dynse.quantization.fake import apply_fake
from dynse.quantization.genome import (
    GRU_OPERATIONS,
    DenseLayer,
    GRULayer,
    gene_names,
    genome_length,
    homogeneous,
)
from dynse.quantization.net import (
    IntegerNet,
    apply_integer,
    build,
    dequantize_output,
    init_state,
    quantize_input,
    requantize,
)
from dynse.quantization.qtensor import QTensor, quantize_weights, weight_scale

__all__ = [
    "GRU_OPERATIONS",
    "DenseLayer",
    "GRULayer",
    "IntegerNet",
    "QTensor",
    "apply_fake",
    "apply_integer",
    "build",
    "calibrate",
    "dequantize_output",
    "gene_names",
    "genome_length",
    "homogeneous",
    "init_state",
    "mac_bits",
    "quantize_input",
    "quantize_weights",
    "requantize",
    "weight_bits",
    "weight_scale",
]
