"""Non-dominated sorting and crowding: which of two genomes is better when there are two objectives.

a dominates b where a_m <= b_m in every objective and a_m < b_m in one. The first front (rank 0)
is what nothing dominates, the next what nothing dominates once the first is taken away, and so
on. Within a front the crowding distance of a point is

    sum over m of (next higher value - next lower value) / (range of objective m in the front)

and infinite at the ends of the front (Deb, Pratap, Agarwal, Meyarivan, "A fast and elitist
multiobjective genetic algorithm: NSGA-II", IEEE Trans. Evol. Comput. 6(2), 2002).

The objectives are always minimised. A row with a NaN counts as +inf in every objective: a genome
whose evaluation failed shall not stay because its other objective is small. All but
`pareto_front` are traced, of static shape.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def non_dominated_ranks(objectives: jax.Array) -> jax.Array:
    """Front that each point belongs to, counted from 0.

    Args:
        objectives: (N, M).

    Returns:
        (N,) int32. Equal points share a rank.
    """
    values = _failed_as_worst(objectives)
    lower_or_equal = (values[:, None] <= values[None]).all(-1)
    dominates = lower_or_equal & ~lower_or_equal.T

    def peel(carry):
        ranks, rank = carry
        left = ranks < 0
        dominated = (dominates & left[:, None]).any(0)
        return jnp.where(left & ~dominated, rank, ranks), rank + 1

    start = jnp.full(len(values), -1, jnp.int32), jnp.int32(0)
    return jax.lax.while_loop(lambda carry: (carry[0] < 0).any(), peel, start)[0]


def crowding_distance(objectives: jax.Array, ranks: jax.Array) -> jax.Array:
    """How far apart the neighbours of each point are in its front.

    An objective in which a front is constant adds nothing, not even at the front's ends. Of
    points with the same value, the one with the lower index counts as the lower.

    Args:
        objectives: (N, M).
        ranks: (N,) integers in 0 ... N - 1.

    Returns:
        (N,) float32.
    """
    values, ranks = _failed_as_worst(objectives), jnp.asarray(ranks)
    count = len(values)

    def one_objective(value):
        order = jnp.lexsort((value, ranks))
        ordered, front = value[order], ranks[order]
        starts = jnp.concatenate([jnp.array([True]), front[1:] != front[:-1]])
        end = starts | jnp.roll(starts, -1)
        lowest = jax.ops.segment_min(value, ranks, count)[front]
        highest = jax.ops.segment_max(value, ranks, count)[front]
        gap = jnp.roll(ordered, -1) - jnp.roll(ordered, 1)
        share = jnp.where(end, jnp.inf, gap / (highest - lowest))
        # No range (a constant objective, or only failed points), or an infinite one.
        share = jnp.where((highest > lowest) & ~jnp.isnan(share), share, 0)
        return jnp.zeros(count).at[order].set(share)

    return jax.vmap(one_objective, in_axes=1)(values).sum(0)


def duplicated(genomes: jax.Array) -> jax.Array:
    """Which genomes stand further up already.

    Args:
        genomes: (N, G).

    Returns:
        (N,) bool, false for the first of equal genomes.
    """
    genomes = jnp.asarray(genomes)
    equal = (genomes[:, None] == genomes[None]).all(-1)
    return jnp.tril(equal, -1).any(1)


def pareto_front(genomes: np.ndarray, objectives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What nothing dominates, of all that was evaluated. Runs on the host.

    Args:
        genomes: (N, G).
        objectives: (N, M); rows with a NaN are left out.

    Returns:
        Genomes (K, G), each once, and their objectives (K, M), sorted by the first objective, then
        the second, ...; K is 0 where every evaluation failed.
    """
    genomes, objectives = np.asarray(genomes), np.asarray(objectives)
    if len(genomes) != len(objectives):
        raise ValueError(
            f"expected as many genomes as rows of objectives, got {genomes.shape} and "
            f"{objectives.shape}"
        )
    _, first = np.unique(genomes, axis=0, return_index=True)
    kept = np.sort(first)
    kept = kept[~np.isnan(objectives[kept]).any(1)]
    # In lexicographic order nothing is dominated by what comes after it.
    kept = kept[np.lexsort(objectives[kept].T[::-1])]
    front = np.zeros(len(kept), np.intp)
    values = np.empty((len(kept), objectives.shape[1]), objectives.dtype)
    size = 0
    for index in kept:
        row, found = objectives[index], values[:size]
        if not ((found <= row).all(1) & (found < row).any(1)).any():
            front[size], values[size] = index, row
            size += 1
    return genomes[front[:size]], values[:size].copy()


def _failed_as_worst(objectives: jax.Array) -> jax.Array:
    objectives = jnp.asarray(objectives, jnp.float32)
    return jnp.where(jnp.isnan(objectives).any(-1, keepdims=True), jnp.inf, objectives)
