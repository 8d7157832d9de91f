import numpy as np
import pytest
from probes.planted import correlated_bits

from dynse.probes import choose_threshold, decide, fit_logistic, make_probe, outputs, predict

BITS, HIDDEN = correlated_bits(600, 10)
NOISY = HIDDEN[:, 0] + 0.5 * np.random.default_rng(5).normal(size=600)
TWO = NOISY > 0.6
THREE = np.digitize(NOISY, [-1, 0.2])


def reference(labels, penalty, weights=None):
    """scikit-learn's model of the standardised features, and its logits."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    weights = np.full(len(labels), 1 / len(labels)) if weights is None else weights
    mean = weights @ BITS
    z = (BITS - mean) / np.sqrt(weights @ np.square(BITS - mean))
    model = linear_model.LogisticRegression(C=1 / (penalty * len(labels)), tol=1e-8, max_iter=5000)
    model.fit(z, labels, sample_weight=weights * len(labels))
    return model.decision_function(z)


@pytest.mark.parametrize("penalty", [1e-3, 0.1])
def test_two_classes_against_scikit_learn(penalty):
    probe = fit_logistic(BITS, TWO, penalty=penalty, tolerance=1e-5)
    logits = np.asarray(outputs(probe, BITS))
    assert logits.shape == (600, 1)
    np.testing.assert_allclose(logits[:, 0], reference(TWO, penalty), atol=2e-3)
    np.testing.assert_array_equal(predict(probe, BITS), logits[:, 0] > 0)


@pytest.mark.parametrize("penalty", [1e-3, 0.1])
def test_three_classes_against_scikit_learn(penalty):
    probe = fit_logistic(BITS, THREE, penalty=penalty, tolerance=1e-5)
    logits = np.asarray(outputs(probe, BITS))
    expected = reference(THREE, penalty)
    np.testing.assert_allclose(
        logits - logits.mean(1, keepdims=True),
        expected - expected.mean(1, keepdims=True),
        atol=2e-3,
    )
    np.testing.assert_array_equal(predict(probe, BITS), logits.argmax(1))


def test_balanced_classes_against_scikit_learn():
    weights = np.where(TWO, 0.5 / TWO.sum(), 0.5 / (~TWO).sum())
    probe = fit_logistic(BITS, TWO, balanced=True, tolerance=1e-5)
    logits = np.asarray(outputs(probe, BITS))[:, 0]
    np.testing.assert_allclose(logits, reference(TWO, 1e-3, weights), atol=2e-3)
    plain = np.asarray(outputs(fit_logistic(BITS, TWO), BITS))[:, 0]
    assert (logits > 0).mean() > (plain > 0).mean() + 0.05


def test_separable_rows_and_constant_channels_stay_finite():
    features = np.column_stack([BITS, TWO, np.ones(600), np.zeros(600)]).astype(bool)
    probe = fit_logistic(features, TWO, penalty=1e-4, channels=np.arange(13))
    assert np.isfinite(probe.weights).all()
    assert not np.asarray(probe.weights[11:]).any()
    assert (np.asarray(predict(probe, features)) == TWO).all()


def test_fewer_rows_than_channels():
    features = np.random.default_rng(0).random((30, 200)) < 0.5
    labels = np.arange(30) % 3
    assert (np.asarray(predict(fit_logistic(features, labels), features)) == labels).all()


def test_it_says_when_it_did_not_converge():
    with pytest.warns(UserWarning, match=r"10 channels did not converge.* after 2 iterations"):
        fit_logistic(BITS, TWO, max_iterations=2)


def test_random_labels_are_chance_and_the_frame_must_be_the_right_one():
    """Negative controls, on frames that were not fitted: labels that follow the frame exactly
    are read from it, from the frame after it worse, and random ones not at all."""
    draw = np.random.default_rng(3)
    bits = draw.random((3000, 10)) < 0.5
    labels = bits[:, 2] ^ (draw.random(3000) < 0.05)
    train, test = slice(0, 2000), slice(2000, 3000)

    def share_right(features, labels):
        probe = fit_logistic(features[train], labels[train])
        return (np.asarray(predict(probe, features[test])) == labels[test]).mean()

    assert share_right(bits, labels) > 0.92
    assert abs(share_right(np.roll(bits, 1, axis=0), labels) - 0.5) < 0.06
    assert abs(share_right(bits, draw.random(3000) < 0.5) - 0.5) < 0.06


def test_labels_that_cannot_be_told_apart_are_named():
    with pytest.raises(ValueError, match=r"every class, got \[600, 0\]"):
        fit_logistic(BITS, np.zeros(600, int))
    with pytest.raises(ValueError, match=r"every class, got \[\d+, 0, \d+\]"):
        fit_logistic(BITS, 2 * TWO)
    with pytest.raises(ValueError, match=r"labels \(N,\) from 0, got float64"):
        fit_logistic(BITS, TWO.astype(float))
    with pytest.raises(ValueError, match="positive penalty, got 0"):
        fit_logistic(BITS, TWO, penalty=0)


def by_hand(outputs, labels, threshold, balanced):
    above = outputs > threshold
    if not balanced:
        return (above == labels).mean()
    return (above[labels].mean() + (~above[~labels]).mean()) / 2


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better_than_the_chosen_one(seed, balanced):
    draw = np.random.default_rng(seed)
    labels = draw.random(60) < 0.3
    labels[:2] = True, False
    found = np.round(draw.normal(size=60) + labels, 1).astype(np.float32)
    chosen = by_hand(found, labels, choose_threshold(found, labels, balanced=balanced), balanced)
    tried = [by_hand(found, labels, t, balanced) for t in [-np.inf, *found]]
    assert chosen == pytest.approx(max(tried), abs=1e-12)


def test_the_threshold_lies_between_and_decides():
    found = np.array([[-3.0], [1.0], [2.0], [6.0]], np.float32)
    threshold = choose_threshold(found, np.array([False, False, True, True]))
    assert threshold == 1.5
    probe = make_probe([0], [[1.0]], [0.0], kind="logistic", threshold=threshold)
    np.testing.assert_array_equal(decide(probe, found), [False, False, True, True])
    neighbours = np.nextafter(np.float32(1), np.float32([0, 2]))
    threshold = choose_threshold(neighbours, np.array([False, True]))
    np.testing.assert_array_equal(neighbours > np.float32(threshold), [False, True])
    with pytest.raises(ValueError, match="4 positive and 0 negative"):
        choose_threshold(found, np.ones(4, bool))


def test_a_probe_that_does_not_fit_together_is_named():
    with pytest.raises(ValueError, match=r"got \(2,\), \(3, 1\) and \(1,\)"):
        make_probe([0, 1], np.ones((3, 1)), [0.0], kind="ridge")
    with pytest.raises(ValueError, match=r"different channels, got \[3, 3\]"):
        make_probe([3, 3], np.ones((2, 1)), [0.0], kind="ridge")
    with pytest.raises(ValueError, match="logistic, ridge; got 'lasso'"):
        make_probe([0], [[1.0]], [0.0], kind="lasso")
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        make_probe([0], [[1.0]], [0.0], kind="ridge", window=0)
