"""The losses against NumPy, written from their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.audio.stft import STFT
from dynse.training.losses import (
    EPS,
    compressed_spectral_loss,
    squared_error,
    waveform_loss,
)

SMALL = STFT(64, 64, 32)


def numpy_spectrum(signal, stft):
    past = stft.win_length - stft.hop_length
    frames = -(-(len(signal) + past) // stft.hop_length)
    padded = np.zeros(past + frames * stft.hop_length)
    padded[past : past + len(signal)] = signal
    starts = np.arange(frames) * stft.hop_length
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(stft.win_length) / stft.win_length)
    return np.fft.rfft([padded[s : s + stft.win_length] * window for s in starts])


def numpy_loss(enhanced, clean, stft, threshold=None):
    target, estimate = numpy_spectrum(clean, stft), numpy_spectrum(enhanced, stft)
    energy = np.linalg.norm(target, axis=1) * np.sqrt(2) / stft.n_fft
    if threshold is None:
        past = stft.win_length - stft.hop_length
        padded = np.concatenate([np.zeros(past), clean, np.zeros(stft.hop_length)])
        power = [
            np.mean(padded[s : s + stft.win_length] ** 2)
            for s in range(0, len(target) * stft.hop_length, stft.hop_length)
        ]
        level = 10 * np.log10(np.maximum(power, 1e-12))
        active = (level > np.percentile(level, 95) - 30) & (level > -90)
    else:
        active = energy > threshold
    sigma = energy[active].mean() if active.any() else 1.0
    target, estimate = target / sigma, estimate / sigma

    def compress(spectrum):
        size = np.sqrt(np.abs(spectrum) ** 2 + EPS)
        return size**0.3, spectrum * size**-0.7

    (size, value), (target_size, target_value) = compress(estimate), compress(target)
    by_size = np.mean((size - target_size) ** 2)
    return 0.7 * by_size + 0.3 * np.mean(np.abs(value - target_value) ** 2)


@pytest.mark.parametrize("threshold", [None, 0.025])
def test_the_loss_is_the_equation(threshold):
    draw = np.random.default_rng(0)
    envelope = np.abs(np.sin(np.arange(640) / 90)) ** 3
    clean = 0.2 * draw.normal(size=(2, 640)) * envelope
    enhanced = clean + 0.02 * draw.normal(size=clean.shape)
    found = compressed_spectral_loss(
        jnp.asarray(enhanced), jnp.asarray(clean), stft=SMALL, threshold=threshold
    )
    expected = [numpy_loss(e, c, SMALL, threshold) for e, c in zip(enhanced, clean, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=2e-4)


def test_a_perfect_estimate_costs_nothing_and_scale_does_not_matter():
    clean = jnp.asarray(np.random.default_rng(1).normal(size=(1, 640)))
    # The STFT of x / sigma and the STFT of x, over sigma, differ in the last bit.
    assert compressed_spectral_loss(clean, clean, stft=SMALL)[0] < 1e-12
    one = compressed_spectral_loss(0.5 * clean, clean, stft=SMALL)
    louder = compressed_spectral_loss(5 * clean, 10 * clean, stft=SMALL)
    np.testing.assert_allclose(one, louder, rtol=1e-3)
    assert one[0] > 0.01


@pytest.mark.parametrize("silent", ["clean", "enhanced", "both"])
def test_silence_has_a_finite_loss_and_gradient(silent):
    signal = jnp.asarray(0.1 * np.random.default_rng(2).normal(size=(1, 640)))
    clean = jnp.zeros_like(signal) if silent in ("clean", "both") else signal
    enhanced = jnp.zeros_like(signal) if silent in ("enhanced", "both") else signal
    for loss in (
        lambda x: compressed_spectral_loss(x, clean, stft=SMALL).sum(),
        lambda x: waveform_loss(x, clean).sum(),
    ):
        value, gradient = jax.value_and_grad(loss)(enhanced)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_the_waveform_loss_is_minus_the_snr_until_its_limit():
    draw = np.random.default_rng(3)
    clean = draw.normal(size=(1, 4000))
    error = draw.normal(size=clean.shape)
    error *= np.linalg.norm(clean) / np.linalg.norm(error)

    def loss(snr_db):
        return float(waveform_loss(clean + error * 10 ** (-snr_db / 20), clean)[0])

    assert loss(0.0) == pytest.approx(10 * np.log10(1 + 1e-3), abs=1e-3)
    assert loss(10.0) == pytest.approx(10 * np.log10(0.1 + 1e-3), abs=1e-3)
    assert loss(100.0) == pytest.approx(-30, abs=1e-2)


def test_the_squared_error_of_each_utterance():
    output = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    target = np.zeros_like(output)
    target[1] = output[1] + 2
    np.testing.assert_allclose(squared_error(output, target), [np.square(output[0]).mean(), 4])
