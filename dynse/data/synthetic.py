"""The embedded default: a synthetic corpus made from a seed, without any download.

Speech of drawn voices (`synthetic_voices`, `synthetic_speech`) and noise of sixteen classes
(`synthetic_noise`). Every recording has a random stream of its own, keyed by (seed, split, kind,
voice or class, number): it does not depend on how many others there are or in which order they are
made, voices and noise realisations are disjoint per split, and the same seed gives the same bits on
one machine. Babble is made of voices of its own split.

The banks carry exact ground truth: the voice and the noise class as groups, and for speech the
tracks "f0_hz" and "voice" every 5 ms (`synthetic_speech`).

The corpus is made once and cached under a key of its settings and `GENERATOR_VERSION`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dynse.audio.files import to_int16
from dynse.data.bank import Corpus, Recording
from dynse.data.cache import CACHE_VERSION, default_cache_dir, load_corpus, save_corpus
from dynse.data.synthetic_noise import NOISE_CLASSES, make_noise
from dynse.data.synthetic_speech import speak
from dynse.data.synthetic_vocal_tract import SAMPLE_RATE, TRACK_HOP
from dynse.data.synthetic_voices import SPLITS, VOICES_PER_SPLIT, split_voice, stream

# To be raised with every change that alters the samples: caches of other versions are not used.
GENERATOR_VERSION = 2

# A voice gets at least this much, so that its recordings can be joined to mixtures of 8 s.
_SHORTEST_VOICE_S = 9.0
_BABBLE_VOICES = 3


@dataclass(frozen=True)
class SyntheticSize:
    """How much is made; of noise there is as much as of speech.

    Attributes:
        train: minutes of speech in this split, likewise below.
        valid: see train.
        test: see train.
        recording_s: mean length of a recording in seconds.
    """

    train: float = 30.0
    valid: float = 3.0
    test: float = 5.0
    recording_s: float = 10.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0.0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.recording_s < 2.0:
            raise ValueError(f"recording_s must be at least 2, got {self.recording_s}")


SMOKE_SIZE = SyntheticSize(train=0.4, valid=0.2, test=0.2, recording_s=4.0)


def synthetic_corpus(
    *,
    seed: int = 0,
    minutes: SyntheticSize = SyntheticSize(),
    cache_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> Corpus:
    """The synthetic corpus, from the cache or made now (about 40 s on two cores by default).

    Args:
        seed: draws voices, utterances and noises; >= 0.
        minutes: how much of each split.
        cache_dir: where caches lie; `default_cache_dir()` if None.
        progress: show a bar while it is made.

    Returns:
        The corpus, memory-mapped from its cache.

    Raises:
        ValueError: for a negative seed, or a damaged cache.
        OSError: if the cache cannot be written.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    key = {
        "seed": seed,
        "size": asdict(minutes),
        "generator": GENERATOR_VERSION,
        "cache": CACHE_VERSION,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    directory = root / f"synthetic-{digest[:16]}"
    try:
        return load_corpus(directory)
    except FileNotFoundError:
        _make(directory, seed, minutes, progress)
    return load_corpus(directory)


def speech_recording(seed: int, split: str, voice: int, number: int, seconds: float) -> Recording:
    """One recording of speech, from its random stream.

    Args:
        seed: the corpus' seed.
        split: "train", "valid" or "test".
        voice: number of the voice within the split.
        number: number of the recording within the voice.
        seconds: mean length; the drawn one differs by up to about a third.

    Returns:
        Named "speech/<split>/<voice>/<number>", with tracks "f0_hz" and "voice".
    """
    speaker = split_voice(seed, split, voice)
    rng = stream(seed, split, "speech", voice, number)
    # The last phrase is finished: about 1.2 s more than asked for.
    length_s = max(1.0, seconds * rng.uniform(0.8, 1.2) - 1.2)
    said = speak(speaker, rng, length_s)
    name = f"speech/{split}/{speaker.name}/{number:04d}"
    tracks = {"f0_hz": said.f0_hz, "voice": said.voice}
    return Recording(name, speaker.name, to_int16(said.samples), tracks)


def noise_recording(
    seed: int, split: str, noise_class: str, number: int, seconds: float
) -> Recording:
    """One recording of noise, from its random stream.

    Args:
        seed: the corpus' seed.
        split: "train", "valid" or "test"; babble uses voices of this split.
        noise_class: one of NOISE_CLASSES.
        number: number of the recording within the class.
        seconds: mean length; the drawn one differs by up to a fifth.

    Returns:
        Named "noise/<split>/<class>/<number>".
    """
    rng = stream(seed, split, "noise", NOISE_CLASSES.index(noise_class), number)
    n = int(seconds * rng.uniform(0.8, 1.2) * SAMPLE_RATE) // TRACK_HOP * TRACK_HOP
    voices = None
    if noise_class == "babble":
        chosen = rng.choice(VOICES_PER_SPLIT[split], _BABBLE_VOICES, replace=False)
        voices = [
            speak(split_voice(seed, split, int(v)), rng, 0.6 * seconds).samples for v in chosen
        ]
    samples = make_noise(noise_class, rng, n, voices)
    return Recording(f"noise/{split}/{noise_class}/{number:04d}", noise_class, to_int16(samples))


def _plan(minutes: SyntheticSize, split: str) -> tuple[list[tuple], list[tuple]]:
    """(voice, number) of all speech and (class, number) of all noise, sorted by group and name."""
    total_s = 60.0 * getattr(minutes, split)
    count = max(1, round(total_s / minutes.recording_s))
    voices = int(np.clip(total_s // _SHORTEST_VOICE_S, 1, min(count, VOICES_PER_SPLIT[split])))
    classes = min(count, len(NOISE_CLASSES))
    # Numbers of voices rise with their names; classes are sorted by name afterwards.
    speech = sorted((i % voices, i // voices) for i in range(count))
    noise = sorted((NOISE_CLASSES[i % classes], i // classes) for i in range(count))
    return speech, noise


@contextmanager
def _progress(show: bool, count: int) -> Iterator[Callable[[], None]]:
    """A bar of `count` steps; gives the function that takes one. Without it rich is not needed."""
    if not show:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress() as bar:
        task = bar.add_task("synthetic corpus", total=count)
        yield lambda: bar.advance(task)


def _make(directory: Path, seed: int, minutes: SyntheticSize, show: bool) -> None:
    plans = {split: _plan(minutes, split) for split in SPLITS}
    count = sum(len(speech) + len(noise) for speech, noise in plans.values())
    total_s = 2.0 * 60.0 * (minutes.train + minutes.valid + minutes.test)
    # Threads: NumPy's loops and FFTs release the lock, and no program has to be guarded for
    # being started again, as with processes.
    workers = min(4, os.cpu_count() or 1)
    with _progress(show, count) as advance, ThreadPoolExecutor(workers) as executor:
        speech, noise = {}, {}
        seconds = minutes.recording_s

        def collect(futures: list[Future]) -> Iterator[Recording]:
            for index, future in enumerate(futures):
                yield future.result()
                futures[index] = None  # the cache has it: let go of the samples
                advance()

        for split, (spoken, noises) in plans.items():
            speech[split] = collect(
                [executor.submit(speech_recording, seed, split, *s, seconds) for s in spoken]
            )
            noise[split] = collect(
                [executor.submit(noise_recording, seed, split, *s, seconds) for s in noises]
            )
        try:
            save_corpus(
                directory,
                name="synthetic",
                speech=speech,
                noise=noise,
                attributes=_attributes(seed, plans),
                bytes_needed=int(1.1 * total_s * 2 * SAMPLE_RATE),
            )
        finally:
            executor.shutdown(cancel_futures=True)


def _attributes(seed: int, plans: dict) -> dict[str, dict[str, str]]:
    """What is known of each recording of speech: register, mean F0 and tract of its voice."""
    result = {}
    for split, (speech, _) in plans.items():
        for number, recording in speech:
            voice = split_voice(seed, split, number)
            result[f"speech/{split}/{voice.name}/{recording:04d}"] = {
                "register": voice.register,
                "f0_hz": f"{voice.f0_hz:.1f}",
                "tract_cm": f"{voice.tract_cm:.2f}",
            }
    return result
