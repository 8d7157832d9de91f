import numpy as np
import pytest
from probes.planted import correlated_bits

from dynse.probes import (
    channel_counts,
    enough,
    fit_logistic,
    fit_ridge,
    make_probe,
    order_for_classes,
    order_for_targets,
    outputs,
    predict,
    selection_path,
)
from dynse.probes.intervals import score_value
from dynse.probes.selection import PathPoint

PLANTED = [4, 17, 29]


def planted():
    bits = np.random.default_rng(0).random((800, 40)) < 0.4
    bits[:, 11] = True
    effects = np.array([4.0, -2.0, 1.0])
    return bits, bits[:, PLANTED] @ effects


def brute_force_order(features, targets, penalty):
    """Each step solves the ridge problem of every candidate set and takes the best."""
    z = (features - features.mean(0)) / features.std(0)
    y = (targets - targets.mean(0)) / targets.std(0)
    chosen = []
    while len(chosen) < features.shape[1]:
        gains = np.full(features.shape[1], -np.inf)
        for candidate in set(range(features.shape[1])) - set(chosen):
            some = z[:, [*chosen, candidate]]
            gram = some.T @ some / len(z) + penalty * np.eye(some.shape[1])
            cross = some.T @ y / len(z)
            gains[candidate] = (cross * np.linalg.solve(gram, cross)).sum()
        chosen.append(int(gains.argmax()))
    return chosen


def test_order_against_solving_every_candidate_set():
    bits, hidden = correlated_bits(300, 9)
    targets = hidden[:, :2] * [1, 100]
    order = order_for_targets(bits, targets, penalty=0.01)
    np.testing.assert_array_equal(order, brute_force_order(bits, targets, 0.01))


def test_planted_channels_come_first():
    bits, targets = planted()
    order = order_for_targets(bits, targets)
    assert list(order[:3]) == PLANTED
    assert set(order) == set(range(40)) - {11}
    labels = np.digitize(targets, [-1, 0.5, 3])
    for balanced in (False, True):
        assert set(order_for_classes(bits, labels, balanced=balanced)[:3]) == set(PLANTED)


def test_repeated_channels_are_not_taken_twice():
    """Where each of two causes stands in five channels, the largest weights of a full fit would
    take one cause over and over."""
    draw = np.random.default_rng(1)
    causes = draw.random((1000, 2)) < 0.5
    bits = np.concatenate([np.repeat(causes, 5, axis=1), draw.random((1000, 10)) < 0.5], axis=1)
    bits ^= draw.random(bits.shape) < 0.02
    targets = causes @ [2.0, 1.0]
    assert {channel // 5 for channel in order_for_targets(bits, targets)[:2]} == {0, 1}
    full = fit_ridge(bits, targets)
    by_weight = np.argsort(-np.abs(full.weights[:, 0]) * bits.std(0))[:2]
    assert {channel // 5 for channel in by_weight} == {0}


def test_path_rises_until_the_planted_channels_are_in():
    bits, targets = planted()
    train, test = slice(0, 500), slice(500, 800)
    noisy = targets + np.random.default_rng(2).normal(size=800)
    path = selection_path(
        lambda channels: fit_ridge(bits[train], noisy[train], channels=channels),
        lambda probe: score_value("R2", np.asarray(outputs(probe, bits[test]))[:, 0], noisy[test]),
        order_for_targets(bits[train], noisy[train]),
        channel_counts(39),
    )
    assert [point.count for point in path] == [1, 2, 4, 8, 16, 32, 39]
    assert [len(point.probe.channels) for point in path] == [1, 2, 4, 8, 16, 32, 39]
    scores = [point.score for point in path]
    assert scores[0] < scores[1] - 0.05 < scores[2] - 0.07
    assert np.ptp(scores[2:]) < 0.05
    assert enough(path, trivial=0).count == 4
    assert set(PLANTED) <= set(np.asarray(path[2].probe.channels))


def test_path_of_classes():
    bits, targets = planted()
    labels = targets > 1.5
    path = selection_path(
        lambda channels: fit_logistic(bits, labels, channels=channels),
        lambda probe: score_value("balanced accuracy", predict(probe, bits), labels),
        order_for_classes(bits, labels),
        [1, 39],
    )
    assert 0.9 < path[0].score <= path[1].score


def test_enough_counts_what_is_gained_over_the_trivial_predictor():
    probe = make_probe([0], [[1.0]], [0.0], kind="ridge")
    path = [PathPoint(c, s, probe) for c, s in ((1, 0.7), (2, 0.895), (4, 0.92), (8, 0.9))]
    assert enough(path, trivial=0.0).count == 2
    assert enough(path, trivial=0.6).count == 4
    assert enough(path, trivial=0.6, share=0.3).count == 1
    assert enough(path, trivial=0.95).count == 4


@pytest.mark.parametrize(
    ("total", "counts"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_counts_double_and_end_with_all(total, counts):
    assert channel_counts(total) == counts


def test_no_channel_is_named():
    with pytest.raises(ValueError, match="at least one channel, got 0"):
        channel_counts(0)
