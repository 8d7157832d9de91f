"""Look-up tables of sigmoid and tanh from one integer grid to another.

    table[q] = clip(round(f(S_in (q - Z_in)) / S_out) + Z_out),    q = 0 ... 2^b_in - 1

f is evaluated in float64 on the host: the table is as good as the output grid allows.
"""

from __future__ import annotations

import numpy as np

from dynse.quantization.numerics import WIDTHS, round_half_away


def build_tables(
    function: str, argument: tuple[np.ndarray, np.ndarray], value: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Tables of sigmoid or tanh between two grids at all widths, (W, W, 256) uint8.

    Args:
        function: "sigmoid" or "tanh".
        argument, value: scales (W,) and zero points (W,) of the grids.
    """
    tables = np.zeros((len(WIDTHS), len(WIDTHS), 256), np.uint8)
    for i, bits in enumerate(WIDTHS):
        real = argument[0][i] * (np.arange(2**bits) - argument[1][i])
        # sigmoid(x) = (1 + tanh(x / 2)) / 2: nothing overflows.
        y = np.tanh(real) if function == "tanh" else (1 + np.tanh(real / 2)) / 2
        for o, out_bits in enumerate(WIDTHS):
            codes = round_half_away(y / value[0][o]) + value[1][o]
            tables[i, o, : 2**bits] = np.clip(codes, 0, 2**out_bits - 1)
    return tables
