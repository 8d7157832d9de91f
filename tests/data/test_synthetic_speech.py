"""Synthetic speech: exact ground truth, and figures like those of recorded speech."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import signal

from dynse.audio.activity import active_frames
from dynse.data.synthetic_speech import speak
from dynse.data.synthetic_voices import (
    SPLITS,
    VOICES_PER_SPLIT,
    split_voice,
    stream,
)

RATE = 16000


def say(split, voice, number=0, seconds=6.0, seed=0):
    return speak(
        split_voice(seed, split, voice), stream(seed, split, "speech", voice, number), seconds
    )


@pytest.fixture(scope="module")
def utterances():
    return [say("train", voice) for voice in range(16)]


def long_term_db(samples):
    """Level in 24 bands, equal in log frequency, over 100 Hz to 7.5 kHz; mean removed."""
    hz, power = signal.welch(samples, RATE, nperseg=1024)
    edges = np.geomspace(100.0, 7500.0, 25)
    bands = [power[(hz >= a) & (hz < b)] for a, b in pairwise(edges)]
    level = np.array([10 * np.log10(b.mean()) if len(b) else np.nan for b in bands])
    return level[~np.isnan(level)] - np.nanmean(level)


def pitch_by_autocorrelation(samples, centre, low_hz=55, high_hz=480):
    """Pitch of 50 ms around a sample: the first peak near the highest of the autocorrelation."""
    cut = samples[centre - 400 : centre + 400] * np.hanning(800)
    r = np.fft.irfft(np.abs(np.fft.rfft(cut, 2048)) ** 2)[:400]
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(800), 2048)) ** 2)[:400]
    r = r / window / (r[0] / window[0])
    lags = np.arange(RATE // high_hz, RATE // low_hz)
    peaks = [k for k in lags if r[k] >= r[k - 1] and r[k] >= r[k + 1]]
    if not peaks:
        return np.nan
    best = max(r[k] for k in peaks)
    k = next(k for k in peaks if r[k] > 0.85 * best)
    bend = r[k - 1] - 2 * r[k] + r[k + 1]
    return RATE / (k + 0.5 * (r[k - 1] - r[k + 1]) / bend)


def pitch_errors(utterance, shift=0):
    """Relative errors of the track against the autocorrelation, within steady voiced stretches."""
    f0 = utterance.f0_hz
    centres = range(20, len(f0) - 20 - shift, 6)
    errors = []
    for t in centres:
        around = f0[t - 6 : t + 7]
        if around.min() > 0 and around.max() / around.min() < 1.06:
            found = pitch_by_autocorrelation(utterance.samples.astype(float), t * 80 + 40)
            truth = f0[t + shift]
            errors.append(found / truth - 1 if truth else np.inf)
    return np.abs(errors)


def test_same_seed_same_bits_and_other_seeds_differ():
    first, again, other = (say("train", 3, seconds=2.0, seed=s) for s in (0, 0, 1))
    for name in ("samples", "f0_hz", "voice"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    n = min(len(first.samples), len(other.samples))
    assert not np.array_equal(first.samples[:n], other.samples[:n])
    assert not np.array_equal(say("train", 3, 1, 2.0).samples[:n], first.samples[:n])


def test_shapes_range_and_levels(utterances):
    for u in utterances:
        assert u.samples.dtype == np.float32
        assert u.samples.shape == (80 * len(u.f0_hz),)
        assert u.voice.shape == u.f0_hz.shape
        assert u.voice.dtype == bool
        assert 6.0 <= len(u.samples) / RATE < 12.0
        assert np.all(np.isfinite(u.samples))
        assert 0.02 < np.max(np.abs(u.samples)) < 1.0
        assert not np.any((u.f0_hz > 0) & ~u.voice)


def test_voice_frames_carry_the_energy(utterances):
    for u in utterances:
        level = 10 * np.log10(np.mean(u.samples.reshape(-1, 80) ** 2, axis=1) + 1e-12)
        level -= np.percentile(level, 95)
        # A period of a low voice is longer than a frame: the highest of three counts.
        level = np.maximum(np.maximum(level, np.roll(level, 1)), np.roll(level, -1))
        assert np.mean(level[u.voice] > -45) > 0.95
        # 50 ms after its end only the room's tail is left; after 200 ms the recording's floor, at
        # most 35 dB below the RMS level, which lies about 5 dB below the 95th percentile.
        for frames, limit_db in ((10, -22), (45, -30)):
            heard = np.convolve(u.voice, np.ones(2 * frames + 1), mode="same") > 0
            assert np.all(level[~heard] < limit_db)
        energy = np.mean(u.samples.reshape(-1, 80) ** 2, axis=1)
        assert energy[u.voice].sum() > 0.97 * energy.sum()


def test_f0_is_that_of_the_waveform(utterances):
    errors = np.concatenate([pitch_errors(u) for u in utterances])
    assert len(errors) > 500
    assert np.median(errors) < 0.02
    assert np.mean(errors < 0.05) > 0.85
    # The check is able to fail: the same track 0.3 s later.
    shifted = np.concatenate([pitch_errors(u, shift=60) for u in utterances[:4]])
    assert np.mean(shifted < 0.05) < 0.5


def test_looks_like_speech(utterances):
    """Slope of the long-term spectrum, syllables, share of active frames."""
    unit = [u.samples.astype(float) / np.std(u.samples) for u in utterances]
    hz, power = signal.welch(np.concatenate(unit), RATE, nperseg=1024)
    middle = (hz >= 500) & (hz <= 4000)
    slope = np.polyfit(np.log2(hz[middle]), 10 * np.log10(power[middle]), 1)[0]
    assert -12 < slope < -5  # recordings of dynse-mini: -5.9 dB per octave
    shares = [active_frames(u.samples).mean() for u in utterances]
    assert 0.6 < np.mean(shares) < 0.85
    voiced = [np.mean(u.f0_hz[u.voice] > 0) for u in utterances]
    assert 0.6 < np.mean(voiced) < 0.9
    modulation = 0.0
    for x in unit:
        # 25 ms of smoothing: the pulses of a low voice are not modulation.
        power = signal.oaconvolve(x**2, np.hanning(401) / 200, mode="same")[::160]
        envelope = np.sqrt(np.maximum(power, 0.0))
        rate_hz, density = signal.welch(envelope - envelope.mean(), 100, nperseg=400)
        modulation = modulation + density / density.sum()
    # Half-octave bands around 1, 1.4, 2, ..., 16 Hz.
    centres = 2.0 ** np.arange(0, 4.01, 0.5)
    bands = [modulation[(rate_hz >= c / 2**0.25) & (rate_hz < c * 2**0.25)].sum() for c in centres]
    assert 2.9 <= centres[int(np.argmax(bands))] <= 6.0


def test_formants_follow_the_tract():
    """The same sounds from a shorter tract: its spectrum is the longer one's, stretched."""
    low = replace(split_voice(0, "train", 0), creak=0.0)
    spectra = []
    for tract_cm in (18.0, 14.4):
        voice = replace(low, tract_cm=tract_cm)
        u = speak(voice, stream(0, "train", "speech", 0, 0), 6.0)
        hz, power = signal.welch(u.samples, RATE, nperseg=1024)
        spectra.append(10 * np.log10(power))
    log_hz = np.log(np.geomspace(400.0, 3500.0, 200))
    long = np.interp(log_hz, np.log(hz[1:]), spectra[0][1:])

    def distance(stretch):
        short = np.interp(log_hz + np.log(stretch), np.log(hz[1:]), spectra[1][1:])
        return np.std(short - long)

    stretches = np.arange(0.9, 1.6, 0.02)
    best = stretches[int(np.argmin([distance(s) for s in stretches]))]
    assert best == pytest.approx(18.0 / 14.4, abs=0.1)


