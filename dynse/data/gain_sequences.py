"""Speech enhancement as a sequence task: gains per mel band from log band energies.

Small enough for a GRU classifier's size: 32 mel bands of the 512/256 STFT at 16 kHz instead of 257
bins. Of a mixture Y = S + N with band energies E[.],

    feature x = 10 log10(max(E[Y], 1e-8)), standardised by the training split
    target  g = E[S] / (E[S] + E[N])

the ideal ratio gain, a Wiener filter per band (exponent 1 of the ideal ratio mask of Wang,
Narayanan and Wang, "On training targets for supervised speech separation", 2014; our choice: it
reaches 0.9 dB more SI-SDR than the usual exponent 1/2). Features are not relative to the clip's
level, which no causal system knows; 1e-8 is about the energy of the last bit of 16.

The task carries what its gains are judged with; `dynse.evaluation.band_gains` judges them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynse.audio.mel import band_power, mel_filterbank
from dynse.audio.stft import STFT
from dynse.data.bank import Corpus
from dynse.data.drawing import make_test_set
from dynse.data.sequences import SPLITS, fingerprint, frame_moments, pad_frames
from dynse.data.testsets import SAMPLE_RATE, Mixture, render

BANDS = 32
SHAPE = STFT(n_fft=512, win_length=512, hop_length=256)
FILTERBANK = mel_filterbank(BANDS, SHAPE.n_fft, SAMPLE_RATE)
SNRS_DB = (-5, 0, 5, 10, 15)
_FLOOR = 1e-8
_CHUNK = 16  # mixtures analysed at once


class GainSplit(NamedTuple):
    """One split, N mixtures padded to the T frames of the longest.

    Attributes:
        features: (N, T, 32) float32, standardised; frames from `lengths` on are 0.
        lengths: (N,) int32, valid frames of each.
        targets: (N, T, 32) float32 in 0 to 1; frames from `lengths` on are 0.
        groups: (N,) str, speakers.
        ids: (N,) str, unique within the task.
    """

    features: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    groups: np.ndarray
    ids: np.ndarray


class MixtureAudio(NamedTuple):
    """What gains for the mixtures of a split are judged with.

    Attributes:
        spectrum: (N, T, 257) complex64, the noisy STFT.
        clean: (N, S) float32, zeros after the last sample.
        samples: (N,) int32, valid samples of each.
    """

    spectrum: jax.Array
    clean: jax.Array
    samples: jax.Array


@dataclass(frozen=True, eq=False)
class GainTask:
    """Enhancement by gains per band.

    Attributes:
        name: for example "synthetic-gains".
        train: what is trained on; its frames give `mean` and `std`.
        valid: what a search looks at.
        test: what neither sees.
        valid_audio: judges gains for `valid`.
        test_audio: judges gains for `test`.
        mean: (32,) float32 in dB, subtracted from every frame.
        std: (32,) float32 in dB, divided by after that.
    """

    name: str
    train: GainSplit
    valid: GainSplit
    test: GainSplit
    valid_audio: MixtureAudio
    test_audio: MixtureAudio
    mean: np.ndarray
    std: np.ndarray

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over all arrays: says what a model was trained on."""
        audio = (np.asarray(a) for a in (*self.valid_audio, *self.test_audio))
        return fingerprint(*self.train, *self.valid, *self.test, *audio)


