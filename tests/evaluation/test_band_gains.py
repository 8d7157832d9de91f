"""The judge of gains per band against waveforms in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.tones import RATE, small_task, spectrum, tones, valid_mixtures

from dynse.audio.mel import mel_filterbank, spread_matrix
from dynse.audio.sdr import si_sdr
from dynse.data.gain_sequences import BANDS
from dynse.evaluation.band_gains import gain_si_sdr


@pytest.fixture(scope="module")
def corpus():
    return tones()


@pytest.fixture(scope="module")
def task(corpus):
    return small_task(corpus)


@pytest.fixture(scope="module")
def mixtures(corpus):
    return valid_mixtures(corpus)


@pytest.fixture(scope="module")
def judge():
    return jax.jit(gain_si_sdr)


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


def test_gains_of_another_shape_are_refused(task):
    with pytest.raises(ValueError, match=r"expected gains \(5, \d+, 32\), got \(5, 3, 32\)"):
        gain_si_sdr(jnp.ones((5, 3, 32)), task.valid_audio)
