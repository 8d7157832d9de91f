import jax.numpy as jnp
import numpy as np
import pytest

from dynse.audio.sdr import si_sdr


def pair(seed=0, shape=(3, 500)):
    draw = np.random.default_rng(seed)
    reference = draw.normal(size=shape) + 0.3
    return 0.7 * reference + 0.2 * draw.normal(size=shape) - 0.1, reference


def formula(x, s):
    x, s = x - x.mean(), s - s.mean()
    target = x @ s / (s @ s) * s
    return 10 * np.log10(target @ target / ((x - target) @ (x - target)))


def test_the_formula_in_numpy_and_jax():
    estimate, reference = pair()
    expected = [formula(x, s) for x, s in zip(estimate, reference, strict=True)]
    np.testing.assert_allclose(si_sdr(estimate, reference), expected, rtol=1e-9)
    in_jax = si_sdr(jnp.asarray(estimate), jnp.asarray(reference))
    assert isinstance(in_jax, jnp.ndarray)
    np.testing.assert_allclose(in_jax, expected, rtol=1e-4)


def test_by_hand():
    time = np.arange(1600) / 1600
    reference, orthogonal = np.sin(20 * np.pi * time), np.sin(40 * np.pi * time)
    assert si_sdr(reference + 0.1 * orthogonal, reference) == pytest.approx(20, abs=1e-6)


@pytest.mark.parametrize("gain", [1e-3, -1.0, 50.0])
def test_scale_offset_and_sign_do_not_count(gain):
    estimate, reference = pair()
    expected = si_sdr(estimate, reference)
    np.testing.assert_allclose(si_sdr(gain * estimate + 2, reference), expected, rtol=1e-6)
    np.testing.assert_allclose(si_sdr(estimate, gain * reference - 1), expected, rtol=1e-6)


def test_silence_has_no_ratio():
    estimate, reference = pair()
    zeros = np.zeros_like(reference)
    assert np.isnan(si_sdr(estimate, zeros)).all()
    assert np.isnan(si_sdr(zeros, reference)).all()
    reference[1] = 0
    assert np.isnan(si_sdr(estimate, reference)).tolist() == [False, True, False]


def test_a_perfect_estimate_is_finite_and_far_above_any_other():
    _, reference = pair()
    assert (si_sdr(reference, reference) > 100).all()
    assert np.isfinite(si_sdr(reference, reference)).all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 3\), reference \(3,\)"):
        si_sdr(np.zeros((2, 3)), np.zeros(3))
