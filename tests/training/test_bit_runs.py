"""What a run of a search chooses with."""

import jax
import numpy as np

from dynse.training.bit_runs import COPIES, noisy_copies, simple_genomes


def test_copies_differ_by_the_noise_on_their_features():
    rows = (np.zeros((50, 7, 3), np.float32), np.full(50, 5), np.arange(50))
    copies = jax.tree.map(np.asarray, noisy_copies(rows, 0.3, seed=0))
    assert len(copies) == COPIES
    features = np.stack([copy[0] for copy in copies])
    np.testing.assert_allclose(features.std(), 0.3, rtol=0.02)
    np.testing.assert_allclose(features.mean(), 0, atol=0.01)
    assert len({copy.tobytes() for copy in features}) == COPIES
    for copy in copies:
        np.testing.assert_array_equal(copy[1], rows[1])
        np.testing.assert_array_equal(copy[2], rows[2])
    again = noisy_copies(rows, 0.3, seed=0)
    np.testing.assert_array_equal(again[3][0], copies[3][0])
    (alone,) = noisy_copies(rows, 0.0, seed=0)
    assert alone is rows


def test_simple_genomes_have_their_widths():
    simple = simple_genomes()
    assert [set(genome) for genome in simple["homogeneous"].tolist()] == [{b} for b in range(2, 9)]
    matrices = simple["matrices only"]
    np.testing.assert_array_equal(matrices[:, :6], simple["homogeneous"][:, :6])
    assert (matrices[:, 6:] == 8).all()
