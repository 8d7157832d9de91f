"""Noise classes: recordings apart, classes balanced, level and silence left out."""

import numpy as np
import pytest

from dynse.data.bank import Bank, Corpus
from dynse.data.noise_sequences import FEATURES, noise_classes

RATE = 16000


def coloured(seconds, seed, smooth):
    """Noise of a class: the longer the moving average, the darker."""
    samples = np.random.default_rng(seed).normal(size=round(seconds * RATE))
    samples = np.convolve(samples, np.ones(smooth), mode="same")
    return np.round(3000 * samples / samples.std()).clip(-32768, 32767).astype(np.int16)


def bank(split, recordings):
    """recordings: (class, samples), sorted by class."""
    names = tuple(f"{split}/{group}/{n:03d}" for n, (group, _) in enumerate(recordings))
    samples = [part for _, part in recordings]
    offsets = np.concatenate([[0], np.cumsum([part.size for part in samples])])
    return Bank(np.concatenate(samples), offsets, names, tuple(group for group, _ in recordings))


def make(counts, seconds=2.0):
    """counts: split -> class -> recordings."""
    smooth = {"bright": 1, "dark": 8, "middle": 3}
    noise = {
        split: bank(
            split,
            [
                (name, coloured(seconds, 100 * start + n, smooth[name]))
                for name, count in sorted(classes.items())
                for n in range(count)
            ],
        )
        for start, (split, classes) in enumerate(counts.items())
    }
    return Corpus("tiny", "", {}, noise)


@pytest.fixture
def corpus():
    return make({
        "train": {"bright": 3, "dark": 4, "middle": 2},
        "valid": {"bright": 2, "middle": 2},
        "test": {"bright": 2, "dark": 2, "middle": 1},
    })  # fmt: skip


SIZES = {"segment_s": 0.5, "train_per_class": 6, "valid_per_class": 2, "test_per_class": 4}


def test_classes_are_balanced_and_recordings_apart(corpus):
    task = noise_classes(corpus, **SIZES)
    assert task.classes == ("bright", "dark", "middle")
    seen = []
    for split, count in (("train", 6), ("valid", 2), ("test", 4)):
        part = getattr(task, split)
        assert np.bincount(part.labels).tolist() == [count] * 3
        assert part.features.shape[1:] == (FEATURES.frames(8000), 24)
        seen.append(set(part.groups))
        for label, group, name in zip(part.labels, part.groups, part.ids, strict=True):
            assert task.classes[label] in group
            recording, _, start = name.partition("@")
            assert recording == group
            assert 0 <= int(start) <= 2 * RATE - 8000
    assert sum(map(len, seen)) == len(set.union(*seen))
    # the class without a recording for validation got the last one of its training split
    assert [group for group in seen[1] if "dark" in group] == ["train/dark/006"]
    # recordings take turns: 6 segments of 3 recordings of one class are 2 of each
    assert set(np.unique(task.train.groups, return_counts=True)[1]) == {2, 3}


def test_classes_need_recordings_enough(corpus):
    task = noise_classes(corpus, **SIZES, min_recordings=2, valid_recordings=2)
    assert task.classes == ("bright", "dark")
    assert [len(set(part.groups)) for part in (task.train, task.valid, task.test)] == [5, 4, 4]
    with pytest.raises(ValueError, match="'tiny' has 0 noise classes with 3 or more recordings"):
        noise_classes(corpus, **SIZES, min_recordings=3)


def test_level_tells_nothing(corpus):
    first = noise_classes(corpus, **SIZES)
    louder = {}
    for split, noise in corpus.noise.items():
        samples = noise.samples.copy()
        for index in range(len(noise)):
            start, stop = noise.offsets[index : index + 2]
            samples[start:stop] //= 1 + index  # another level for every recording
        louder[split] = Bank(samples, noise.offsets, noise.names, noise.groups)
    second = noise_classes(Corpus("tiny", "", {}, louder), **SIZES)
    np.testing.assert_array_equal(first.test.ids, second.test.ids)
    np.testing.assert_allclose(first.test.features, second.test.features, atol=0.05)
    assert first.fingerprint != second.fingerprint


def test_silence_around_an_event_is_passed_over():
    event = coloured(0.6, 1, 1)
    padded = np.concatenate([np.zeros(RATE, np.int16), event, np.zeros(2 * RATE, np.int16)])
    steady = coloured(3.6, 2, 8)
    noise = {
        s: bank(s, [("event", padded), ("steady", steady)]) for s in ("train", "valid", "test")
    }
    sizes = {"train_per_class": 9, "valid_per_class": 9, "test_per_class": 9}
    task = noise_classes(Corpus("tiny", "", {}, noise), segment_s=0.5, **sizes)
    starts = {
        name: [int(n.partition("@")[2]) for n in task.test.ids if f"/{name}/" in n]
        for name in ("event", "steady")
    }
    assert max(starts["steady"]) > 2.5 * RATE
    for start in starts["event"]:
        # at least a hundredth of the event's energy, thus of its samples, is heard
        heard = min(start + 8000, RATE + event.size) - max(start, RATE)
        assert heard >= 0.008 * 8000
    assert min(starts["event"]) < RATE - 7000
    assert len(set(starts["event"])) == 9


def test_short_recordings_are_looped_and_limit_the_others():
    noise = {
        split: bank(split, [("bright", coloured(0.2, seed, 1)), ("dark", coloured(2, seed, 8))])
        for seed, split in enumerate(("train", "valid", "test"))
    }
    task = noise_classes(Corpus("tiny", "", {}, noise), **SIZES)
    # a recording shorter than a segment gives one, and classes stay balanced
    assert np.bincount(task.train.labels).tolist() == [1, 1]
    samples = np.resize(noise["train"].recording(0), 8000)
    found = task.train.features[0] * task.std + task.mean
    np.testing.assert_allclose(found, FEATURES(samples), atol=1e-3)


def test_wrong_arguments_are_refused(corpus):
    with pytest.raises(ValueError, match=r"above 0, got 0\.5, 0, 1 and"):
        noise_classes(corpus, **SIZES, min_recordings=0)
    partly = Corpus("tiny", "", {}, {"train": corpus.noise["train"]})
    with pytest.raises(KeyError, match=r"no noise in the splits \['valid', 'test'\]"):
        noise_classes(partly, **SIZES)
