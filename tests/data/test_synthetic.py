"""The synthetic corpus as a whole: names, splits, truth, cache and speed."""

import hashlib
import time

import numpy as np
import pytest

from dynse.data import synthetic
from dynse.data.synthetic import (
    SMOKE_SIZE,
    SyntheticSize,
    noise_recording,
    speech_recording,
    synthetic_corpus,
)
from dynse.data.synthetic_noise import NOISE_CLASSES
from dynse.data.synthetic_voices import SPLITS, VOICES_PER_SPLIT


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def corpus(cache):
    return synthetic_corpus(minutes=SMOKE_SIZE, cache_dir=cache, progress=False)


def test_names_groups_and_tracks(corpus):
    assert corpus.name == "synthetic"
    for split in SPLITS:
        bank = corpus.speech[split]
        assert all(
            name.startswith(f"speech/{split}/{group}/")
            for name, group in zip(bank.names, bank.groups, strict=True)
        )
        assert np.all(bank.offsets % 80 == 0)
        assert set(bank.tracks) == {"f0_hz", "voice"}
        assert bank.tracks["f0_hz"].dtype == np.float32
        assert bank.tracks["voice"].dtype == bool
        assert len(bank.tracks["voice"]) == bank.offsets[-1] // 80
        voiced = bank.tracks["f0_hz"] > 0
        assert 0.4 < voiced.mean() < 0.85
        for index in range(len(bank)):
            samples = bank.recording(index)
            assert 0.01 < np.max(np.abs(samples)) < 1.0
            assert corpus.attributes[bank.names[index]]["register"] in ("low", "high")
        noise = corpus.noise[split]
        assert set(noise.groups) <= set(NOISE_CLASSES)
        assert all(name.startswith(f"noise/{split}/") for name in noise.names)


def test_size_is_about_what_was_asked_for(corpus):
    for split in SPLITS:
        asked_s = 60 * getattr(SMOKE_SIZE, split)
        for banks in (corpus.speech, corpus.noise):
            assert len(banks[split].samples) / 16000 == pytest.approx(asked_s, rel=0.4)


def test_splits_share_no_voice_and_no_recording(corpus):
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not set(corpus.speech[a].groups) & set(corpus.speech[b].groups)
    for banks in (corpus.speech, corpus.noise):
        digests = [
            hashlib.sha256(bank.recording(i)[:16000].tobytes()).hexdigest()
            for bank in banks.values()
            for i in range(len(bank))
        ]
        assert len(set(digests)) == len(digests)
    # The same class and number in another split is another realisation.
    for noise_class in NOISE_CLASSES:
        x, y = (
            noise_recording(0, split, noise_class, 0, 2.0).samples[:24000].astype(float)
            for split in ("train", "test")
        )
        n = 2 ** int(np.ceil(np.log2(len(x) + len(y))))
        cross = np.fft.irfft(np.fft.rfft(x, n) * np.conj(np.fft.rfft(y, n)))
        assert np.max(np.abs(cross)) < 0.95 * np.linalg.norm(x) * np.linalg.norm(y), noise_class


def test_every_voice_is_used_by_the_default_size():
    for split in SPLITS:
        speech, noise = synthetic._plan(SyntheticSize(), split)
        assert {voice for voice, _ in speech} == set(range(VOICES_PER_SPLIT[split]))
        assert {noise_class for noise_class, _ in noise} == set(NOISE_CLASSES)


def test_a_recording_depends_on_nothing_but_its_key(corpus):
    bank = corpus.speech["train"]
    index = bank.index_of("speech/train/voice-01/0001")
    alone = speech_recording(0, "train", 1, 1, SMOKE_SIZE.recording_s)
    span = slice(bank.offsets[index], bank.offsets[index + 1])
    assert np.array_equal(bank.samples[span], alone.samples)
    half = slice(span.start // 80, span.stop // 80)
    assert np.array_equal(bank.tracks["f0_hz"][half], alone.tracks["f0_hz"])
    assert np.array_equal(bank.tracks["voice"][half], alone.tracks["voice"])


def test_same_seed_same_fingerprint_other_seed_another(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic.os, "cpu_count", lambda: 1)
    again = synthetic_corpus(minutes=SMOKE_SIZE, cache_dir=tmp_path, progress=False)
    assert again.fingerprint == corpus.fingerprint
    other = synthetic_corpus(seed=1, minutes=SMOKE_SIZE, cache_dir=tmp_path, progress=False)
    assert other.fingerprint != corpus.fingerprint
    assert len(list(tmp_path.iterdir())) == 2


def test_the_second_call_only_loads(corpus, cache, monkeypatch):
    def refuse(*args):
        raise AssertionError("made again")

    monkeypatch.setattr(synthetic, "_make", refuse)
    again = synthetic_corpus(minutes=SMOKE_SIZE, cache_dir=cache)
    assert again.fingerprint == corpus.fingerprint
    # Another size, seed or generator is not taken for it.
    with pytest.raises(AssertionError, match="made again"):
        synthetic_corpus(seed=1, minutes=SMOKE_SIZE, cache_dir=cache)
    monkeypatch.setattr(synthetic, "GENERATOR_VERSION", -1)
    with pytest.raises(AssertionError, match="made again"):
        synthetic_corpus(minutes=SMOKE_SIZE, cache_dir=cache)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("no more noise")

    monkeypatch.setattr(synthetic, "noise_recording", fail)
    with pytest.raises(RuntimeError, match="no more noise"):
        synthetic_corpus(minutes=SMOKE_SIZE, cache_dir=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_shows_its_progress(tmp_path, capsys):
    size = SyntheticSize(train=0.05, valid=0.05, test=0.05, recording_s=2.0)
    synthetic_corpus(minutes=size, cache_dir=tmp_path / "shown")
    assert "synthetic corpus" in capsys.readouterr().out
    synthetic_corpus(minutes=size, cache_dir=tmp_path / "silent", progress=False)
    assert capsys.readouterr().out == ""


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="train must be positive, got 0"):
        SyntheticSize(train=0.0)
    with pytest.raises(ValueError, match="recording_s must be at least 2"):
        SyntheticSize(recording_s=1.0)
    with pytest.raises(ValueError, match="seed must not be negative"):
        synthetic_corpus(seed=-1, cache_dir=tmp_path)


def test_is_much_faster_than_real_time():
    """Loose, and in time of the processor: the measured figure is near 100 (speech) and 130."""
    speech_recording(0, "train", 0, 0, 2.0)
    start = time.process_time()
    made_s = 0.0
    for k in range(4):
        made_s += len(speech_recording(0, "train", k, 0, 8.0).samples) / 16000
    for noise_class in NOISE_CLASSES:
        made_s += len(noise_recording(0, "train", noise_class, 0, 2.0).samples) / 16000
    assert made_s / (time.process_time() - start) > 20
