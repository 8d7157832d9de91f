"""Scores with intervals: the scores themselves, and a bootstrap by hand with the same draws."""

import numpy as np
import pytest

from dynse.probes.intervals import SCORES, score_interval, score_value

metrics = pytest.importorskip("sklearn.metrics")
# scikit-learn's, which take the labels first.
POINTS = {
    "accuracy": lambda found, true: metrics.accuracy_score(true, found),
    "balanced accuracy": lambda found, true: metrics.balanced_accuracy_score(true, found),
    "F1": lambda found, true: metrics.f1_score(true, found),
    "R2": lambda found, true: metrics.r2_score(true, found),
    "mean error": lambda found, true: metrics.mean_absolute_error(true, found),
}
GROUPS = [f"recording {number}" for number in np.repeat(np.arange(9), [3, 9, 4, 1, 7, 5, 6, 2, 8])]


def made(score, seed=0):
    """Predictions and labels of 45 rows in 9 groups: classes, or numbers far from 0."""
    draw = np.random.default_rng(seed)
    if score in ("accuracy", "balanced accuracy"):
        labels = draw.integers(0, 3, 45)
        return np.where(draw.random(45) < 0.6, labels, draw.integers(0, 3, 45)), labels
    if score == "F1":
        labels = draw.random(45) < 0.5
        return labels ^ (draw.random(45) < 0.3), labels
    labels = 1000 + draw.normal(size=45)
    return labels + 0.7 * draw.normal(size=45), labels


def by_hand(score, predictions, labels, groups, resamples, seed):
    """Rows of the drawn groups laid end to end, and the score of those."""
    names = sorted(set(groups))
    rows = [np.flatnonzero(np.array(groups) == name) for name in names]
    chance = np.full(len(names), 1 / len(names))
    values = []
    for counts in np.random.default_rng(seed).multinomial(len(names), chance, resamples):
        drawn = np.concatenate([np.tile(r, c) for r, c in zip(rows, counts, strict=True)])
        values.append(POINTS[score](predictions[drawn], labels[drawn]))
    return np.quantile(values, [0.025, 0.975])


def test_every_score_is_compared():
    assert set(SCORES) == set(POINTS)


@pytest.mark.parametrize("score", POINTS)
def test_each_score_and_its_bootstrap_by_hand(score):
    predictions, labels = made(score)
    found = score_interval(score, predictions, labels, GROUPS, resamples=200, seed=5)
    point = POINTS[score](predictions, labels)
    assert found.mean == pytest.approx(point, rel=1e-9)
    assert score_value(score, predictions, labels) == pytest.approx(point, rel=1e-9)
    expected = by_hand(score, predictions, labels, GROUPS, 200, 5)
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-6)
    assert found.low < found.mean < found.high
    assert (found.count, found.missing) == (45, 0)
    # Negative control: other draws are seen.
    other = score_interval(score, predictions, labels, GROUPS, resamples=200, seed=6)
    assert (other.low, other.high) != (found.low, found.high)


def test_bool_and_the_order_of_the_rows():
    draw = np.random.default_rng(1)
    labels, predictions = draw.random((2, 45)) < [[0.3], [0.5]]
    found = score_interval("balanced accuracy", predictions, labels, GROUPS)
    order = draw.permutation(45)
    shuffled = [GROUPS[row] for row in order]
    again = score_interval("balanced accuracy", predictions[order], labels[order], shuffled)
    assert again.low == pytest.approx(found.low, rel=1e-12)
    assert found.mean == pytest.approx(POINTS["balanced accuracy"](predictions, labels))


def test_errors_that_come_together_widen_the_interval():
    labels = np.zeros(200, int)
    groups = np.repeat(np.arange(20), 10)
    together = np.where(groups < 5, 1, 0)
    spread = np.where(np.arange(200) % 4 == 0, 1, 0)
    assert together.sum() == spread.sum()
    wide = score_interval("accuracy", together, labels, groups)
    narrow = score_interval("accuracy", spread, labels, groups)
    assert wide.mean == narrow.mean == 0.75
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_a_class_missing_from_a_draw_is_left_out_of_its_mean():
    """Two groups with one class each, one all right, the other all wrong: draws are 0, 1/2, 1."""
    labels, predictions = np.repeat([0, 1], 5), np.zeros(10, int)
    found = score_interval("balanced accuracy", predictions, labels, labels)
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_a_draw_of_one_target_has_no_r2():
    """Two groups of a constant target each: only draws of both say something."""
    labels = np.repeat([0.1, 0.7], 5)
    found = score_interval("R2", labels + 0.1, labels, labels)
    assert found.mean == pytest.approx(1 - 0.01 / 0.09)
    assert found.low == pytest.approx(found.mean)
    assert found.high == pytest.approx(found.mean)


def test_one_group_has_no_interval():
    found = score_interval("accuracy", np.ones(3), np.ones(3), ["a"] * 3)
    assert found.mean == 1
    assert np.isnan([found.low, found.high]).all()


def test_what_cannot_be_scored_is_named():
    with pytest.raises(
        ValueError, match="accuracy, balanced accuracy, F1, R2, mean error; got 'F2'"
    ):
        score_interval("F2", np.ones(2), np.ones(2), "ab")
    with pytest.raises(ValueError, match=r"labels \(N,\), got \(3,\) and \(2,\)"):
        score_interval("R2", np.ones(3), np.ones(2), "ab")
    with pytest.raises(ValueError, match=r"got \(2, 1\) and \(2, 1\)"):
        score_value("R2", np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"got \(0,\) and \(0,\)"):
        score_value("accuracy", np.ones(0), np.ones(0))
    with pytest.raises(ValueError, match="a group for each of 2 rows, got 3"):
        score_interval("accuracy", np.ones(2), np.ones(2), "abc")
    with pytest.raises(ValueError, match="targets that differ, got constant ones"):
        score_interval("R2", np.arange(3.0), np.ones(3), "abc")


def test_scores_of_nothing_heard_and_of_the_mean():
    assert score_value("F1", np.zeros(3, bool), np.array([True, False, True])) == 0
    targets = np.random.default_rng(0).normal(size=100)
    mean = np.full(100, targets.mean())
    assert score_value("R2", mean, targets) == pytest.approx(0, abs=1e-12)