def gain_task(
    corpus: Corpus,
    *,
    seed: int = 0,
    train_per_snr: int = 96,
    valid_per_snr: int = 8,
    test_per_snr: int = 16,
) -> GainTask:
    """Mixtures of 3 to 4 s at -5, 0, 5, 10 and 15 dB, drawn from a corpus.

    Args:
        corpus: has speech and noise in the splits "train", "valid" and "test".
        seed: draws the mixtures.
        train_per_snr: mixtures of the training split at each SNR, likewise below.
        valid_per_snr: see train_per_snr.
        test_per_snr: see train_per_snr.

    Raises:
        KeyError: the corpus lacks a split.
    """
    counts = dict(zip(SPLITS, (train_per_snr, valid_per_snr, test_per_snr), strict=True))
    mixtures: dict[str, list[Mixture]] = {}
    for split, per_snr in counts.items():
        drawn = make_test_set(
            corpus,
            split,
            name=f"{corpus.name}-{split}-gains",
            seed=seed,
            snrs_db=SNRS_DB,
            per_snr=per_snr,
            min_s=3.0,
            max_s=4.0,
        )
        mixtures[split] = [render(spec, corpus) for spec in drawn]
    analysed = {split: _analyse(of_split) for split, of_split in mixtures.items()}
    mean, std = frame_moments([features for features, _ in analysed["train"]])
    splits = {split: _split(mixtures[split], analysed[split], mean, std) for split in SPLITS}
    return GainTask(
        f"{corpus.name}-gains",
        **splits,
        valid_audio=_audio(mixtures["valid"]),
        test_audio=_audio(mixtures["test"]),
        mean=mean,
        std=std,
    )


def band_features(spectrum: jax.Array) -> jax.Array:
    """Log band energies in dB, not standardised: complex (..., T, 257) to (..., T, 32)."""
    return 10 * jnp.log10(jnp.maximum(_energy(spectrum), _FLOOR))


def ideal_gains(clean: jax.Array, noise: jax.Array) -> jax.Array:
    """E[S] / (E[S] + E[N]) per band, 0 where both are silent: (..., T, 257) to (..., T, 32)."""
    speech = _energy(clean)
    total = speech + _energy(noise)
    return jnp.where(total > 0, speech / jnp.where(total > 0, total, 1.0), 0.0)


def _energy(spectrum: jax.Array) -> jax.Array:
    return band_power(jnp.square(spectrum.real) + jnp.square(spectrum.imag), FILTERBANK)


def _analyse(mixtures: list[Mixture]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features and targets (T_i, 32) of each mixture."""

    @jax.jit
    def analyse(
        noisy: jax.Array, clean: jax.Array, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        features = band_features(SHAPE.forward(noisy))
        return features, ideal_gains(SHAPE.forward(clean), SHAPE.forward(noise))

    longest = max(mixture.noisy.size for mixture in mixtures)
    found = []
    for start in range(0, len(mixtures), _CHUNK):
        chunk = mixtures[start : start + _CHUNK]
        # the last chunk is filled up, so that one program serves all
        full = [*chunk, *[chunk[0]] * (_CHUNK - len(chunk))]
        signals = (
            pad_frames([getattr(mixture, name) for mixture in full], longest)
            for name in ("noisy", "clean", "noise")
        )
        features, targets = map(np.asarray, analyse(*signals))
        for row, mixture in enumerate(chunk):
            frames = SHAPE.frames(mixture.noisy.size)
            found.append((features[row, :frames], targets[row, :frames]))
    return found


def _split(
    mixtures: list[Mixture],
    analysed: list[tuple[np.ndarray, np.ndarray]],
    mean: np.ndarray,
    std: np.ndarray,
) -> GainSplit:
    lengths = [len(features) for features, _ in analysed]
    return GainSplit(
        pad_frames([(features - mean) / std for features, _ in analysed], max(lengths)),
        np.array(lengths, np.int32),
        pad_frames([targets for _, targets in analysed], max(lengths)),
        np.array([mixture.speaker for mixture in mixtures]),
        np.array([mixture.id for mixture in mixtures]),
    )


def _audio(mixtures: list[Mixture]) -> MixtureAudio:
    samples = np.array([mixture.noisy.size for mixture in mixtures], np.int32)
    noisy, clean = (
        jnp.asarray(pad_frames([getattr(mixture, name) for mixture in mixtures], samples.max()))
        for name in ("noisy", "clean")
    )
    return MixtureAudio(SHAPE.forward(noisy), clean, jnp.asarray(samples))
