"""Mel bands against loops and librosa, the way back to bins, and log-mel spectra of clips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynse.audio.mel import LogMel, band_power, mel_filterbank, spread_matrix

RATE, N_FFT, BANDS = 16000, 512, 32
SMALL = LogMel(sample_rate=8000, win_length=256, hop_length=160, bands=12)


def noise(length, seed=0):
    return np.random.default_rng(seed).normal(size=length)


def corners(bands, low_hz, high_hz):
    """Corners of the triangles in Hz, by inverting mel through a dense table."""
    hz = np.linspace(0, 8000, 800_001)
    mel = 2595 * np.log10(1 + hz / 700)
    low, high = np.interp([low_hz, high_hz], hz, mel)
    return np.interp(np.linspace(low, high, bands + 2), mel, hz)


@pytest.mark.slow  # librosa takes seconds to import
def test_triangles_are_those_of_librosa():
    filters = pytest.importorskip("librosa.filters")
    expected = filters.mel(
        sr=RATE, n_fft=N_FFT, n_mels=BANDS, fmin=60, fmax=7000, htk=True, norm=None
    )
    found = mel_filterbank(BANDS, N_FFT, RATE, low_hz=60, high_hz=7000)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_triangles_by_the_definition():
    points = corners(BANDS, 0, 8000)
    expected = np.zeros((BANDS, N_FFT // 2 + 1))
    for band in range(BANDS):
        for k in range(N_FFT // 2 + 1):
            hz = k * RATE / N_FFT
            expected[band, k] = np.interp(hz, points[band : band + 3], [0, 1, 0], left=0, right=0)
    np.testing.assert_allclose(mel_filterbank(BANDS, N_FFT, RATE), expected, atol=1e-5)


def test_a_flat_spectrum_has_the_same_power_in_every_band():
    bank = mel_filterbank(BANDS, N_FFT, RATE)
    np.testing.assert_allclose(band_power(np.full((2, 3, 257), 4.0), bank), 4.0, rtol=1e-5)


def test_gains_are_interpolated_between_the_middles_of_the_bands():
    bank = mel_filterbank(BANDS, N_FFT, RATE, low_hz=100)
    gains = np.random.default_rng(1).uniform(size=BANDS)
    middles = corners(BANDS, 100, 8000)[1:-1]
    spread = gains @ spread_matrix(bank)
    expected = np.interp(np.arange(257) * RATE / N_FFT, middles, gains)
    np.testing.assert_allclose(spread, expected, atol=1e-5)
    np.testing.assert_allclose(spread_matrix(bank).sum(0), 1, rtol=1e-6)
    # bins that no triangle reaches, 0 Hz and half the rate among them, are not left out
    assert bank.sum(0)[[0, 1, 2, 256]].max() < 1e-9
    assert spread[0] == pytest.approx(gains[0], rel=1e-6)
    assert spread[256] == pytest.approx(gains[-1], rel=1e-6)


def test_bands_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"band 0 of 64 holds no bin of a transform of 128"):
        mel_filterbank(64, 128, 16000)
    with pytest.raises(ValueError, match=r"low_hz < high_hz <= 4000.0, got 8, 100.0 and 5000.0"):
        mel_filterbank(8, 256, 8000, low_hz=100.0, high_hz=5000.0)
    with pytest.raises(ValueError, match="bands >= 1"):
        mel_filterbank(0, 256, 8000)


def test_log_mel_by_a_loop():
    samples = noise(700) + 0.5
    found = SMALL(samples)
    frames = []
    start = 0
    while True:
        frame = np.zeros(256)
        part = samples[start : start + 256]
        frame[: part.size] = part
        frames.append(frame)
        start += 160
        if start - 160 + 256 >= samples.size:
            break
    assert found.shape == (len(frames), 12)
    n = np.arange(256)
    window = np.sin(np.pi * n / 256) ** 2
    dft = np.exp(-2j * np.pi * np.outer(np.arange(129), n) / 256)
    bank = mel_filterbank(12, 256, 8000, low_hz=60.0).astype(float)
    for frame, row in zip(frames, found, strict=True):
        power = np.abs(dft @ (window * frame)) ** 2 / (window**2).sum() / np.mean(samples**2)
        for band in range(12):
            mean = np.sum(bank[band] * power) / bank[band].sum()
            assert row[band] == pytest.approx(10 * np.log10(mean), abs=1e-3)


def test_white_noise_has_0_db_in_every_band():
    levels = SMALL(noise(200_000))
    np.testing.assert_allclose(10 * np.log10((10 ** (levels / 10)).mean(0)), 0, atol=0.4)


def test_a_tone_is_in_its_band_and_silence_on_the_floor():
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    tone[4000:] = 0
    levels = SMALL(tone)
    middles = corners(12, 60, 4000)[1:-1]
    assert (levels[:20].argmax(1) == np.abs(middles - 1000).argmin()).all()
    assert (levels[-20:] == -60).all()
    assert levels.min() == -60


@settings(deadline=None, max_examples=20)
@given(st.floats(1e-4, 1e4), st.integers(1, 1500))
def test_level_tells_nothing(gain, length):
    samples = noise(length)
    np.testing.assert_allclose(SMALL(gain * samples), SMALL(samples), atol=1e-3)
    assert len(SMALL(samples)) == SMALL.frames(length)


def test_a_frame_sees_its_own_samples_alone():
    samples = noise(2000)
    changed = samples.copy()
    changed[1000] *= -1  # the level of the clip stays
    differs = (SMALL(samples) != SMALL(changed)).any(1)
    sees = [160 * t <= 1000 < 160 * t + 256 for t in range(len(differs))]
    assert differs.tolist() == sees


@pytest.mark.parametrize("samples", [np.zeros(400), np.zeros(0), np.ones((2, 300))])
def test_what_has_no_level_is_refused(samples):
    with pytest.raises(ValueError, match="not silent"):
        SMALL(samples)
