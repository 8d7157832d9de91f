"""Gains per band: features and targets by loops, and the judge against waveforms in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.audio.mel import mel_filterbank, spread_matrix
from dynse.audio.sdr import si_sdr
from dynse.data.bank import Bank, Corpus
from dynse.data.drawing import make_test_set
from dynse.data.gain_sequences import BANDS, SHAPE, gain_si_sdr, gain_task, ideal_gains
from dynse.data.testsets import render

RATE = 16000


def voice(seed):
    """Harmonics under syllables, as int16."""
    time = np.arange(5 * RATE) / RATE
    hz = 90 + 40 * seed
    tone = sum(np.sin(2 * np.pi * k * hz * time) / k for k in range(1, 20))
    return np.round(6000 * tone * (np.sin(2 * np.pi * 1.5 * time) > 0)).astype(np.int16)


def rain(seed):
    return np.round(np.random.default_rng(seed).normal(size=5 * RATE) * 2000).astype(np.int16)


def bank(split, group, parts):
    offsets = np.concatenate([[0], np.cumsum([part.size for part in parts])])
    names = tuple(f"{split}/{group}/{n}" for n in range(len(parts)))
    return Bank(
        np.concatenate(parts), offsets, names, tuple(f"{group}{n}" for n in range(len(parts)))
    )


@pytest.fixture(scope="module")
def corpus():
    splits = ("train", "valid", "test")
    speech = {s: bank(s, "voice", [voice(3 * n), voice(3 * n + 1)]) for n, s in enumerate(splits)}
    noise = {s: bank(s, "rain", [rain(n)]) for n, s in enumerate(splits)}
    return Corpus("tiny", "", speech, noise)


@pytest.fixture(scope="module")
def task(corpus):
    return gain_task(corpus, train_per_snr=1, valid_per_snr=1, test_per_snr=1)


@pytest.fixture(scope="module")
def mixtures(corpus):
    """The mixtures of the validation split, drawn again."""
    drawn = make_test_set(
        corpus,
        "valid",
        name="again",
        seed=0,
        snrs_db=(-5, 0, 5, 10, 15),
        per_snr=1,
        min_s=3.0,
        max_s=4.0,
    )
    return [render(spec, corpus) for spec in drawn]


@pytest.fixture(scope="module")
def judge():
    return jax.jit(gain_si_sdr)


def spectrum(samples):
    """STFT in NumPy, float64: zeros before the first sample, whole hops after the last."""
    count = SHAPE.frames(samples.size)
    padded = np.zeros(256 * (count + 1))
    padded[256 : 256 + samples.size] = samples
    frames = np.stack([padded[256 * t : 256 * t + 512] for t in range(count)])
    return np.fft.rfft(frames * np.sin(np.pi * np.arange(512) / 512) ** 2)


def test_features_and_targets_by_loops(task, mixtures):
    bank = mel_filterbank(BANDS, 512, RATE).astype(float)
    assert task.valid.features.shape[2] == BANDS
    for row, mixture in enumerate(mixtures):
        noisy, clean, noise = (
            np.abs(spectrum(x.astype(float))) ** 2
            for x in (mixture.noisy, mixture.clean, mixture.noise)
        )
        frames = len(noisy)
        assert task.valid.lengths[row] == frames
        features = task.valid.features[row] * task.std + task.mean
        for band in (0, 1, 7, 31):
            energy = [
                (power * bank[band]).sum(1) / bank[band].sum() for power in (noisy, clean, noise)
            ]
            expected = 10 * np.log10(np.maximum(energy[0], 1e-8))
            np.testing.assert_allclose(features[:frames, band], expected, atol=0.02)
            np.testing.assert_allclose(
                task.valid.targets[row, :frames, band],
                energy[1] / np.maximum(energy[1] + energy[2], 1e-30),
                atol=1e-3,
            )
        assert not task.valid.features[row, frames:].any()
        assert not task.valid.targets[row, frames:].any()
    for split in (task.train, task.valid, task.test):
        assert split.targets.min() >= 0
        assert split.targets.max() <= 1
        assert len(split.groups) == len(split.ids) == len(split.features) == 5
    assert set(task.valid.groups) == {"voice0", "voice1"}
    valid = np.arange(task.train.features.shape[1]) < task.train.lengths[:, None]
    np.testing.assert_allclose(task.train.features[valid].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(task.train.features[valid].std(0), 1, atol=1e-4)


def test_open_gains_give_the_mixture_and_padding_does_not_count(task, mixtures, judge):
    assert len({mixture.noisy.size for mixture in mixtures}) > 1
    ones = np.ones_like(task.valid.targets)
    found = judge(ones, task.valid_audio)
    expected = [si_sdr(m.noisy.astype(float), m.clean.astype(float)) for m in mixtures]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    spoiled = ones.copy()
    for row, length in zip(spoiled, task.valid.lengths, strict=True):
        row[length:] = 1e3
    np.testing.assert_array_equal(judge(spoiled, task.valid_audio), found)
    # negative control: a frame that is no padding counts
    spoiled[:, task.valid.lengths.min() // 2] = 1e3
    assert (judge(spoiled, task.valid_audio) < found).all()


def test_gains_by_an_inverse_in_numpy(task, mixtures, judge):
    gains = np.random.default_rng(0).uniform(size=task.valid.targets.shape).astype(np.float32)
    found = judge(gains, task.valid_audio)
    spread = spread_matrix(mel_filterbank(BANDS, 512, RATE))
    window = np.sin(np.pi * np.arange(512) / 512) ** 2
    for row, mixture in enumerate(mixtures):
        noisy = spectrum(mixture.noisy.astype(float))
        frames = np.fft.irfft(noisy * (gains[row, : len(noisy)] @ spread)) * window
        total, weight = np.zeros(256 * (len(noisy) + 1)), np.zeros(256 * (len(noisy) + 1))
        for t, frame in enumerate(frames):
            total[256 * t : 256 * t + 512] += frame
            weight[256 * t : 256 * t + 512] += window**2
        size = mixture.noisy.size
        enhanced = total[256 : 256 + size] / weight[256 : 256 + size]
        assert found[row] == pytest.approx(si_sdr(enhanced, mixture.clean.astype(float)), abs=1e-3)


def test_ideal_gains_enhance_and_those_of_the_wrong_bands_do_not(task, judge):
    noisy = judge(np.ones_like(task.test.targets), task.test_audio)
    ideal = judge(task.test.targets, task.test_audio)
    wrong = judge(task.test.targets[..., ::-1], task.test_audio)
    assert (ideal > noisy + 2).all()
    assert ideal.mean() > noisy.mean() + 5
    assert (wrong < noisy).all()


def test_a_population_is_judged_in_one_program(task, judge):
    scales = jnp.array([0.25, 1.0])
    gains = scales[:, None, None, None] * task.valid.targets
    found = jax.jit(jax.vmap(gain_si_sdr, in_axes=(0, None)))(gains, task.valid_audio)
    expected = judge(task.valid.targets, task.valid_audio)
    np.testing.assert_allclose(found, np.stack([expected] * 2), atol=1e-3)  # scale-invariant


def test_ideal_gains_of_silence_are_closed():
    silent = np.zeros((1, 257), np.complex64)
    loud = np.ones((1, 257), np.complex64)
    assert np.asarray(ideal_gains(silent, silent)).max() == 0
    np.testing.assert_allclose(ideal_gains(loud, silent), 1, rtol=1e-6)
    np.testing.assert_allclose(ideal_gains(loud, loud), 0.5, rtol=1e-6)


def test_a_fixed_test_set_replaces_the_drawn_one(corpus, task):
    fixed = make_test_set(
        corpus, "test", name="fixed", seed=9, snrs_db=(3,), per_snr=2, min_s=3, max_s=4
    )
    other = gain_task(corpus, train_per_snr=1, valid_per_snr=1, test_set=fixed)
    assert other.test.ids.tolist() == [spec.id for spec in fixed]
    assert other.test_audio.samples.tolist() == [spec.length for spec in fixed]
    np.testing.assert_array_equal(other.train.features, task.train.features)
    assert other.fingerprint != task.fingerprint
    with pytest.raises(ValueError, match=r"expected gains \(5, \d+, 32\), got \(5, 3, 32\)"):
        gain_si_sdr(jnp.ones((5, 3, 32)), task.valid_audio)
