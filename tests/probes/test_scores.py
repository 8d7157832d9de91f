import numpy as np
import pytest

from dynse.probes.scores import (
    grouped_folds,
    median_error_cents,
    wilson_interval,
)


def test_cents_by_hand():
    truth = np.array([100.0, 100.0, 200.0, 300.0, 110.0])
    found = np.array([200.0, 50.0, 200.0, 300 * 2 ** (1 / 12), -5.0])
    # 1200, 1200, 0, 100 and infinitely many.
    assert median_error_cents(found, truth) == pytest.approx(1200)
    assert median_error_cents(found[2:4], truth[2:4]) == pytest.approx(50)
    assert median_error_cents(found[4:], truth[4:]) == np.inf


def test_wilson_by_hand():
    """The interval's ends are the p for which |k / n - p| is 1.96 standard errors of p."""
    z = 1.959964
    for k, n in ((35, 42), (1, 10), (5, 10)):
        interval = wilson_interval(k, n)
        assert interval.mean == k / n
        for end in (interval.low, interval.high):
            assert abs(k / n - end) == pytest.approx(z * np.sqrt(end * (1 - end) / n), rel=1e-6)
    published = wilson_interval(35, 42)
    assert (round(published.low, 2), round(published.high, 2)) == (0.69, 0.92)
    assert wilson_interval(0, 9).low == 0
    assert wilson_interval(0, 9).high == pytest.approx(z**2 / (9 + z**2), rel=1e-6)
    assert wilson_interval(9, 9).high == 1


def test_folds_share_no_group_and_are_stratified():
    groups = np.repeat(np.arange(30), 4)
    labels = (np.repeat(np.arange(30), 4) % 3).astype(str)
    names = [f"recording {group}" for group in groups]
    folds = grouped_folds(names, labels)
    assert len(folds) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), range(120))
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), range(120))
        _, counts = np.unique(labels[test], return_counts=True)
        np.testing.assert_array_equal(counts, [8, 8, 8])
    again = grouped_folds(names, labels)
    other = grouped_folds(names, labels, seed=1)
    assert all((a[1] == b[1]).all() for a, b in zip(folds, again, strict=True))
    assert not all((a[1] == b[1]).all() for a, b in zip(folds, other, strict=True))
    assert len(grouped_folds(groups, folds=2)) == 2


def test_what_cannot_be_scored_is_named():
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2,\)"):
        median_error_cents(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="expected 0 to 4 successes"):
        wilson_interval(5, 4)
    with pytest.raises(ValueError, match="at least 5 groups, got 2"):
        grouped_folds([0, 0, 1, 1])
    with pytest.raises(ValueError, match="expected 4 labels, one a row, got 1"):
        grouped_folds([0, 0, 1, 1], [1], folds=2)
