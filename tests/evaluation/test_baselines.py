import numpy as np
import pytest

from dynse.audio.sdr import si_sdr
from dynse.audio.stft import STFT
from dynse.evaluation.baselines import BASELINES, FORMS, oracle_wiener, wiener_gain

LENGTH = 24000


def mixture(seed=0):
    """Harmonic bursts in low-pass noise at about 0 dB."""
    draw = np.random.default_rng(seed)
    time_s = np.arange(LENGTH) / 16000
    burst = np.sin(2 * np.pi * 2 * time_s) > 0
    clean = burst * sum(np.sin(2 * np.pi * 200 * k * time_s) / k for k in range(1, 15))
    noise = np.cumsum(draw.standard_normal(LENGTH))
    noise = noise - np.convolve(noise, np.ones(200) / 200, "same")
    noise *= clean.std() / noise.std()
    return clean.astype(np.float32), noise.astype(np.float32)


def test_gains_by_hand():
    noisy_power = np.array([[4.0, 1.0], [8.0, 0.5], [0.0, 0.0]])
    noise_power = np.array([2.0, 1.0])
    subtraction = wiener_gain(noisy_power, noise_power, form="subtraction")
    np.testing.assert_allclose(subtraction, [[0.5, 0], [0.75, 0], [0, 0]])
    stationary = wiener_gain(noisy_power, noise_power, form="stationary")
    np.testing.assert_allclose(stationary, np.tile([0.5, 0], (3, 1)))
    directed = wiener_gain(noisy_power, noise_power, form="decision_directed", smoothing=0.5)
    # Ratios of bin 0: 2, 4, 0; xi: .5 + .5, .5 * .25 * 2 + 1.5, .5 * g^2 * 4 + 0.
    second = 1.75 / 2.75
    third = 2 * second**2
    np.testing.assert_allclose(directed[:, 0], [0.5, second, third / (1 + third)])
    bounded = wiener_gain(noisy_power, noise_power, smoothing=0.5)
    np.testing.assert_allclose(bounded, np.minimum(stationary, directed))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gains_and_the_bounded_one_most(form):
    clean, noise = mixture()
    noisy = clean + noise
    gain = si_sdr(oracle_wiener(noisy, noise, form=form), clean) - si_sdr(noisy, clean)
    best = si_sdr(oracle_wiener(noisy, noise), clean) - si_sdr(noisy, clean)
    assert gain > 1
    assert gain <= best


def test_nothing_is_changed_without_noise():
    clean, noise = mixture()
    np.testing.assert_allclose(oracle_wiener(clean, 0 * noise), clean, atol=1e-4)


def test_padding_to_whole_seconds_changes_nothing():
    clean, noise = mixture()
    clean, noise = clean[:-777], noise[:-777]
    noisy = clean + noise
    stft = STFT()
    spectrum = np.asarray(stft.forward(noisy[None]))[0]
    power = np.mean(np.abs(np.asarray(stft.forward(noise[None]))[0]) ** 2, 0)
    gained = (spectrum * wiener_gain(np.abs(spectrum) ** 2, power)).astype(np.complex64)
    expected = np.asarray(stft.inverse(gained[None], len(noisy)))[0]
    np.testing.assert_allclose(oracle_wiener(noisy, noise), expected, atol=1e-5)


def test_baselines_by_name():
    clean, noise = mixture()
    noisy = clean + noise
    np.testing.assert_array_equal(BASELINES["noisy"](noisy, noise), noisy)
    np.testing.assert_array_equal(
        BASELINES["oracle Wiener, bounded"](noisy, noise), oracle_wiener(noisy, noise)
    )


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="bounded, stationary"):
        wiener_gain(np.ones((2, 3)), np.ones(3), form="best")
    with pytest.raises(ValueError, match="expected noisy and noise"):
        oracle_wiener(np.zeros(5), np.zeros(6))
