import numpy as np
import pytest
from probes.planted import correlated_bits

from dynse.probes import fit_ridge, outputs, predict
from dynse.probes import moments as moments_module
from dynse.probes.moments import gather_moments

BITS, HIDDEN = correlated_bits(400, 12)
TARGETS = HIDDEN[:, :2] * [1, 50] + [0, 120]


@pytest.mark.parametrize("penalty", [1e-3, 0.5])
def test_against_scikit_learn_on_standardised_features(penalty):
    linear_model = pytest.importorskip("sklearn.linear_model")
    probe = fit_ridge(BITS, TARGETS, penalty=penalty)
    z = (BITS - BITS.mean(0)) / BITS.std(0)
    reference = linear_model.Ridge(alpha=penalty * len(BITS)).fit(z, TARGETS)
    np.testing.assert_allclose(outputs(probe, BITS), reference.predict(z), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(probe.weights * BITS.std(0)[:, None], reference.coef_.T, atol=1e-3)
    assert predict(probe, BITS[:3]).shape == (3, 2)


def test_without_penalty_it_is_least_squares():
    probe = fit_ridge(BITS, TARGETS[:, 0], penalty=1e-9)
    design = np.column_stack([np.ones(len(BITS)), BITS])
    solution = np.linalg.lstsq(design, TARGETS[:, 0], rcond=None)[0]
    np.testing.assert_allclose(np.append(probe.bias, probe.weights), solution, atol=1e-4)


def test_chunks_and_weights_add_up(monkeypatch):
    """Moments in chunks, against NumPy's over rows that are repeated as often as they weigh."""
    monkeypatch.setattr(moments_module, "_ROWS", 150)
    weights = np.random.default_rng(0).integers(0, 4, len(BITS))
    moments = gather_moments(BITS, TARGETS, weights=weights)
    repeated = np.repeat(BITS.astype(float), weights, axis=0)
    targets = np.repeat(TARGETS, weights, axis=0)
    z = (repeated - repeated.mean(0)) / repeated.std(0)
    np.testing.assert_allclose(moments.mean, repeated.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.std, repeated.std(0), rtol=1e-9)
    np.testing.assert_allclose(moments.gram, z.T @ z / len(z), atol=1e-6)
    cross = z.T @ (targets - targets.mean(0)) / len(z)
    np.testing.assert_allclose(moments.cross, cross, atol=1e-4)
    np.testing.assert_allclose(moments.target_std, targets.std(0), rtol=1e-9)


def test_constant_and_repeated_channels_are_harmless():
    features = np.column_stack([BITS, np.ones(400), np.zeros(400), BITS[:, :3]]).astype(bool)
    every = fit_ridge(features, TARGETS, channels=np.arange(features.shape[1]))
    varying = fit_ridge(features, TARGETS)
    assert not np.asarray(every.weights[12:14]).any()
    assert set(np.asarray(varying.channels)) == set(range(17)) - {12, 13}
    np.testing.assert_allclose(outputs(every, features), outputs(varying, features), atol=1e-3)
    assert np.isfinite(every.weights).all()


def test_a_channel_that_is_almost_always_open_keeps_its_digits():
    """One closed frame in 20 000, an effect of 1000: in float32 sums of squares it would drown."""
    features = np.ones((20_000, 2), bool)
    features[77, 0] = False
    features[::2, 1] = False
    targets = np.where(features[:, 0], 0, 1000) + features[:, 1]
    probe = fit_ridge(features, targets, penalty=1e-6)
    np.testing.assert_allclose(probe.weights[:, 0], [-1000, 1], rtol=2e-3)


def test_random_targets_are_not_predicted():
    """Negative control, on rows that were not fitted."""
    noise = np.random.default_rng(1).normal(size=400)
    probe = fit_ridge(BITS[:200], noise[:200])
    guess = np.asarray(outputs(probe, BITS[200:]))[:, 0]
    assert abs(np.corrcoef(guess, noise[200:])[0, 1]) < 0.2
    planted = fit_ridge(BITS[:200], TARGETS[:200, 0])
    guess = np.asarray(outputs(planted, BITS[200:]))[:, 0]
    assert np.corrcoef(guess, TARGETS[200:, 0])[0, 1] > 0.6


def test_what_cannot_be_fitted_is_named():
    with pytest.raises(ValueError, match="positive penalty, got 0"):
        fit_ridge(BITS, TARGETS, penalty=0)
    with pytest.raises(ValueError, match=r"got \(400, 12\) and \(399, 2\)"):
        fit_ridge(BITS, TARGETS[1:])
    with pytest.raises(ValueError, match=r"N and S positive, got \(400, 0\)"):
        fit_ridge(np.ones((400, 5), bool), TARGETS)
    with pytest.raises(ValueError, match="got NaN or infinity"):
        fit_ridge(BITS, np.where(TARGETS > 0, TARGETS, np.nan))
