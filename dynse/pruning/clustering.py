"""Clustering of weights: Algorithm 3 of Tan and Wang, IEEE/ACM TASLP 29 (2021).

Each tensor alone gets a code book of K centroids for its non-zero weights, by k-means, and

    K = 1, 2, 4, ...  until  I_K = L(clustered) - L(as it was) < alpha2  or  2K > n

L is the loss on a validation set and n the tensor's number of non-zero weights: our reading, as the
papers call n the number of weights, and the pruned ones are neither clustered nor stored. While a
tensor is tried, the others are as they were, as in the sensitivity analysis; then all are replaced.
That bounds nothing of all together: a tensor whose coarse code book happens to lower the loss takes
it, and with the others' it may not. Ours, `together`: each tensor is tried with the code books of
those before it in place, against the loss with these, so that the whole rise is at most the sum.

k-means starts from centroids spread linearly over [min, max], 1 the mean. Where the papers are
silent: a weight midway goes to the lower centroid; a centroid without weights stays where it is and
may catch some later; Lloyd's steps end when no weight changes its cluster, or after `iterations`.

Weights of one dimension are sorted once. A cluster is then a range of them, found by searching for
the midpoints between centroids, and its mean a difference of two prefix sums: a step costs
K log n, not K n. The sums are taken in float64 on the host and kept as two float32, whose sum has
48 bits; in one float32, a million weights would leave three digits of the mean of a small cluster.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

MAX_CLUSTERS = 4096
ITERATIONS = 300


class SortedWeights(NamedTuple):
    """The non-zero weights of a tensor of N elements, ready for `kmeans`.

    Attributes:
        values: (N,) float32, ascending; +inf from `count` on.
        sums_high, sums_low: (N + 1,) float32; their sum is that of the weights before each place.
        count: () int32, non-zero weights.
    """

    values: jax.Array
    sums_high: jax.Array
    sums_low: jax.Array
    count: jax.Array


class Clustering(NamedTuple):
    """What Algorithm 3 chose.

    Attributes:
        params: with every clustered tensor replaced.
        codebooks: path to (K,) float32, ascending; (0,) for a tensor without non-zero weights. It
            may hold centroids that no weight is assigned to.
        impacts: path to I_K of that tensor: alone, or with those before it.
        loss: of the params as they were.
    """

    params: dict[str, Any]
    codebooks: dict[str, np.ndarray]
    impacts: dict[str, float]
    loss: float


def sort_weights(tensor: Any) -> SortedWeights:
    """Sorts and sums the non-zero weights of a tensor, on the host.

    Args:
        tensor: any shape.

    Raises:
        ValueError: weights, or sums of them, that are not finite in float32, or no non-zero one.
    """
    weights = np.asarray(tensor, np.float32).ravel()
    ordered = np.sort(weights[weights != 0])
    if not ordered.size:
        raise ValueError(f"expected non-zero weights, got none among {weights.size}")
    # Beyond the last weight no sum is looked at: the padding repeats the total.
    sums = np.full(weights.size + 1, ordered.sum(dtype=np.float64))
    sums[: ordered.size + 1] = np.concatenate([[0], np.cumsum(ordered, dtype=np.float64)])
    if not np.abs(sums).max() < np.finfo(np.float32).max:
        raise ValueError("expected finite weights with finite sums, got some that are not")
    values = np.full(weights.size, np.inf, np.float32)
    values[: ordered.size] = ordered
    high = sums.astype(np.float32)
    return SortedWeights(values, high, (sums - high).astype(np.float32), np.int32(ordered.size))


def kmeans(
    weights: SortedWeights,
    clusters: Any,
    *,
    max_clusters: int = MAX_CLUSTERS,
    iterations: int = ITERATIONS,
) -> jax.Array:
    """Centroids of the non-zero weights.

    Args:
        weights: from `sort_weights`.
        clusters: K, from 1 to `max_clusters`; may be traced.
        max_clusters: length of the code book, static.
        iterations: most Lloyd steps, may be traced.

    Returns:
        (max_clusters,) float32, ascending; +inf from K on.
    """
    weights = jax.tree.map(jnp.asarray, weights)
    index = jnp.arange(max_clusters)
    smallest, largest = weights.values[0], weights.values[weights.count - 1]
    share = index / jnp.maximum(clusters - 1, 1)
    # Clipped and sorted, as rounding may overshoot, or swap neighbours, where the range is narrow.
    line = jnp.clip(smallest * (1 - share) + largest * share, smallest, largest)
    start = jnp.sort(jnp.where(index < clusters, line, jnp.inf))

    def unsettled(state):
        _, _, moved, step = state
        return moved & (step < iterations)

    def lloyd(state):
        centroids, before, _, step = state
        inner = jnp.searchsorted(weights.values, _midpoints(centroids), side="right")
        edges = jnp.concatenate(
            [
                jnp.zeros(1, jnp.int32),
                jnp.minimum(inner.astype(jnp.int32), weights.count),
                jnp.full(1, weights.count, jnp.int32),
            ]
        )
        return _means(weights, edges, centroids), edges, (edges != before).any(), step + 1

    nowhere = jnp.full(max_clusters + 1, -1, jnp.int32)
    return jax.lax.while_loop(unsettled, lloyd, (start, nowhere, jnp.array(True), 0))[0]


def assign(tensor: Any, codebook: Any) -> jax.Array:
    """Index of each weight's nearest centroid, the lower one midway; -1 for a weight of 0.

    Args:
        tensor: any shape.
        codebook: (K,) ascending, +inf where unused.

    Returns:
        int32, the tensor's shape.
    """
    nearest = jnp.searchsorted(_midpoints(codebook), tensor, side="left")
    return jnp.where(tensor == 0, -1, nearest.astype(jnp.int32))


def reconstruct(assignments: Any, codebook: Any) -> jax.Array:
    """The centroid of each weight; exactly 0 where the assignment is -1."""
    codebook = jnp.asarray(codebook)
    chosen = codebook[jnp.maximum(assignments, 0)]
    return jnp.where(assignments < 0, jnp.zeros((), codebook.dtype), chosen)


def cluster(
    loss: Callable[[Any], Any],
    params: Mapping[str, Any],
    groups: Mapping[str, Any],
    alpha2: Any,
    *,
    together: bool = False,
    max_clusters: int = MAX_CLUSTERS,
    iterations: int = ITERATIONS,
) -> Clustering:
    """Algorithm 3 on every tensor of `groups`, one jitted program that holds the loss once.

    The program is kept for the next call with the same `loss` and the same tensors.

    Args:
        loss: of params on the validation set, a scalar; must be jit-able.
        params: nested dict of float32 arrays.
        groups: its keys are the paths of the tensors to cluster, names joined by "/".
        alpha2: largest loss in excess, scalar.
        together: try each tensor with the code books of those before it, in the order of `groups`.
        max_clusters: K goes no further, whatever the rule says (ours). Each doubling makes the
            padded code book dearer for every K.
        iterations: most Lloyd steps of a k-means.

    Raises:
        ValueError: a path that params do not have, weights that are not finite, no cluster.
    """
    if max_clusters < 1:
        raise ValueError(f"expected max_clusters of at least 1, got {max_clusters}")
    flat = flatten_dict(params, sep="/")
    unknown = [path for path in groups if path not in flat]
    if unknown:
        raise ValueError(f"expected paths among {sorted(flat)}, got {unknown}")
    paths = tuple(path for path in groups if np.any(flat[path]))
    chosen, books, counts, impacts, before = _sweep(
        params,
        tuple(sort_weights(flat[path]) for path in paths),
        alpha2,
        iterations,
        loss=loss,
        paths=paths,
        together=together,
        max_clusters=max_clusters,
    )
    codebooks = {path: np.zeros(0, np.float32) for path in groups}
    codebooks |= {
        path: np.asarray(book)[:count]
        for path, book, count in zip(paths, books, counts.tolist(), strict=True)
    }
    values = dict(zip(paths, impacts.tolist(), strict=True))
    return Clustering(
        chosen, codebooks, {path: values.get(path, 0.0) for path in groups}, float(before)
    )


class _Search(NamedTuple):
    """Where the sweep stands. Tensor 0 is none: its loss is that of the params as they were."""

    tensor: jax.Array
    clusters: jax.Array
    books: jax.Array  # (tensors + 1, max_clusters), of the largest K tried
    counts: jax.Array  # (tensors + 1,), that K
    losses: jax.Array  # (tensors + 1,), with that K
    tensors: dict[str, jax.Array]  # those that were tried last


@functools.partial(jax.jit, static_argnames=("loss", "paths", "together", "max_clusters"))
def _sweep(params, weights, alpha2, iterations, *, loss, paths, together, max_clusters):
    flat = flatten_dict(params, sep="/")
    originals = {path: flat[path] for path in paths}

    def unchanged(*_):
        return originals, jnp.full(max_clusters, jnp.inf)

    def clustered(path, own, clusters, tensors):
        book = kmeans(own, clusters, max_clusters=max_clusters, iterations=iterations)
        others = tensors if together else originals
        return others | {path: reconstruct(assign(flat[path], book), book)}, book

    branches = [unchanged] + [
        functools.partial(clustered, path, own) for path, own in zip(paths, weights, strict=True)
    ]
    # No weights: nothing to double K for.
    nonzeros = jnp.array([0] + [own.count for own in weights], jnp.int32)

    def try_clusters(search):
        tensor, clusters = search.tensor, search.clusters
        tensors, book = jax.lax.switch(tensor, branches, clusters, search.tensors)
        value = jnp.float32(loss(unflatten_dict(flat | tensors, sep="/")))
        losses = search.losses.at[tensor].set(value)
        enough = value - losses[tensor - 1 if together else 0] < alpha2
        done = enough | (2 * clusters > jnp.minimum(nonzeros[tensor], max_clusters))
        return _Search(
            tensor + done,
            jnp.where(done, 1, 2 * clusters),
            search.books.at[tensor].set(book),
            search.counts.at[tensor].set(clusters),
            losses,
            tensors,
        )

    rows = len(branches)
    start = _Search(
        jnp.int32(0),
        jnp.int32(1),
        jnp.zeros((rows, max_clusters)),
        jnp.zeros(rows, jnp.int32),
        jnp.zeros(rows),
        originals,
    )
    end = jax.lax.while_loop(lambda search: search.tensor < rows, try_clusters, start)
    chosen = {
        path: reconstruct(assign(flat[path], book), book)
        for path, book in zip(paths, end.books[1:], strict=True)
    }
    impacts = end.losses[1:] - (end.losses[:-1] if together else end.losses[0])
    params = unflatten_dict(flat | chosen, sep="/")
    return params, end.books[1:], end.counts[1:], impacts, end.losses[0]


def _midpoints(codebook):
    """(K - 1,); halves are added so that the sum of two large centroids stays finite."""
    codebook = jnp.asarray(codebook)
    return 0.5 * codebook[:-1] + 0.5 * codebook[1:]


def _means(weights, edges, centroids):
    """Mean of the weights between neighbouring edges, the old centroid where there are none."""
    first, after = edges[:-1], edges[1:]
    counts = after - first
    totals = (weights.sums_high[after] - weights.sums_high[first]) + (
        weights.sums_low[after] - weights.sums_low[first]
    )
    # A mean lies within its weights: held there, rounding never brings centroids out of order.
    means = jnp.clip(
        totals / jnp.maximum(counts, 1),
        weights.values[jnp.minimum(first, weights.count - 1)],
        weights.values[jnp.maximum(after, 1) - 1],
    )
    return jnp.where(counts > 0, means, centroids)