def test_voices_are_many_disjoint_and_of_both_registers():
    voices = {s: [split_voice(0, s, i) for i in range(VOICES_PER_SPLIT[s])] for s in SPLITS}
    every = [voice for split in SPLITS for voice in voices[split]]
    assert len(every) >= 40
    assert len({v.name for v in every}) == len(every)
    assert len({v.f0_hz for v in every}) == len(every)
    for split in SPLITS:
        low = [v.f0_hz for v in voices[split] if v.register == "low"]
        high = [v.f0_hz for v in voices[split] if v.register == "high"]
        assert len(low) == len(high)
        assert min(low) >= 85
        assert max(low) <= 150
        assert min(high) >= 165
        assert max(high) <= 260
        # Stratified: even four voices cover most of the range.
        assert max(low) > 1.35 * min(low)
    other = split_voice(1, "train", 0)
    assert other.f0_hz != voices["train"][0].f0_hz
    with pytest.raises(ValueError, match="voices 0 to 7, got 8"):
        split_voice(0, "valid", 8)
    with pytest.raises(ValueError, match="'dev'"):
        split_voice(0, "dev", 0)


def test_voices_are_distinguishable():
    """Nearest centroid on the long-term spectrum and the pitch finds the voice among 40."""
    count, takes = 40, 3

    def describe(u):
        pitch = 12 * np.log2(np.median(u.f0_hz[u.f0_hz > 0]))
        return np.append(long_term_db(u.samples), pitch)

    points = np.array(
        [[describe(say("train", v, k, 3.0)) for k in range(takes)] for v in range(count)]
    )
    within = points.std(axis=1).mean(axis=0)
    known = points[:, :-1].mean(axis=1)
    gaps = np.linalg.norm((points[:, -1, None] - known) / within, axis=-1)
    found = np.mean(np.argmin(gaps, axis=1) == np.arange(count))
    assert found > 0.5  # chance is 0.025


def test_wrong_length_is_refused():
    with pytest.raises(ValueError, match="seconds must be positive"):
        speak(split_voice(0, "train", 0), np.random.default_rng(0), 0.0)
