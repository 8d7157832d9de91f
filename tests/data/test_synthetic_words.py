"""Synthetic words: reproducible, voices apart, and told apart by order rather than by sounds."""

import numpy as np
import pytest

from dynse.audio.activity import active_level_db
from dynse.data import synthetic_words as module
from dynse.data.sequences import SPLITS
from dynse.data.synthetic_voices import split_voice
from dynse.data.synthetic_words import WORDS, say_word, synthetic_words


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def task(cache):
    return synthetic_words(train_per_word=16, valid_per_word=1, test_per_word=6, cache_dir=cache)


def raw(task, split):
    """id -> features before the standardisation."""
    part = getattr(task, split)
    return {
        name: features[:length] * task.std + task.mean
        for name, features, length in zip(part.ids, part.features, part.lengths, strict=True)
    }


def test_classes_and_splits(task):
    assert task.classes == WORDS
    for split, count in zip(SPLITS, (16, 1, 6), strict=True):
        part = getattr(task, split)
        assert np.bincount(part.labels).tolist() == [count] * 10
        assert part.features.shape[2] == 24
        for label, name in zip(part.labels, part.ids, strict=True):
            assert name.startswith(f"{split}/{WORDS[label]}-")
    voices = [set(getattr(task, split).groups) for split in SPLITS]
    assert sum(map(len, voices)) == len(set.union(*voices))


def test_the_voice_does_not_tell_the_word(task):
    """Even voices are low, odd ones high: each word has as many of both."""
    for part in (task.train, task.test):
        for label in range(10):
            of_word = part.groups[part.labels == label]
            assert len(set(of_word)) == len(of_word)
            assert sum(int(name.removeprefix("voice-")) % 2 for name in of_word) == len(of_word) / 2


def test_a_clip_is_a_function_of_the_seed_and_its_own_number(task, tmp_path):
    sizes = {"train_per_word": 2, "valid_per_word": 1, "test_per_word": 1}
    fewer = synthetic_words(**sizes, cache_dir=tmp_path)
    more = raw(task, "train")
    for name, frames in raw(fewer, "train").items():
        np.testing.assert_allclose(frames, more[name], atol=1e-3)
    other = synthetic_words(1, **sizes, cache_dir=tmp_path)
    assert other.fingerprint != fewer.fingerprint
    assert len(list(tmp_path.iterdir())) == 2


def test_a_second_call_makes_nothing(task, cache, monkeypatch):
    monkeypatch.setattr(module, "say_word", None)
    again = synthetic_words(train_per_word=16, valid_per_word=1, test_per_word=6, cache_dir=cache)
    assert again.fingerprint == task.fingerprint


def test_words_of_a_family_differ_in_the_order_of_their_sounds():
    families = {}
    for word in WORDS:
        families.setdefault("".join(sorted(word)), []).append(word)
    assert sorted(map(len, families.values())) == [3, 3, 4]
    assert len(set(WORDS)) == 10


def quarters(part):
    """Means over the four quarters of each sequence, (N, 4 D)."""
    return np.array([
        np.concatenate([quarter.mean(0) for quarter in np.array_split(row[:length], 4)])
        for row, length in zip(part.features, part.lengths, strict=True)
    ])  # fmt: skip


def accuracy(task, describe, classes):
    """Of a ridge regression onto classes, trained and tested on the splits so named."""
    points = [describe(part) for part in (task.train, task.test)]
    train, test = (np.append(p, np.ones((len(p), 1)), axis=1) for p in points)
    wanted = np.eye(10)[classes[task.train.labels]]
    weights = np.linalg.solve(train.T @ train + 30 * np.eye(train.shape[1]), train.T @ wanted)
    return np.mean((test @ weights).argmax(1) == classes[task.test.labels])


def test_the_mean_spectrum_tells_the_family_and_only_the_sequence_the_word(task):
    def mean_spectrum(part):
        return part.features.sum(1) / part.lengths[:, None]

    words = np.arange(10)
    family = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    by_mean, by_order = (accuracy(task, by, words) for by in (mean_spectrum, quarters))
    assert accuracy(task, mean_spectrum, family) > 0.6
    assert by_mean < 0.5
    assert by_order > by_mean + 0.1


def test_noise_is_as_loud_as_drawn(monkeypatch):
    voice = split_voice(0, "train", 4)
    takes = {}
    for snr_db in (0.0, 100.0):
        monkeypatch.setattr(module, "SNR_DB", (snr_db, snr_db))
        takes[snr_db] = say_word("tolu", voice, np.random.default_rng(3))
    speech = takes[100.0]
    noise = takes[0.0] - speech
    assert active_level_db(speech) == pytest.approx(active_level_db(noise), abs=0.01)


def test_wrong_numbers_are_refused(tmp_path):
    for options in ({"seed": -1}, {"valid_per_word": 0}):
        with pytest.raises(ValueError, match="expected seed >= 0 and clips in every split"):
            synthetic_words(**options, cache_dir=tmp_path)
