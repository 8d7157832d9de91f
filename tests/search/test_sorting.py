"""Ranks, crowding and fronts against their definitions, written out as loops."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dynse.search.sorting import crowding_distance, duplicated, non_dominated_ranks, pareto_front

COUNT = 12
# Few values, so that ties and equal points are the rule.
VALUES = st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.5, -3.0, np.inf, np.nan])
ranks_jit = jax.jit(non_dominated_ranks)
crowding_jit = jax.jit(crowding_distance)


def points(objectives):
    return arrays(np.float32, (COUNT, objectives), elements=VALUES)


def dominates(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(
        x < y for x, y in zip(a, b, strict=True)
    )


def failed_as_worst(objectives):
    return [[np.inf] * len(row) if np.isnan(row).any() else list(row) for row in objectives]


def brute_force_ranks(objectives):
    rows = failed_as_worst(objectives)
    ranks, left, rank = [None] * len(rows), set(range(len(rows))), 0
    while left:
        front = {i for i in left if not any(dominates(rows[j], rows[i]) for j in left)}
        for i in front:
            ranks[i] = rank
        left, rank = left - front, rank + 1
    return ranks


def plain_crowding(objectives, ranks):
    rows = np.array(failed_as_worst(objectives))
    total = np.zeros(len(rows))
    for rank in set(ranks):
        front = [i for i in range(len(rows)) if ranks[i] == rank]
        for m in range(rows.shape[1]):
            order = sorted(front, key=lambda i: (rows[i, m], i))
            lowest, highest = rows[order[0], m], rows[order[-1], m]
            if lowest == highest:
                continue
            total[order[0]] = total[order[-1]] = np.inf
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                if np.isfinite(highest - lowest):
                    total[i] += (rows[after, m] - rows[before, m]) / (highest - lowest)
    return total


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_ranks_are_those_of_the_definition(objectives):
    @settings(max_examples=60, deadline=None)
    @given(points(objectives))
    def check(values):
        assert np.asarray(ranks_jit(values)).tolist() == brute_force_ranks(values)

    check()


@pytest.mark.parametrize("objectives", [2, 3])
def test_crowding_is_that_of_a_plain_loop(objectives):
    @settings(max_examples=60, deadline=None)
    @given(points(objectives))
    def check(values):
        ranks = brute_force_ranks(values)
        found = crowding_jit(values, np.array(ranks))
        np.testing.assert_allclose(found, plain_crowding(values, ranks), rtol=1e-6)

    check()


def test_crowding_by_hand():
    rows = [[0, 4], [1, 2], [4, 0], [2, 2], [5, 5]]
    values = np.array(rows + 7 * [[np.nan, -9]], np.float32)
    ranks = np.array([0, 0, 0, 1, 2] + 7 * [3])
    assert np.asarray(ranks_jit(values)).tolist() == ranks.tolist()
    expected = [np.inf, 1 + 1, np.inf] + 9 * [0]
    np.testing.assert_allclose(crowding_jit(values, ranks), expected)


def test_a_failed_genome_is_worst_even_where_its_other_objective_is_best():
    values = np.array([[np.nan, 0], [1, 1], [np.inf, 0]] + 9 * [[2, 2]], np.float32)
    assert np.asarray(ranks_jit(values)).tolist() == [2, 0, 0] + 9 * [1]


def test_later_copies_are_seen():
    genomes = np.array([[1, 2], [2, 1], [1, 2], [1, 2], [2, 2]])
    assert np.asarray(duplicated(genomes)).tolist() == [False, False, True, True, False]


@settings(max_examples=100, deadline=None)
@given(arrays(np.int32, (COUNT, 2), elements=st.integers(0, 2)), points(2))
def test_the_front_is_what_nothing_dominates(genomes, values):
    # One genome, one result.
    first = {tuple(row): index for index, row in reversed(list(enumerate(genomes.tolist())))}
    values = np.array([values[first[tuple(row)]] for row in genomes.tolist()])
    kept = [index for index in sorted(first.values()) if not np.isnan(values[index]).any()]
    front = [i for i in kept if not any(dominates(values[j], values[i]) for j in kept)]
    found_genomes, found = pareto_front(genomes, values)
    assert {tuple(row) for row in genomes[front]} == {tuple(row) for row in found_genomes}
    assert len(found_genomes) == len(found) == len(front)
    assert found.tolist() == sorted(values[front].tolist())
    for genome, row in zip(found_genomes.tolist(), found, strict=True):
        assert (values[first[tuple(genome)]] == row).all()


def test_a_front_of_genomes_and_objectives_that_do_not_belong_together():
    with pytest.raises(ValueError, match="as many genomes"):
        pareto_front(np.zeros((3, 2)), np.zeros((2, 2)))
