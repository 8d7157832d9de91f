"""The algorithm: survival, seeds, bounds, determinism, one program per function."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynse.search.hypervolume import hypervolume
from dynse.search.nsga2 import NSGA2
from dynse.search.operators import PolynomialMutation

LOW, HIGH, POPULATION = (2, 2, 0, -3), (8, 8, 0, 3), 12
ALGORITHM = NSGA2(LOW, HIGH, population=POPULATION)


def objectives_of(genomes, failing=7):
    """Conflicting, with ties; every genome whose sum is a multiple of `failing` fails."""
    genomes = np.asarray(genomes, np.float32)
    values = np.stack([(genomes**2).sum(1) // 3, ((genomes - 6) ** 2).sum(1) // 3], 1)
    return np.where(genomes.sum(1, keepdims=True) % failing == 0, np.nan, values)


def few_best_of(genomes):
    """Distances, weighed without ties, to two places that differ in the first gene alone: a front
    has at most one member for each of its 7 values."""
    genomes = np.asarray(genomes)
    rest = (genomes[:, 1] - 2) + 8 * (genomes[:, 3] + 3)
    return np.stack([64 * np.abs(genomes[:, 0] - at) + rest for at in (3, 7)], 1).astype(np.float32)


def run(algorithm=ALGORITHM, seed=0, generations=8, seeds=None, objectives_of=objectives_of):
    """States and (genomes, objectives) of all generations."""
    state = algorithm.init(jax.random.key(seed), seeds)
    states, told = [state], []
    for _ in range(generations):
        state, genomes = algorithm.ask(state)
        told.append((np.asarray(genomes), objectives_of(genomes)))
        state = algorithm.tell(state, *told[-1])
        states.append(state)
    return states, told


def dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


def check_survival(before, told, after):
    """No survivor is worse than a genome that was given up."""
    known = {
        tuple(genome): row
        for genome, row in itertools.chain(
            zip(np.asarray(before.population).tolist(), np.asarray(before.objectives), strict=True),
            zip(told[0].tolist(), told[1], strict=True),
        )
    }
    alive = {tuple(genome) for genome in np.asarray(after.population).tolist()}
    assert alive <= set(known)
    lost = [known[genome] for genome in set(known) - alive if not np.isnan(known[genome]).any()]
    for genome in alive:
        worse = [
            row for row in lost if np.isnan(known[genome]).any() or dominates(row, known[genome])
        ]
        assert worse == [], (genome, known[genome], worse)
    # As many different ones stay as there are.
    assert len(alive) == min(len(known), len(after.population))


def check_search(states, told, objectives_of=objectives_of):
    for before, rows, after in zip(states, told, states[1:], strict=False):
        check_survival(before, rows, after)
        np.testing.assert_array_equal(after.objectives, objectives_of(after.population))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_survival_is_elitist_and_bounds_hold(seed):
    states, told = run(seed=seed)
    check_search(states, told)
    for genomes, _ in told:
        assert ((genomes >= LOW) & (genomes <= HIGH)).all()
        assert genomes.dtype == np.int32
    assert int(states[-1].generation) == len(told)


def test_hypervolume_never_falls_while_the_front_fits_the_population():
    states, told = run(generations=12, objectives_of=few_best_of)
    check_search(states, told, few_best_of)
    assert all(int((state.rank == 0).sum()) < POPULATION for state in states[1:])
    volumes = [hypervolume(state.objectives, np.array([400.0, 400.0])) for state in states[1:]]
    assert volumes == sorted(volumes)
    assert volumes[-1] > volumes[0]


def test_a_survival_that_is_not_elitist_is_caught():
    states, told = run(generations=2)
    forgetful = states[2]._replace(
        population=jnp.asarray(told[1][0]), objectives=jnp.asarray(told[1][1])
    )
    with pytest.raises(AssertionError):
        check_search([states[1], forgetful], told[1:])


def test_seeds_stand_first_in_the_first_population():
    seeds = np.array([[2, 8, 0, -3], [8, 8, 0, 3], [5, 5, 0, 0]])
    _, told = run(seeds=seeds, generations=1)
    np.testing.assert_array_equal(told[0][0][:3], seeds)
    others = {tuple(row) for row in told[0][0][3:].tolist()}
    assert len(others) > 3


def test_the_first_population_is_uniform_over_the_bounds():
    algorithm = NSGA2(LOW, HIGH, population=3000)
    population = np.asarray(algorithm.init(jax.random.key(4)).population)
    for gene, (low, high) in enumerate(zip(LOW, HIGH, strict=True)):
        counts = np.bincount(population[:, gene] - low, minlength=high - low + 1)
        share = 1 / (high - low + 1)
        assert len(counts) == high - low + 1
        assert np.abs(counts / 3000 - share).max() <= 4 * np.sqrt(share * (1 - share) / 3000)


def test_one_key_one_search_and_another_key_another():
    first, again, other = run(seed=5), run(seed=5), run(seed=6)
    for one, two in zip(first[1], again[1], strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(first[0][-1].population, again[0][-1].population)
    assert (first[1][0][0] != other[1][0][0]).any()
    assert (first[1][-1][0] != other[1][-1][0]).any()


def test_offspring_are_new_while_there_are_new_ones():
    states, told = run(generations=6, algorithm=NSGA2((0,) * 6, (6,) * 6, population=POPULATION))
    for state, (genomes, _) in list(zip(states, told, strict=False))[1:]:
        everyone = np.concatenate([state.population, genomes])
        assert len(np.unique(everyone, axis=0)) == len(everyone)


def test_a_space_smaller_than_the_population():
    """Copies are evaluated, but never push a genome out."""
    algorithm = NSGA2((0, 0), (1, 1), population=8)
    states, told = run(algorithm, generations=6)
    check_search(states, told)
    assert len(np.unique(np.asarray(states[-1].population), axis=0)) == 4


class Traced:
    """A mutation that counts its traces."""

    def __init__(self):
        self.count = 0

    def __call__(self, key, genomes, low, high):
        self.count += 1
        return PolynomialMutation()(key, genomes, low, high)


def test_one_trace_per_function():
    mutation = Traced()
    algorithm = NSGA2(LOW, HIGH, population=POPULATION, mutation=mutation)
    with jax.log_compiles(False):
        run(algorithm)
        size = NSGA2.tell._cache_size()
        run(algorithm, seed=1)
        # An equal algorithm is the same program.
        run(NSGA2(list(LOW), np.array(HIGH), population=POPULATION, mutation=mutation), seed=2)
    assert mutation.count == 1
    assert NSGA2.tell._cache_size() == size


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": (0, 3), "high": (1, 2)}, "gene 1: .* low 3 and high 2"),
        ({"low": (0,), "high": (1, 2)}, "1 and 2"),
        ({"low": (0.5,), "high": (1.5,)}, "one integer per gene"),
        ({"low": (), "high": ()}, "one integer per gene"),
        ({"low": (0,), "high": (2**24,)}, "gene 0"),
        ({"low": (0,), "high": (1,), "population": 1}, "at least 2"),
        ({"low": (0,), "high": (1,), "objectives": 0}, "at least 1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        NSGA2(**settings)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (np.full((1, 4), 9), "seed 0 leaves the bounds"),
        (np.zeros((2, 3), int), r"\(2, 3\)"),
        (np.full((POPULATION + 1, 4), 2), r"\(13, 4\)"),
        (np.full((1, 4), 2.5), "float64"),
    ],
)
def test_seeds_are_checked(seeds, message):
    with pytest.raises(ValueError, match=message):
        ALGORITHM.init(jax.random.key(0), seeds)


def test_what_is_told_is_checked():
    state, genomes = ALGORITHM.ask(ALGORITHM.init(jax.random.key(0)))
    with pytest.raises(ValueError, match=r"objectives of shape \(12, 2\), got \(12, 3\)"):
        ALGORITHM.tell(state, genomes, np.zeros((POPULATION, 3)))
    with pytest.raises(ValueError, match=r"genomes of shape \(12, 4\), got \(11, 4\)"):
        ALGORITHM.tell(state, genomes[1:], np.zeros((POPULATION, 2)))
