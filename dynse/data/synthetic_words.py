"""The embedded default of spoken words: ten pseudo-words of synthetic voices, without any download.

The words are three families of anagrams, each word two syllables of a consonant and a vowel:

    sami misa masi sima    luto tolu lotu    neka kane nake

so the words of a family hold the same sounds and differ in their order alone: the mean spectrum
tells the family, only the sequence the word. Every clip has a voice of its split (no voice is in
two splits), a rate, a stress, a melody and pauses of its own, and noise of a drawn class at 0 to
20 dB. The sounds come from the source-filter model of the synthetic corpus (`synthetic_speech`),
and each clip has a random stream of its own: it does not depend on how many others there are.

Features, our choice: 24 mel bands of 60 Hz to 8 kHz at 16 kHz, windows of 32 ms every 20 ms,
relative to the clip's level: about 24 frames.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from dynse.audio.activity import active_level_db
from dynse.audio.mel import LogMel
from dynse.data.cache import default_cache_dir
from dynse.data.sequences import (
    CLIPS_VERSION,
    SPLITS,
    Clip,
    SequenceTask,
    cached_clips,
    make_task,
)
from dynse.data.synthetic import GENERATOR_VERSION
from dynse.data.synthetic_noise import NOISE_CLASSES, make_noise
from dynse.data.synthetic_phonemes import CONSONANTS, VOWELS, Sound, pause
from dynse.data.synthetic_speech import articulate
from dynse.data.synthetic_vocal_tract import SAMPLE_RATE, render
from dynse.data.synthetic_voices import VOICES_PER_SPLIT, Voice, split_voice, stream

WORDS = ("sami", "misa", "masi", "sima", "luto", "tolu", "lotu", "neka", "kane", "nake")
FEATURES = LogMel(sample_rate=SAMPLE_RATE, win_length=512, hop_length=320, bands=24)
SNR_DB = (0.0, 20.0)
_VERSION = 1  # to be raised when the same seed would give other clips
# Babble is made of voices: it would need utterances of its own.
_BACKGROUNDS = tuple(name for name in NOISE_CLASSES if name != "babble")


def synthetic_words(
    seed: int = 0,
    *,
    train_per_word: int = 100,
    valid_per_word: int = 20,
    test_per_word: int = 30,
    cache_dir: str | os.PathLike | None = None,
) -> SequenceTask:
    """The words, from the cache or made now (about 15 s on one core by default).

    Args:
        seed: draws voices and clips; >= 0.
        train_per_word: clips of each word in this split, likewise below.
        valid_per_word: see train_per_word.
        test_per_word: see train_per_word.
        cache_dir: where caches lie; `default_cache_dir()` if None.

    Returns:
        The task with WORDS as classes, voices as groups, ids like "test/sami-007".

    Raises:
        ValueError: for a negative seed or a split without clips.
        OSError: the cache cannot be written; nothing is left behind.
    """
    counts = dict(zip(SPLITS, (train_per_word, valid_per_word, test_per_word), strict=True))
    if seed < 0 or min(counts.values()) < 1:
        raise ValueError(f"expected seed >= 0 and clips in every split, got {seed} and {counts}")
    settings = (CLIPS_VERSION, _VERSION, GENERATOR_VERSION, FEATURES, SNR_DB)
    key = hashlib.sha256(f"{settings} {WORDS} {seed} {counts}".encode()).hexdigest()
    path = Path(cache_dir or default_cache_dir()) / f"synthetic-words-{key[:16]}.npz"

    def make() -> tuple[list[Clip], list]:
        return [
            _clip(seed, split, word, number)
            for split in SPLITS
            for word in range(len(WORDS))
            for number in range(counts[split])
        ], []

    clips, _ = cached_clips(path, make)
    splits = {
        split: [clip for clip in clips if clip.id.startswith(f"{split}/")] for split in SPLITS
    }
    return make_task("synthetic-words", WORDS, splits)


def say_word(word: str, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """A word in noise.

    Args:
        word: one of WORDS.
        voice: who says it.
        rng: source of all choices; equal states give equal bits.

    Returns:
        (N,) float32 at 16 kHz, without a defined level.
    """
    voice = replace(voice, rate=voice.rate * float(np.exp(rng.normal(0.0, 0.15))))
    track = articulate(_sounds(word, voice, rng), [1], voice, rng)
    speech = render(track, voice, rng)
    noise = make_noise(_BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))], rng, len(speech))
    gain_db = active_level_db(speech) - active_level_db(noise) - rng.uniform(*SNR_DB)
    return speech + np.float32(10 ** (gain_db / 20)) * noise


def _clip(seed: int, split: str, word: int, number: int) -> Clip:
    # Low and high voices alternate, for every word alike: the register tells nothing.
    at = (number + word) % VOICES_PER_SPLIT[split]
    voice = split_voice(seed, split, at)
    samples = say_word(WORDS[word], voice, stream(seed, split, "speech", at, word, number))
    return Clip(FEATURES(samples), word, voice.name, f"{split}/{WORDS[word]}-{number:03d}")


def _sounds(word: str, voice: Voice, rng: np.random.Generator) -> list[Sound]:
    """The sounds of a word between two pauses, with duration, loudness and accent filled in."""
    sounds = [pause(rng, 0.03, 0.15)]
    # The stress is drawn too, so that it does not give the order away.
    stressed = int(rng.integers(2))
    for syllable, (consonant, vowel) in enumerate((word[:2], word[2:])):
        nucleus = VOWELS[vowel]
        is_stressed = syllable == stressed
        loudness_db = rng.normal(0.0, 1.2) - (0.0 if is_stressed else 2.5)
        accent = rng.uniform(1.0, 5.0) if is_stressed else 0.0
        for sound in (*CONSONANTS[consonant], *nucleus):
            f1, f2, f3 = sound.formants_hz
            _, vowel_f2, vowel_f3 = nucleus[0].formants_hz
            chance = np.exp(rng.normal(0.0, 0.16))
            sounds.append(
                replace(
                    sound,
                    # A consonant takes over a share of the vowel's formants; a vowel has its own.
                    formants_hz=(
                        f1,
                        f2 + sound.follows * (vowel_f2 - f2),
                        f3 + sound.follows * (vowel_f3 - f3),
                    ),
                    duration_ms=sound.duration_ms * voice.rate * chance,
                    loudness_db=loudness_db,
                    accent=accent if sound in nucleus else 0.0,
                )
            )
    return [*sounds, pause(rng, 0.03, 0.15)]
