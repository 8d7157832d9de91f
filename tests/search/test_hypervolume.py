"""Hypervolume against counting the cells of an integer grid, and against inclusion-exclusion."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dynse.search.hypervolume import hypervolume

GRID = 6


def counted(points, reference):
    """Unit cells of the grid that some point dominates."""
    cells = itertools.product(*(range(GRID + 3) for _ in reference))
    return sum(
        any((point <= cell).all() for point in points)
        for cell in (np.array(cell) for cell in cells)
        if (cell < reference).all()
    )


def inclusion_exclusion(points, reference):
    total = 0.0
    for size in range(1, len(points) + 1):
        for subset in itertools.combinations(points, size):
            corner = np.max(subset, axis=0)
            total -= (-1) ** size * np.prod(np.maximum(reference - corner, 0))
    return total


@pytest.mark.parametrize("objectives", [2, 3])
def test_on_a_grid_it_is_the_number_of_dominated_cells(objectives):
    @settings(max_examples=40, deadline=None)
    @given(
        arrays(
            np.int64,
            st.tuples(st.integers(0, 7), st.just(objectives)),
            elements=st.integers(0, GRID + 1),
        ),
        arrays(np.int64, (objectives,), elements=st.integers(1, GRID)),
    )
    def check(points, reference):
        assert hypervolume(points, reference) == counted(points, reference)

    check()


@pytest.mark.parametrize("objectives", [2, 3])
def test_of_real_points_it_is_that_of_inclusion_and_exclusion(objectives):
    draw = np.random.default_rng(objectives)
    for _ in range(10):
        points, reference = draw.normal(size=(8, objectives)), draw.normal(size=objectives) + 1
        expected = inclusion_exclusion(points, reference)
        assert hypervolume(points, reference) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_what_adds_nothing():
    points = np.array([[1.0, 2.0], [1.0, 2.0], [1.5, 2.5], [np.nan, 0.0], [9.0, 0.0], [0.0, 4.0]])
    assert hypervolume(points, np.array([3.0, 4.0])) == 4.0
    assert hypervolume(np.zeros((0, 3)), np.ones(3)) == 0


@pytest.mark.parametrize(
    ("points", "reference", "message"),
    [
        (np.zeros((3, 4)), np.ones(4), r"\(3, 4\)"),
        (np.zeros((3, 1)), np.ones(1), r"\(3, 1\)"),
        (np.zeros((3, 2)), np.ones(3), r"\(3,\)"),
        (np.zeros((3, 2)), np.array([1, np.inf]), "finite"),
    ],
)
def test_refused(points, reference, message):
    with pytest.raises(ValueError, match=message):
        hypervolume(points, reference)
