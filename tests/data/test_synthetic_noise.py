"""Synthetic noises: their classes, how non-stationary they are, and their parts."""

import numpy as np
import pytest
from scipy import signal

from dynse.data import synthetic_parts as parts
from dynse.data.synthetic_noise import (
    EXPECTED_NONSTATIONARY,
    NOISE_CLASSES,
    NONSTATIONARY_DB,
    make_noise,
    nonstationarity_db,
)
from dynse.data.synthetic_speech import speak
from dynse.data.synthetic_voices import split_voice, stream

RATE = 16000
TAKES = 5


def take(noise_class, number, n=6 * RATE, seed=0):
    rng = stream(seed, "train", "noise", NOISE_CLASSES.index(noise_class), number)
    voices = None
    if noise_class == "babble":
        voices = [speak(split_voice(seed, "train", v), rng, 3.0).samples for v in range(3)]
    return make_noise(noise_class, rng, n, voices)


@pytest.fixture(scope="module")
def takes():
    return {c: [take(c, i) for i in range(TAKES)] for c in NOISE_CLASSES}


def test_classes_and_how_many_are_non_stationary(takes):
    assert len(NOISE_CLASSES) >= 10
    assert len(EXPECTED_NONSTATIONARY) >= len(NOISE_CLASSES) / 2
    measured = {c: np.median([nonstationarity_db(x) for x in takes[c]]) for c in NOISE_CLASSES}
    found = {c for c, value in measured.items() if value > NONSTATIONARY_DB}
    assert found == EXPECTED_NONSTATIONARY, measured
    assert "coloured" not in found


def test_the_measure_on_signals_with_known_answers():
    rng = np.random.default_rng(0)
    white = rng.standard_normal(20 * RATE)
    assert nonstationarity_db(white) < 2.0
    assert nonstationarity_db(1e-3 * white) == pytest.approx(nonstationarity_db(white), rel=1e-6)
    # Two levels 20 dB apart, equally long: a standard deviation of 10 dB.
    steps = np.where(np.arange(len(white)) // RATE % 2, 1.0, 0.1)
    assert nonstationarity_db(steps * white) == pytest.approx(10.0, abs=0.7)


def test_recordings_are_sound_and_differ(takes):
    for noise_class, recordings in takes.items():
        for x in recordings:
            assert x.shape == (6 * RATE,)
            assert x.dtype == np.float32
            assert np.all(np.isfinite(x))
            assert np.max(np.abs(x)) < 1.0
            assert np.std(x) > 0.003
            assert abs(np.mean(x)) < 0.01 * np.std(x)
        for other in recordings[1:]:
            correlation = signal.correlate(recordings[0], other, method="fft")
            scale = np.linalg.norm(recordings[0]) * np.linalg.norm(other)
            assert np.max(np.abs(correlation)) < 0.95 * scale, noise_class


@pytest.mark.parametrize("noise_class", NOISE_CLASSES)
def test_same_seed_same_bits(noise_class):
    first, again, other = (take(noise_class, 7, RATE, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_wrong_input_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="'thunder'"):
        make_noise("thunder", rng, RATE)
    with pytest.raises(ValueError, match="got 100"):
        make_noise("rain", rng, 100)
    with pytest.raises(ValueError, match="at least two voices, got none"):
        make_noise("babble", rng, RATE)


def test_spectrum_noise_has_the_spectrum_asked_for():
    rng = np.random.default_rng(0)
    x = parts.sloped_noise(rng, 60 * RATE, -6.0)
    assert np.sqrt(np.mean(x**2)) == pytest.approx(1.0, abs=1e-3)
    hz, power = signal.welch(x, RATE, nperseg=2048)
    middle = (hz > 100) & (hz < 7000)
    slope = np.polyfit(np.log2(hz[middle]), 10 * np.log10(power[middle]), 1)[0]
    assert slope == pytest.approx(-6.0, abs=0.2)


def test_harmonic_tone_has_its_partials_and_no_others():
    rng = np.random.default_rng(0)
    tone = parts.harmonic_tone(rng, np.full(RATE, 200.0), np.array([0.0, -6.0, -20.0]))
    power = np.abs(np.fft.rfft(tone)) ** 2
    level = 10 * np.log10(power[[200, 400, 600, 800]] / power[200])
    np.testing.assert_allclose(level[:3], [0.0, -6.0, -20.0], atol=0.1)
    assert level[3] < -60
    # What would pass the Nyquist frequency is left out.
    high = parts.harmonic_tone(rng, np.full(RATE, 3000.0), np.zeros(10))
    power = np.abs(np.fft.rfft(high)) ** 2
    assert power[[3000, 6000]].sum() > 0.99 * power.sum()


def test_pass_by_is_loudest_and_unshifted_at_the_nearest_point():
    gain, doppler = parts.pass_by(4 * RATE, 2 * RATE, 20.0, 5.0)
    assert np.argmax(gain) == 2 * RATE
    assert gain[2 * RATE] == 1.0
    assert gain[0] == pytest.approx(5.0 / np.hypot(40.0, 5.0))
    assert doppler[2 * RATE] == pytest.approx(1.0)
    assert doppler[0] == pytest.approx(343.0 / (343.0 - 20.0), rel=1e-3)
    assert doppler[-1] == pytest.approx(343.0 / (343.0 + 20.0), rel=1e-3)
