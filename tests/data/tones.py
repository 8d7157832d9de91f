"""A corpus of tones and noise, its gain task, and an STFT in NumPy to hold it against."""

import numpy as np

from dynse.data.bank import Bank, Corpus
from dynse.data.drawing import make_test_set
from dynse.data.gain_sequences import SHAPE, gain_task
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


def tones():
    """Two voices and a noise in each split."""
    splits = ("train", "valid", "test")
    speech = {s: bank(s, "voice", [voice(3 * n), voice(3 * n + 1)]) for n, s in enumerate(splits)}
    noise = {s: bank(s, "rain", [rain(n)]) for n, s in enumerate(splits)}
    return Corpus("tiny", "", speech, noise)


def small_task(corpus):
    """One mixture at each of five SNRs in each split."""
    return gain_task(corpus, train_per_snr=1, valid_per_snr=1, test_per_snr=1)


def valid_mixtures(corpus):
    """The mixtures of the validation split of `small_task`, drawn again."""
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


def spectrum(samples):
    """STFT in NumPy, float64: zeros before the first sample, whole hops after the last."""
    count = SHAPE.frames(samples.size)
    padded = np.zeros(256 * (count + 1))
    padded[256 : 256 + samples.size] = samples
    frames = np.stack([padded[256 * t : 256 * t + 512] for t in range(count)])
    return np.fft.rfft(frames * np.sin(np.pi * np.arange(512) / 512) ** 2)
