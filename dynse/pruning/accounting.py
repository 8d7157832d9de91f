"""Sizes of a compressed net: as published, as information theory has it, as a file; and its MACs.

    published = sum over clustered tensors of n log2 K + 32 K
              + sum over pruned tensors that are not clustered of 32 n
              + 32 bits for every other parameter                      (n non-zero weights)

Tan and Wang, IEEE/ACM TASLP 29 (2021), count so. It leaves out where the non-zero weights are, so
no file of that size can be loaded again. Besides values it holds

    positions    G H(g / G) + g P H(n / (g P)) bits
                 G groups of P weights, g of them with a non-zero weight, H the binary entropy
    assignments  n log2 n - sum_k n_k log2 n_k bits,  n_k weights in cluster k

where groups, weights and assignments are independent, as likely everywhere in a tensor; a file that
finds out where they are denser is smaller. Weights that were pruned one by one are groups of one:
P = 1 and n = g. The smaller count of the two forms is taken. Both figures are always given.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from dynse.layers.cost import LayerCost

Axes = tuple[int, ...]


class Sizes(NamedTuple):
    """Sizes of one net in bytes.

    Attributes:
        dense: all parameters as they are.
        published: by the papers' accounting.
        entropy: of what the file holds.
        file: on the disk.
    """

    dense: int
    published: float
    entropy: float
    file: int

    @property
    def published_rate(self) -> float:
        """How many times smaller by the papers' accounting."""
        return self.dense / self.published

    @property
    def true_rate(self) -> float:
        """How many times smaller as a file."""
        return self.dense / self.file


def sizes(
    path: str | os.PathLike[str],
    params: Mapping[str, Any],
    groups: Mapping[str, Axes],
    codebooks: Mapping[str, Any],
) -> Sizes:
    """All sizes of a net that was written to `path`.

    Args:
        path: of the packed file.
        params: nested dict of the pruned and clustered net.
        groups: path to the axes within one group, of the tensors that may be pruned.
        codebooks: path to the code book, of the clustered ones.
    """
    dense = sum(np.asarray(tensor).nbytes for tensor in flatten_dict(params).values())
    published = published_bits(params, groups, codebooks) / 8
    return Sizes(dense, published, entropy_bits(params, groups) / 8, os.path.getsize(path))


def pruned_macs(
    layers: Iterable[LayerCost], params: Mapping[str, Any], groups: Mapping[str, Any]
) -> float:
    """MACs per frame with weights that are not zero, every gate open.

    Each weight of a layer counts the same share of the layer's MACs: what a convolution saves at
    its edges, where a weight meets padding, is spread over all (ours). A count, not a clock: what
    is faster is a layer whose units are really removed (`dynse.pruning.shrink`).

    Args:
        layers: of `cost()`.
        params: nested dict.
        groups: its keys are the paths of the tensors that may be pruned.

    Raises:
        ValueError: where a layer with MACs has no such tensor.
    """
    flat = flatten_dict(params, sep="/")
    total = 0.0
    for layer in layers:
        if not layer.macs:
            continue
        tensors = [flat[path] for path in groups if path.startswith(f"{layer.path}/")]
        if not tensors:
            raise ValueError(f"expected a tensor that may be pruned below {layer.path!r}, got none")
        left = sum(np.count_nonzero(tensor) for tensor in tensors)
        total += layer.macs * left / sum(np.size(tensor) for tensor in tensors)
    return total


def published_bits(
    params: Mapping[str, Any], groups: Mapping[str, Any], codebooks: Mapping[str, Any]
) -> float:
    """Bits by the papers' accounting.

    Args:
        params: nested dict.
        groups: its keys are the paths of the tensors that may be pruned.
        codebooks: path to a code book of length K, of the clustered ones.
    """
    total = 0.0
    for path, tensor in flatten_dict(params, sep="/").items():
        if path not in groups:
            total += 32 * np.size(tensor)
            continue
        book = len(codebooks.get(path, ()))
        bits = np.log2(book) if book else 32
        total += np.count_nonzero(tensor) * bits + 32 * book
    return float(total)


def entropy_bits(params: Mapping[str, Any], groups: Mapping[str, Axes]) -> float:
    """Bits of the positions, code books, assignments and plain values of all tensors.

    A tensor counts with a code book of its distinct values where that is smaller than its values.

    Args:
        params: nested dict.
        groups: path to the axes within one group; other tensors have groups of one weight.
    """
    total = 0.0
    for path, tensor in flatten_dict(params, sep="/").items():
        tensor = np.asarray(tensor)
        kept = tensor != 0
        width = 8 * tensor.dtype.itemsize
        _, counts = np.unique(tensor[kept], return_counts=True)
        total += min(position_bits(kept, ()), position_bits(kept, groups.get(path, ())))
        total += min(width * counts.size + frequency_bits(counts), width * counts.sum())
    return float(total)


def position_bits(kept: np.ndarray, axes: Axes) -> float:
    """Entropy of which groups have non-zero weights, and which weights in those are non-zero.

    Args:
        kept: bool, any shape.
        axes: those within one group.
    """
    rows = by_group(kept, axes)
    live = rows.any(1)
    within, nonzero = live.sum() * rows.shape[1], rows.sum()
    return frequency_bits([live.sum(), (~live).sum()]) + frequency_bits([nonzero, within - nonzero])


def frequency_bits(counts: Any) -> float:
    """Entropy in bits of symbols drawn `counts` times each, all together."""
    counts = np.asarray(counts, np.float64)
    counts = counts[counts > 0]
    if not counts.size:
        return 0.0
    return float((counts * (np.log2(counts.sum()) - np.log2(counts))).sum())


def by_group(tensor: np.ndarray, axes: Axes) -> np.ndarray:
    """A tensor as rows, one a group: (groups, weights in a group).

    Args:
        tensor: any shape.
        axes: those within one group; none: each element is its own.

    Raises:
        ValueError: axes that the tensor does not have, or one of them twice.
    """
    legal = range(tensor.ndim)
    if len(set(axes)) < len(axes) or not set(axes) <= set(legal):
        raise ValueError(f"expected distinct axes below {tensor.ndim}, got {tuple(axes)}")
    outer = [axis for axis in legal if axis not in axes]
    inside = int(np.prod([tensor.shape[axis] for axis in axes]))
    groups = int(np.prod([tensor.shape[axis] for axis in outer]))
    return tensor.transpose([*outer, *axes]).reshape(groups, inside)
