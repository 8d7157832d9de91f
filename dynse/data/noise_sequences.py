"""The class of a noise from a short segment of it, as a sequence task.

A recording is cut into segments at even distances; a segment more than 20 dB below the loudest of
its recording is passed over, so that silence padded to an event is no example of its class. Every
class has the same number of segments in a split, its recordings taking turns. The features are
relative to the segment's own level, so that level tells nothing about the class.

Splits share no recording. A class is used where it has enough recordings in the corpus' train and
test splits; where its validation split lacks some, the last recordings of its train split are
moved there: choices that are made on few recordings are made on luck.

Features, our choice: 24 mel bands of 60 Hz to 8 kHz, windows of 64 ms every 32 ms (frames twice as
long as those of the enhancer, in place of averaging two): 1.5 s are 46 frames.
"""

from __future__ import annotations

import numpy as np

from dynse.audio.mel import LogMel
from dynse.data.bank import Bank, Corpus
from dynse.data.sequences import SPLITS, Clip, SequenceTask, make_task
from dynse.data.testsets import loop

SAMPLE_RATE = 16000
FEATURES = LogMel(sample_rate=SAMPLE_RATE, win_length=1024, hop_length=512, bands=24)
_QUIET_DB = 20.0
_STEP = 320  # candidates for a segment's start lie 20 ms apart


def noise_classes(
    corpus: Corpus,
    *,
    segment_s: float = 1.5,
    train_per_class: int = 120,
    valid_per_class: int = 24,
    test_per_class: int = 48,
    min_recordings: int = 1,
    valid_recordings: int = 1,
) -> SequenceTask:
    """The noise classes of a corpus.

    Args:
        corpus: has noise in the splits "train", "valid" and "test".
        segment_s: seconds of a segment; a shorter recording is looped.
        train_per_class: most segments of each class in this split, likewise below; all classes
            have as many as the class with fewest distinct segments.
        valid_per_class: see train_per_class.
        test_per_class: see train_per_class.
        min_recordings: fewest recordings of a class in the train and test splits.
        valid_recordings: fewest in the validation split, which may take them from the train split.

    Returns:
        The task with recordings as groups and ids like "<recording>@<first sample>".

    Raises:
        KeyError: the corpus lacks a split.
        ValueError: a length or number that is not positive, or fewer than two classes with enough
            recordings.
    """
    counts = dict(zip(SPLITS, (train_per_class, valid_per_class, test_per_class), strict=True))
    if min(segment_s, min_recordings, valid_recordings, *counts.values()) <= 0:
        raise ValueError(
            "expected a segment, recordings and segments per class above 0, "
            f"got {segment_s}, {min_recordings}, {valid_recordings} and {counts}"
        )
    missing = [split for split in SPLITS if split not in corpus.noise]
    if missing:
        raise KeyError(f"the corpus {corpus.name!r} has no noise in the splits {missing}")
    recordings = {
        name: chosen
        for name in sorted(set(corpus.noise["train"].groups))
        if (chosen := _recordings(corpus, name, min_recordings, valid_recordings))
    }
    if len(recordings) < 2:
        raise ValueError(
            f"{corpus.name!r} has {len(recordings)} noise classes with {min_recordings} or more "
            "recordings in every split: expected at least 2"
        )
    length = round(segment_s * SAMPLE_RATE)
    clips: dict[str, list[Clip]] = {}
    for split in SPLITS:
        segments = [
            _segments(by_split[split], length, counts[split], label)
            for label, by_split in enumerate(recordings.values())
        ]
        fewest = min(len(of_class) for of_class in segments)
        clips[split] = [clip for of_class in segments for clip in of_class[:fewest]]
    return make_task(f"{corpus.name}-noise-classes", tuple(recordings), clips)


def _recordings(
    corpus: Corpus, noise_class: str, fewest: int, valid: int
) -> dict[str, list[tuple[Bank, int]]] | None:
    """The recordings (bank, index) of a class by split; None where it has too few."""
    found = {
        split: [(bank, index) for index, g in enumerate(bank.groups) if g == noise_class]
        for split, bank in ((split, corpus.noise[split]) for split in SPLITS)
    }
    while len(found["valid"]) < valid and len(found["train"]) > fewest:
        found["valid"].append(found["train"].pop())
    enough = {"train": fewest, "valid": valid, "test": fewest}
    return found if all(len(found[split]) >= enough[split] for split in SPLITS) else None


def _segments(recordings: list[tuple[Bank, int]], length: int, most: int, label: int) -> list[Clip]:
    """At most so many segments of one class, its recordings taking turns."""
    each = -(-most // len(recordings))
    starts = [_starts(bank, index, length, each) for bank, index in recordings]
    clips = []
    for turn in range(each):
        for (bank, index), of_recording in zip(recordings, starts, strict=True):
            if turn < len(of_recording) and len(clips) < most:
                start = int(of_recording[turn])
                samples = loop(bank, index, start, length) / 32768.0
                name = bank.names[index]
                clips.append(Clip(FEATURES(samples), label, name, f"{name}@{start}"))
    return clips


def _starts(bank: Bank, index: int, length: int, most: int) -> np.ndarray:
    """First samples of at most so many segments, evenly spread over those that are loud enough."""
    samples = bank.recording(index).astype(np.float64)
    candidates = np.arange(0, max(1, samples.size - length + 1), _STEP)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples))])
    power = energy[np.minimum(candidates + length, samples.size)] - energy[candidates]
    loud = candidates[power >= power.max() * 10 ** (-_QUIET_DB / 10)]
    picks = np.linspace(0, loud.size - 1, min(most, loud.size)).round().astype(int)
    return loud[picks]
