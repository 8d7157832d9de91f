"""Where the non-zero weights of a tensor are, through an entropy coder.

A tensor is looked at as G groups of P weights. First comes which groups are not all zero, then
which weights in those are not, each flag by a Bernoulli model: the first by the share of such
groups; the others either by one density for all of them, or by each group's own, stored as a byte
c for (c + 1/2) / 256. Groups may be

    single weights           pruned one by one, everywhere alike
    those of the pruning     whole groups are gone
    lines along the last     units that keep more of their weights than others, of the layer's
    axis, or across it       input or of its output

and of all these forms the one with the fewest bits is taken. Where the scales of weights differ
by unit, the last saves up to a tenth; zstandard is smaller than one density, larger than this one
(benchmarks/packed.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from constriction import stream

from dynse.pruning.accounting import Axes, by_group, frequency_bits, position_bits

DENSITY_BITS = 8


class Form(NamedTuple):
    """How positions are coded.

    Attributes:
        axes: those within one group.
        own: each group has its own density.
    """

    axes: Axes
    own: bool


def smallest_form(kept: np.ndarray, axes: Axes) -> Form:
    """The form with the fewest bits.

    Args:
        kept: bool, any shape.
        axes: those within one group of the pruning.
    """
    last = kept.ndim - 1
    lines = [(last,), tuple(range(last))] if kept.ndim > 1 else []
    candidates = dict.fromkeys([(), tuple(axes), *lines])
    forms = [Form(axes, own) for axes in candidates for own in (False, True) if axes or not own]
    return min(forms, key=lambda form: form_bits(kept, form))


def form_bits(kept: np.ndarray, form: Form) -> float:
    """Bits of the positions, own densities included."""
    if not form.own:
        return position_bits(kept, form.axes)
    rows = by_group(kept, form.axes)
    live = rows.any(1)
    ones = rows[live].sum(1)
    density = _density(_density_codes(rows[live]))
    codes = ones * np.log2(density) + (rows.shape[1] - ones) * np.log2(1 - density)
    groups = frequency_bits([live.sum(), (~live).sum()])
    return float(groups + DENSITY_BITS * ones.size - codes.sum())


def encode_positions(encoder: Any, rows: np.ndarray, own: bool) -> np.ndarray:
    """Writes the positions.

    Args:
        encoder: `stream.queue.RangeEncoder`.
        rows: (groups, weights in a group) bool.
        own: each group has its own density.

    Returns:
        (groups not all zero,) uint8 with own densities, else (0,).
    """
    live = rows.any(1)
    _encode(encoder, live)
    inner = rows[live]
    if not own:
        _encode(encoder, inner.ravel())
        return np.zeros(0, np.uint8)
    codes = _density_codes(inner)
    for flags, density in zip(inner, _density(codes), strict=True):
        encoder.encode(flags.astype(np.int32), _bernoulli(density))
    return codes


def decode_positions(
    decoder: Any, shape: tuple[int, int], live: int, nonzeros: int, codes: np.ndarray | None
) -> np.ndarray:
    """Reads the positions.

    Args:
        decoder: `stream.queue.RangeDecoder`.
        shape: groups, and weights in a group.
        live: groups that are not all zero.
        nonzeros: weights that are not zero.
        codes: (live,) uint8 with own densities, else None.

    Returns:
        bool of the shape.

    Raises:
        ValueError: positions of other numbers.
        AssertionError: the decoder's, at a code that no encoder writes.
    """
    rows = np.zeros(shape, bool)
    alive = _decode(decoder, shape[0], live)
    if codes is None:
        inner = _decode(decoder, live * shape[1], nonzeros).reshape(live, shape[1])
    else:
        inner = np.zeros((live, shape[1]), bool)
        for row, density in zip(inner, _density(codes), strict=True):
            row[:] = decoder.decode(_bernoulli(density), shape[1])
    if inner.sum() != nonzeros:
        raise ValueError(f"expected {nonzeros} non-zero weights, got {inner.sum()}")
    rows[alive] = inner
    return rows


def _encode(encoder, flags):
    """By how many are ones; nothing where all are equal."""
    ones = int(flags.sum())
    if 0 < ones < flags.size:
        encoder.encode(flags.astype(np.int32), _bernoulli(ones / flags.size))


def _decode(decoder, size, ones):
    if ones in (0, size):
        return np.full(size, ones > 0)
    flags = decoder.decode(_bernoulli(ones / size), size).astype(bool)
    if flags.sum() != ones:
        raise ValueError(f"expected {ones} positions among {size}, got {flags.sum()}")
    return flags


def _bernoulli(density):
    return stream.model.Bernoulli(float(density), perfect=False)


def _density_codes(rows):
    """(groups,) uint8."""
    levels = rows.sum(1) * 2**DENSITY_BITS // max(rows.shape[1], 1)
    return np.minimum(levels, 2**DENSITY_BITS - 1).astype(np.uint8)


def _density(codes):
    """Exact in binary, so the same on every machine."""
    return (codes + 0.5) / 2**DENSITY_BITS
