"""Gains per band: features and targets by loops."""

import numpy as np
import pytest
from data.tones import RATE, small_task, spectrum, tones, valid_mixtures

from dynse.audio.mel import mel_filterbank
from dynse.data.gain_sequences import BANDS, ideal_gains


@pytest.fixture(scope="module")
def corpus():
    return tones()


@pytest.fixture(scope="module")
def task(corpus):
    return small_task(corpus)


@pytest.fixture(scope="module")
def mixtures(corpus):
    return valid_mixtures(corpus)


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


def test_ideal_gains_of_silence_are_closed():
    silent = np.zeros((1, 257), np.complex64)
    loud = np.ones((1, 257), np.complex64)
    assert np.asarray(ideal_gains(silent, silent)).max() == 0
    np.testing.assert_allclose(ideal_gains(loud, silent), 1, rtol=1e-6)
    np.testing.assert_allclose(ideal_gains(loud, loud), 0.5, rtol=1e-6)
