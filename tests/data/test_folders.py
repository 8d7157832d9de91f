"""Folder corpora: what is found, what is skipped and why, and when decoding happens again."""

import logging
import shutil

import numpy as np
import pytest
import soundfile

from dynse.data import cache, folders
from dynse.data.folders import folder_corpus

SPLITS = ("train", "valid", "test")


def sound(seconds=0.2, sample_rate=16000, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * sample_rate))


def write(path, samples=None, sample_rate=16000, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound() if samples is None else samples, sample_rate, **options)


@pytest.fixture
def root(tmp_path):
    for split in SPLITS:
        write(tmp_path / f"tiny/clean/{split}/{split}-ann/b.wav", sound(seed=1))
        write(tmp_path / f"tiny/clean/{split}/{split}-ann/a.flac", sound(seed=2))
        write(tmp_path / f"tiny/clean/{split}/{split}-bob/c.wav", sound(seed=3))
        write(tmp_path / f"tiny/noise/{split}/rain/{split}.wav", sound(seed=4))
    return tmp_path / "tiny"


def open_corpus(root, **options):
    return folder_corpus(root, cache_dir=root.parent / "cache", progress=False, **options)


def test_speakers_classes_and_samples(root):
    corpus = open_corpus(root)
    assert corpus.name == "tiny"
    assert set(corpus.speech) == set(corpus.noise) == set(SPLITS)
    train = corpus.speech["train"]
    assert train.names == (
        "clean/train/train-ann/a.flac",
        "clean/train/train-ann/b.wav",
        "clean/train/train-bob/c.wav",
    )
    assert train.groups == ("train-ann", "train-ann", "train-bob")
    for index, name in enumerate(train.names):
        stored, _ = soundfile.read(root / name, dtype="int16")
        np.testing.assert_array_equal(train.recording(index) * 32768, stored)
    assert corpus.noise["test"].groups == ("rain",)
    assert corpus.skipped == ()
    assert corpus.attributes == {}


def test_bad_files_are_named_counted_and_skipped(root, caplog):
    spk = root / "clean/train/train-ann"
    (spk / "empty.wav").touch()
    (spk / "stub.flac").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (spk / "garbage.wav").write_bytes(bytes(range(256)) * 20)
    (spk / "gone.wav").symlink_to(root / "nowhere.wav")
    write(spk / "short.wav", sound()[:500])
    write(spk / "silent.wav", np.zeros(4000))
    nan = sound()
    nan[10] = np.nan
    write(spk / "nan.wav", nan, subtype="FLOAT")
    (spk / "transcript.txt").write_text("not audio, not counted")
    (spk / ".hidden.wav").touch()
    with caplog.at_level(logging.WARNING):
        corpus = open_corpus(root)
    reasons = {skip.path: skip.reason for skip in corpus.skipped}
    assert {path.rsplit("/")[-1]: reason.split(":")[0] for path, reason in reasons.items()} == {
        "empty.wav": "is empty (0 bytes)",
        "garbage.wav": "cannot be decoded",
        "gone.wav": "does not exist",
        "nan.wav": "holds 1 NaN or infinite samples",
        "short.wav": "too short",
        "silent.wav": "is digital silence",
        "stub.flac": "is a Git LFS pointer, not audio",
    }
    assert len(corpus.speech["train"]) == 3
    assert "skipped 7 files: clean/train/train-ann/empty.wav is empty (0 bytes); " in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        again = open_corpus(root)
    assert again.skipped == corpus.skipped
    assert caplog.text.count("skipped 7 files") == 1


def test_conversions_are_counted(root, caplog):
    stereo = np.stack([sound(1.0, 44100), sound(1.0, 44100, seed=9)], 1)
    write(root / "clean/train/train-ann/stereo.wav", stereo, 44100)
    write(root / "clean/train/train-ann/slow.wav", sound(1.0, 8000), 8000)
    write(root / "clean/train/train-ann/slow2.wav", sound(1.0, 8000), 8000)
    with caplog.at_level(logging.WARNING):
        train = open_corpus(root).speech["train"]
    for name in ("stereo", "slow", "slow2"):
        length = train.length(train.index_of(f"clean/train/train-ann/{name}.wav"))
        assert abs(length - 16000) <= 1
    assert "tiny: 2 files resampled from 8000 to 16000 Hz" in caplog.text
    assert "tiny: 1 file averaged 2 channels" in caplog.text


def test_the_manifest_becomes_attributes(root):
    (root / "manifest.csv").write_text(
        "path,gender,notes\n"
        "clean/train/train-bob/c.wav,M,\n"
        "clean/train/nobody/x.wav,F,not on the disk\n"
    )
    assert open_corpus(root).attributes == {"clean/train/train-bob/c.wav": {"gender": "M"}}
    (root / "manifest.csv").write_text("file,gender\na,b\n")
    with pytest.raises(ValueError, match=r"manifest.csv: expected a column 'path'"):
        open_corpus(root)


def test_a_second_opening_decodes_nothing(root, monkeypatch):
    first = open_corpus(root)

    def never(*args, **options):
        raise AssertionError("decoded again")

    monkeypatch.setattr(folders, "decode_audio", never)
    again = open_corpus(root)
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.speech["train"].samples, first.speech["train"].samples)
    # and a changed file is
    write(root / "clean/train/train-ann/b.wav", sound(0.3))
    with pytest.raises(AssertionError, match="decoded again"):
        open_corpus(root)


def test_a_changed_corpus_has_another_fingerprint_and_a_moved_one_has_not(root):
    first = open_corpus(root)
    moved = root.rename(root.parent / "elsewhere")
    assert open_corpus(moved, name="tiny").fingerprint == first.fingerprint
    write(moved / "clean/train/train-ann/b.wav", sound(0.3))
    assert open_corpus(moved, name="tiny").fingerprint != first.fingerprint


@pytest.mark.parametrize("what", ["", "clean", "noise/valid"])
def test_a_missing_folder_says_what_was_expected(root, what):
    folder = root / what
    folder.rename(root.parent / "away")
    with pytest.raises(FileNotFoundError, match=r"no folder .*Expected .*/clean/<split>/<speaker>"):
        open_corpus(root)


def test_an_empty_split_says_what_was_expected(root):
    for path in (root / "noise/test/rain").iterdir():
        path.rename(root / "noise/test" / path.name)  # files outside of any class' folder
    with pytest.raises(FileNotFoundError, match=r"no audio file .*noise/<split>/<class>"):
        open_corpus(root)


def test_a_split_of_broken_files_alone_names_them(root):
    (root / "noise/test/rain/test.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no recording for noise-test; skipped 1 file: noise/te"):
        open_corpus(root)
    assert list((root.parent / "cache").iterdir()) == []


def test_a_full_disk_is_seen_from_the_headers(root, monkeypatch):
    full = shutil.disk_usage(root)._replace(free=76_799)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: full)
    # 12 files of 0.2 s at 16 kHz in two bytes
    with pytest.raises(OSError, match=r"needs 76800 bytes, 0 were written and 76799 are free"):
        open_corpus(root)
    assert list((root.parent / "cache").iterdir()) == []


def test_splits_can_be_left_out(root):
    (root / "clean/valid").rename(root.parent / "away")
    corpus = open_corpus(root, splits=("test",))
    assert set(corpus.speech) == {"test"}


def test_the_bar_moves_to_its_end(root, capsys):
    folder_corpus(root, cache_dir=root.parent / "cache")
    out = capsys.readouterr().out
    assert "decoding tiny" in out
    assert "100%" in out
