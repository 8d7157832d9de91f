import numpy as np
import pytest

from dynse.evaluation.statistics import mean_interval, paired_difference


def test_interval_agrees_with_normal_theory():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    interval = mean_interval(values, resamples=20000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_interval_covers_the_truth_about_95_times_in_100():
    draw = np.random.default_rng(1)
    hits = 0
    for trial in range(300):
        interval = mean_interval(draw.exponential(1.0, 100), resamples=400, seed=trial)
        hits += interval.low <= 1.0 <= interval.high
    assert 0.89 < hits / 300 < 0.985


def test_another_level_is_narrower():
    values = np.random.default_rng(2).normal(size=100)
    wide, narrow = mean_interval(values), mean_interval(values, level=0.5)
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_grouped_interval_is_that_of_the_group_means():
    draw = np.random.default_rng(3)
    shift = np.repeat(draw.normal(0, 1, 40), 10)
    groups = np.repeat(np.arange(40), 10)
    values = shift + draw.normal(0, 0.1, 400)
    clustered = mean_interval(values, groups=list(groups), resamples=20000)
    means = values.reshape(40, 10).mean(1)
    half = 1.96 * means.std() / np.sqrt(40)
    assert clustered.high - clustered.mean == pytest.approx(half, rel=0.1)
    # Negative control: drawn one by one the interval is far too narrow.
    naive = mean_interval(values, resamples=20000)
    assert naive.high - naive.low < 0.5 * (clustered.high - clustered.low)


def test_groups_of_unequal_size_keep_the_mean_of_all_values():
    interval = mean_interval([1.0, 1.0, 1.0, 5.0], groups=["a", "a", "a", "b"])
    assert interval.mean == 2.0
    assert (interval.low, interval.high) == (1.0, 5.0)


def test_pairing_removes_what_both_share():
    draw = np.random.default_rng(4)
    hard = draw.normal(0, 10, 200)
    reference, values = hard + draw.normal(0, 0.1, 200), hard + 0.5 + draw.normal(0, 0.1, 200)
    paired = paired_difference(values, reference)
    assert paired.low > 0.4
    assert paired.high < 0.6
    # Negative control: the means alone could not tell the two apart.
    alone = mean_interval(values)
    assert alone.high - alone.low > 1


def test_nan_is_left_out_and_counted():
    interval = mean_interval([1.0, np.nan, 3.0], groups=["a", "b", "c"])
    assert (interval.mean, interval.count, interval.missing) == (2.0, 2, 1)
    paired = paired_difference([1.0, np.nan, 3.0], [0.0, 1.0, np.nan])
    assert (paired.mean, paired.count, paired.missing) == (1.0, 1, 2)
    assert np.isnan(paired.low)
    nothing = mean_interval([np.nan])
    assert nothing.count == 0
    assert np.isnan(nothing.mean)


def test_same_seed_same_interval():
    values = np.random.default_rng(5).normal(size=50)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values) != mean_interval(values, seed=1)


def test_large_samples_are_resampled_in_parts(monkeypatch):
    values = np.random.default_rng(6).normal(size=200)
    whole = mean_interval(values, resamples=1000)
    monkeypatch.setattr("dynse.evaluation.statistics._CHUNK", 3 * 200)
    parts = mean_interval(values, resamples=1000)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=1e-12)


def test_text():
    assert mean_interval([1.0, 1.0]).text() == "1.00 [1.00, 1.00]"
    assert mean_interval([1.0]).text(1, signed=True) == "+1.0"
    assert mean_interval([np.nan]).text() == "-"


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"expected values \(n,\), got \(2, 2\)"):
        mean_interval(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="expected 2 group keys, got 1"):
        mean_interval([1.0, 2.0], groups=["a"])
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        mean_interval([1.0], level=95)
    with pytest.raises(ValueError, match="expected pairs"):
        paired_difference([1.0], [1.0, 2.0])
