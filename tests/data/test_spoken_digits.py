"""Spoken digits from a folder: splits, held-out speakers, bad files, the cache."""

import logging
import shutil

import numpy as np
import pytest
import soundfile

from dynse.data import spoken_digits as module
from dynse.data.spoken_digits import FEATURES, MAX_FRAMES, spoken_digits

SPEAKERS = ("ann", "bob", "cem")
INDICES = (0, 4, 5, 9, 10, 27)


def tone(hz, seconds=0.3, sample_rate=8000):
    samples = np.random.default_rng(round(hz)).normal(size=round(seconds * sample_rate))
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(samples.size) / sample_rate) + 0.01 * samples


@pytest.fixture
def folder(tmp_path):
    for number, speaker in enumerate(SPEAKERS):
        (tmp_path / "digits" / speaker).mkdir(parents=True)
        for digit in range(2):
            for index in INDICES:
                path = tmp_path / "digits" / speaker / f"{digit}_{index:02d}.flac"
                soundfile.write(path, tone(500 + 1000 * digit + 100 * number + index), 8000)
    return tmp_path / "digits"


def read(folder, **options):
    return spoken_digits(folder, cache_dir=folder.parent / "cache", **options)


def indices(split):
    return {int(name[-7:-5]) for name in split.ids}


def test_the_split_by_index(folder):
    task = read(folder)
    assert task.classes == tuple("0123456789")
    assert task.skipped == ()
    expected = {"test": {0, 4}, "valid": {5, 9}, "train": {10, 27}}
    for name, of_split in expected.items():
        split = getattr(task, name)
        assert indices(split) == of_split
        assert split.features.shape == (12, FEATURES.frames(2400), 24)
        assert set(split.groups) == set(SPEAKERS)
        for group, label, name in zip(split.groups, split.labels, split.ids, strict=True):
            assert name.startswith(f"{group}/{label}_")


def test_features_are_those_of_the_file(folder):
    task = read(folder)
    name = "bob/1_27.flac"
    samples, rate = soundfile.read(folder / name)
    assert rate == FEATURES.sample_rate
    row = task.train.ids.tolist().index(name)
    found = task.train.features[row] * task.std + task.mean
    np.testing.assert_allclose(found, FEATURES(samples), atol=1e-3)


def test_held_out_speakers_are_the_test_set(folder):
    task = read(folder, held_out=("ann",))
    assert set(task.test.groups) == {"ann"}
    assert indices(task.test) == set(INDICES)
    assert set(task.valid.groups) == {"cem"}  # the last of the others
    assert indices(task.valid) == set(INDICES)
    assert set(task.train.groups) == {"bob"}
    assert indices(task.train) == {5, 9, 10, 27}
    assert task.fingerprint != read(folder).fingerprint
    with pytest.raises(ValueError, match=r"speakers \['ann', 'bob', 'cem'\], got \['dan'\]"):
        read(folder, held_out=("ann", "dan"))
    with pytest.raises(ValueError, match="the split 'train' has no clip"):
        read(folder, held_out=SPEAKERS)


def test_bad_files_are_named_counted_and_skipped(folder, caplog):
    ann = folder / "ann"
    (ann / "0_11.flac").touch()
    (ann / "0_12.wav").write_bytes(bytes(range(256)) * 20)
    (ann / "0_13.wav").symlink_to(folder / "nowhere.wav")
    soundfile.write(ann / "0_14.wav", np.zeros(4000), 8000)
    soundfile.write(ann / "0_15.wav", tone(300)[:200], 8000)
    soundfile.write(ann / "ten_1.wav", tone(300), 8000)
    (ann / "notes.txt").write_text("not audio, not counted")
    with caplog.at_level(logging.WARNING):
        task = read(folder)
    reasons = {skip.path: skip.reason.split(":")[0] for skip in task.skipped}
    assert reasons == {
        "ann/0_11.flac": "is empty (0 bytes)",
        "ann/0_12.wav": "cannot be decoded",
        "ann/0_13.wav": "does not exist",
        "ann/0_14.wav": "is digital silence",
        "ann/0_15.wav": "too short",
        "ann/ten_1.wav": "is not named <digit>_<index>",
    }
    assert "skipped 6 files: ann/0_11.flac is empty (0 bytes); " in caplog.text
    assert len(task.train.ids) == 12
    assert read(folder).skipped == task.skipped


def test_other_rates_and_long_clips(folder):
    soundfile.write(folder / "ann/0_30.wav", tone(700, 1.5, 16000), 16000)
    task = read(folder)
    row = task.train.ids.tolist().index("ann/0_30.wav")
    assert task.train.lengths[row] == task.train.features.shape[1] == MAX_FRAMES
    found = task.train.features[row] * task.std + task.mean
    # the tone lies in the same band at either rate
    assert (found.argmax(1) == FEATURES(tone(700)).argmax(1)[0]).all()


def test_a_second_call_decodes_nothing_and_a_changed_file_is_seen(folder, monkeypatch):
    first = read(folder)

    def never(*args, **options):
        raise AssertionError("decoded again")

    decode = module.decode_audio
    monkeypatch.setattr(module, "decode_audio", never)
    assert read(folder).fingerprint == first.fingerprint
    read(folder, held_out=("bob",))  # another split of the same features
    soundfile.write(folder / "ann/0_10.flac", tone(900, 0.4), 8000)
    with pytest.raises(AssertionError, match="decoded again"):
        read(folder)
    monkeypatch.setattr(module, "decode_audio", decode)
    assert read(folder).fingerprint != first.fingerprint


def test_a_missing_folder_says_what_was_expected(folder):
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match=r"Expected .*<speaker>/<digit>_<index>.flac"):
        read(folder)
    folder.mkdir()
    soundfile.write(folder / "0_00.wav", tone(300), 8000)  # in no speaker's folder
    with pytest.raises(FileNotFoundError, match="no audio file in a folder below"):
        read(folder)
