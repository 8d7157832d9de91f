"""Crossover, mutation and tournaments: what they may change, and how often."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynse.search.operators import PolynomialMutation, TwoPointCrossover, tournament

PAIRS, GENES = 2000, 7


def crossed(probability=1.0, seed=0, genes=GENES):
    first = jnp.arange(PAIRS * genes).reshape(PAIRS, genes)
    return [
        np.asarray(array)
        for array in (
            first,
            -first - 1,
            *jax.jit(TwoPointCrossover(probability))(jax.random.key(seed), first, -first - 1),
        )
    ]


def is_segment(flags):
    return int((np.diff(np.concatenate([[False], flags, [False]])) != 0).sum()) <= 2


def test_crossover_exchanges_one_contiguous_segment():
    first, second, child, other = crossed()
    exchanged = child != first
    np.testing.assert_array_equal(np.where(exchanged, second, first), child)
    np.testing.assert_array_equal(np.where(exchanged, first, second), other)
    assert all(is_segment(row) for row in exchanged)
    assert {int(row.sum()) for row in exchanged} == set(range(1, GENES))


def test_two_segments_would_be_seen():
    assert is_segment(np.array([True, True, False, False]))
    assert not is_segment(np.array([True, False, True, False]))


def test_each_pair_of_neighbours_is_parted_equally_often():
    """On the ring, which of the two children is called first makes no difference."""
    first, _, child, _ = crossed()
    exchanged = child != first
    parted = (exchanged != np.roll(exchanged, 1, axis=1)).mean(0)
    # Two of seven places; four standard deviations.
    assert np.abs(parted - 2 / GENES).max() < 4 * np.sqrt(2 / 7 * 5 / 7 / PAIRS)


def test_crossover_probability():
    first, _, child, _ = crossed(probability=0.3, seed=1)
    share = (child != first).any(1).mean()
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / PAIRS)
    first, _, child, _ = crossed(genes=1)
    np.testing.assert_array_equal(first, child)


def reference_step(u, room, span, eta):
    """The step before it is rounded, as in the equation, float64."""
    inner = u + (1 - u) * (1 - room / span) ** (eta + 1)
    return span * (1 - inner ** (1 / (eta + 1)))


@pytest.mark.parametrize(("high", "value", "eta"), [(8, 4, 20.0), (8, 2, 20.0), (1000, 300, 5.0)])
def test_steps_are_distributed_as_the_equation_says(high, value, eta):
    count, low = 40_000, 2
    genomes = jnp.full((count, 1), value)
    mutation = PolynomialMutation(rate=1.0, eta=eta)
    low_, high_ = jnp.array([low]), jnp.array([high])
    moved = np.asarray(mutation(jax.random.key(3), genomes, low_, high_))[:, 0] - value
    assert (moved != 0).all()
    if value == low:
        assert (moved > 0).all()
    else:
        assert abs((moved > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(count)
    u = (np.arange(200_000) + 0.5) / 200_000
    for sign, room in ((1, high - value), (-1, value - low)):
        steps = moved[moved * sign > 0] * sign
        if len(steps):
            expected = np.ceil(reference_step(u, room, high - low, eta))
            for limit in np.unique(np.quantile(expected, [0.2, 0.5, 0.8, 0.95])):
                share = (expected <= limit).mean()
                assert abs((steps <= limit).mean() - share) < 4 * 0.5 / np.sqrt(len(steps))


def test_rounding_to_the_nearest_would_leave_most_genes_of_seven_levels():
    """Why steps are rounded up."""
    u = (np.arange(10_000) + 0.5) / 10_000
    assert (np.round(reference_step(u, 3, 6, 20.0)) == 0).mean() > 0.8


BOUNDS = st.tuples(st.integers(-50, 50), st.one_of(st.integers(0, 8), st.integers(0, 2**24 - 60)))
mutate = jax.jit(PolynomialMutation(rate=0.5))


@settings(max_examples=100, deadline=None)
@given(st.lists(BOUNDS, min_size=4, max_size=4), st.integers(0, 2**31 - 1))
def test_mutation_never_leaves_the_bounds(bounds, seed):
    low = np.array([lowest for lowest, _ in bounds], np.int32)
    high = np.array([lowest + width for lowest, width in bounds], np.int32)
    draw = np.random.default_rng(seed)
    genomes = draw.integers(low, high + 1, (64, 4)).astype(np.int32)
    genomes[0], genomes[1] = low, high
    # A step from here is rounded up to beyond the bound where the range is wide.
    genomes[2:20], genomes[20:40] = np.minimum(low + 3, high), np.maximum(high - 3, low)
    mutants = np.asarray(mutate(jax.random.key(seed), genomes, low, high))
    assert ((mutants >= low) & (mutants <= high)).all()


@pytest.mark.parametrize(("rate", "expected"), [(None, 1 / GENES), (0.2, 0.2), (0.0, 0.0)])
def test_mutation_rate(rate, expected):
    genomes = jnp.full((5000, GENES), 5)
    low, high = jnp.full(GENES, 2), jnp.full(GENES, 8)
    moved = PolynomialMutation(rate)(jax.random.key(0), genomes, low, high) != genomes
    deviation = np.sqrt(expected * (1 - expected) / 5000)
    np.testing.assert_array_less(np.abs(moved.mean(0) - expected), 4.5 * deviation + 1e-9)


def test_tournaments_are_won_by_rank_then_by_crowding():
    ranks = np.array([2, 0, 1, 0, 1, 2, 3])
    crowding = np.array([9.0, 1.0, np.inf, 3.0, 2.0, 9.0, np.inf])
    winners = np.asarray(tournament(jax.random.key(0), ranks, crowding, 400))
    assert winners.shape == (1400,)
    wins = np.bincount(winners, minlength=7)
    better = [
        sum((ranks[i], -crowding[i]) < (ranks[j], -crowding[j]) for j in range(7)) for i in range(7)
    ]
    for i, j in itertools.permutations(range(7), 2):
        if better[i] > better[j]:
            assert wins[i] > wins[j]
    # Everybody stands in 400 of them: the best always wins, but against itself only once.
    assert wins[6] < 30
    assert 370 <= wins[3] <= 400


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_probabilities_are_checked(probability):
    with pytest.raises(ValueError, match=str(probability)):
        TwoPointCrossover(probability)
    with pytest.raises(ValueError, match=str(probability)):
        PolynomialMutation(probability)
    with pytest.raises(ValueError, match="eta"):
        PolynomialMutation(eta=-1.0)
