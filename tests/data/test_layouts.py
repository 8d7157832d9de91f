"""Published corpora are opened as they lie on the disk: splits, groups, pairs, what is left out."""

import hashlib
import logging
import shutil

import numpy as np
import pytest
import soundfile
import soxr
from data.published import added, dns_challenge, speech, voicebank, write

from dynse.data import folders
from dynse.data.folders import folder_corpus
from dynse.data.layouts import VALID_SHARE, list_corpus

TRAIN, TEST = "clean_trainset_28spk_wav", "clean_testset_wav"


def open_corpus(root, **options):
    return folder_corpus(root, cache_dir=root.parent / "cache", progress=False, **options)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return voicebank(tmp_path_factory.mktemp("voicebank") / "vb")


@pytest.fixture(scope="module")
def opened(published):
    return open_corpus(published)


@pytest.fixture
def root(published, tmp_path):
    """A copy to be changed."""
    return shutil.copytree(published, tmp_path / "vb")


def stored(bank, index):
    return np.rint(bank.recording(index) * 32768).astype(int)


def test_voicebank_has_its_splits_and_speakers(opened):
    assert opened.name == "vb"
    assert opened.pairs == {"train", "valid", "test"}
    speakers = {split: sorted(set(bank.groups)) for split, bank in opened.speech.items()}
    assert speakers == {
        "train": ["p227", "p228"],
        "valid": ["p226", "p287"],
        "test": ["p232", "p257"],
    }
    assert opened.speech["valid"].names[:2] == (f"{TRAIN}/p226_001.wav", f"{TRAIN}/p226_002.wav")
    for split, bank in opened.speech.items():
        assert bank.names == opened.noise[split].names
        assert bank.groups == opened.noise[split].groups
        np.testing.assert_array_equal(bank.offsets, opened.noise[split].offsets)
    assert opened.skipped == ()


def test_the_log_tells_noise_and_snr(opened):
    assert opened.attributes == {
        f"{TEST}/p232_001.wav": {"noise_class": "bus", "snr_db": "17.5"},
        f"{TEST}/p232_002.wav": {"noise_class": "living", "snr_db": "2.5"},
        f"{TEST}/p257_001.wav": {"noise_class": "cafe", "snr_db": "-7.5"},
    }
    classes = [opened.noise_class("test", index) for index in range(5)]
    assert classes == ["bus", "living", "noise", "cafe", "noise"]


def test_stored_clean_and_noise_add_up_to_the_resampled_noisy_file(opened, published):
    for split, seed in (("test", 8), ("valid", 0)):  # seeds of p232_001 and p226_001
        speech_bank, noise_bank = opened.speech[split], opened.noise[split]
        for index, name in enumerate(speech_bank.names):
            clean, noisy = (
                soxr.resample(soundfile.read(path, dtype="float32")[0], 48000, 16000, "VHQ")
                for path in (published / name, published / name.replace("clean", "noisy"))
            )
            np.testing.assert_array_equal(stored(speech_bank, index), np.rint(clean * 32768))
            total = stored(speech_bank, index) + stored(noise_bank, index)
            np.testing.assert_array_equal(total, np.rint(noisy * 32768))
        # and the noise is what was added, but for the rounding of four files
        length = noise_bank.length(0)
        expected = 32768 * soxr.resample(added(seed, length / 16000, 48000), 48000, 16000, "VHQ")
        np.testing.assert_allclose(stored(noise_bank, 0), expected, atol=3)


def test_pairs_that_cannot_be_used_are_named_and_the_others_stay(root, caplog):
    clean, noisy = root / TRAIN, root / "noisy_trainset_28spk_wav"
    samples, rate = soundfile.read(noisy / "p227_001.wav")
    write(noisy / "p227_001.wav", samples[:-300], rate)
    shutil.copy(clean / "p227_002.wav", noisy / "p227_002.wav")
    write(clean / "p228_001.wav", np.zeros_like(samples), rate)
    write(noisy / "p228_001.wav", samples, rate)
    (noisy / "p226_001.wav").unlink()
    (clean / "p287_001.wav").unlink()
    (noisy / "p226_002.wav").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        corpus = open_corpus(root)
    length = round(len(samples) / 3)
    assert {skip.path: skip.reason for skip in corpus.skipped} == {
        f"{TRAIN}/p226_001.wav": "has no noisy partner",
        "noisy_trainset_28spk_wav/p287_001.wav": "has no clean partner",
        "noisy_trainset_28spk_wav/p227_001.wav": (
            f"has {length - 100} samples, its clean file has {length}"
        ),
        "noisy_trainset_28spk_wav/p227_002.wav": "holds no noise: it equals its clean file",
        f"{TRAIN}/p228_001.wav": "is digital silence",
        "noisy_trainset_28spk_wav/p226_002.wav": "is empty (0 bytes)",
    }
    assert len(corpus.skipped) == 6
    assert corpus.speech["train"].names == corpus.noise["train"].names
    assert corpus.speech["train"].names == (f"{TRAIN}/p228_002.wav",)
    assert corpus.speech["valid"].names == (f"{TRAIN}/p287_002.wav",)
    assert "vb: skipped 6 files: " in caplog.text
    assert "files resampled from 48000 to 16000 Hz" in caplog.text


def test_noise_beyond_full_scale_is_limited_with_a_notice(root, caplog):
    tone = 0.9 * np.sin(np.arange(8000))
    write(root / TRAIN / "p227_001.wav", tone, 16000)
    write(root / "noisy_trainset_28spk_wav/p227_001.wav", -tone, 16000)
    with caplog.at_level(logging.WARNING):
        noise = open_corpus(root).noise["train"]
    assert "vb: 1 file noise limited to full scale" in caplog.text
    raw = np.rint(-1.8 * np.sin(np.arange(8000)) * 32768)
    np.testing.assert_allclose(stored(noise, 0), raw.clip(-32768, 32767), atol=1.01)


def test_other_speakers_are_held_out_by_name_and_it_is_said(tmp_path, caplog):
    root = voicebank(tmp_path / "vb", "trainset_56spk", ("p239", "p234", "p374", "p226"))
    with caplog.at_level(logging.WARNING):
        listing = list_corpus(root)
    assert {file.group for file in listing.speech["valid"]} == {"p226", "p234"}
    assert {file.group for file in listing.speech["train"]} == {"p239", "p374"}
    assert "p226 and p287 are not both there; p226 and p234, the first two by name" in caplog.text
    # where both sets are there the smaller is taken
    voicebank(root)
    listing = list_corpus(root)
    assert {file.group for file in listing.speech["train"]} == {"p227", "p228"}


def test_logs_may_be_missing_and_a_new_one_is_read(root):
    (root / "log_testset.txt").unlink()
    corpus = open_corpus(root)
    assert corpus.attributes == {}
    (root / "log_trainset_28spk.txt").write_text("p227_001 kitchen 5\n")
    again = open_corpus(root)
    assert again.attributes == {f"{TRAIN}/p227_001.wav": {"noise_class": "kitchen", "snr_db": "5"}}
    assert again.fingerprint == corpus.fingerprint


def test_a_second_opening_decodes_nothing_but_a_changed_noisy_file(root, monkeypatch):
    first = open_corpus(root)

    def never(*args, **options):
        raise AssertionError("decoded again")

    monkeypatch.setattr(folders, "decode_audio", never)
    again = open_corpus(root)
    assert (again.fingerprint, again.pairs) == (first.fingerprint, first.pairs)
    write(root / "noisy_testset_wav/p232_001.wav", added(0, 0.5, 48000), 48000)
    with pytest.raises(AssertionError, match="decoded again"):
        open_corpus(root)


def test_splits_can_be_left_out(root):
    shutil.rmtree(root / TRAIN)
    corpus = open_corpus(root, splits=("test",))
    assert set(corpus.speech) == corpus.pairs == {"test"}
    with pytest.raises(FileNotFoundError, match=f"no folder .*{TRAIN}.*VoiceBank"):
        open_corpus(root)


def test_the_dns_challenge_has_readers_and_a_hashed_share(tmp_path):
    root = dns_challenge(tmp_path / "dns")
    listing = list_corpus(root)
    speakers = {split: {file.group for file in files} for split, files in listing.speech.items()}
    everyone = {f"reader_{reader:05d}" for reader in range(60)} | {"singers", "alone"}
    assert speakers["train"] | speakers["valid"] == everyone
    assert speakers["train"] & speakers["valid"] == set()
    small = {
        name
        for name in everyone
        if int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32 < VALID_SHARE
    }
    assert speakers["valid"] == small
    assert 0 < len(small) < 10
    noise = listing.noise
    assert len(noise["train"]) + len(noise["valid"]) == 31
    assert noise["valid"]
    assert {file.group for file in (*noise["train"], *noise["valid"])} == {"noise", "door"}
    # who is held out stays held out when others come
    dns_challenge(root, readers=range(60, 70))
    later = {file.group for file in list_corpus(root).speech["valid"]}
    assert later - {f"reader_{reader:05d}" for reader in range(60, 70)} == small


def test_one_reader_and_one_noise_file_are_held_out_at_least(tmp_path):
    root = dns_challenge(tmp_path / "dns", readers=(), noises=1)
    listing = list_corpus(root)
    assert len({file.group for file in listing.speech["valid"]}) == 1
    assert len(listing.noise["valid"]) == len(listing.noise["train"]) == 1


def test_the_dns_test_set_is_paired_by_fileid(tmp_path):
    root = dns_challenge(tmp_path / "dns", readers=range(3))
    test = root / "datasets/test_set/synthetic/no_reverb"
    write(test / "noisy/clnsp3_snr4_fileid_88.wav", speech(0, 0.1, 16000), 16000)
    corpus = open_corpus(root)
    assert corpus.pairs == {"test"}
    prefix = "datasets/test_set/synthetic/no_reverb"
    names = tuple(f"{prefix}/clean/clean_fileid_{number}.wav" for number in (10, 2, 7))
    assert corpus.speech["test"].names == corpus.noise["test"].names == names
    for index, seed in enumerate((701, 700, 702)):
        expected = 32768 * added(seed, 0.4, 16000)
        np.testing.assert_allclose(stored(corpus.noise["test"], index), expected, atol=1.01)
    assert corpus.attributes == {names[0]: {"snr_db": "-3"}, names[1]: {"snr_db": "12"}}
    (skip,) = corpus.skipped
    assert skip.path == f"{prefix}/noisy/clnsp3_snr4_fileid_88.wav"
    assert skip.reason == "has no clean partner"
    assert set(corpus.noise["train"].groups) <= {"noise", "door"}


def test_a_folder_of_no_layout_names_all_three(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        open_corpus(tmp_path / "empty")
    for part in ("clean/<split>/<speaker>", "VoiceBank+DEMAND", "DNS Challenge", "datasets/noise"):
        assert part in str(caught.value)


def test_what_a_layout_lacks_is_named(tmp_path):
    root = dns_challenge(tmp_path / "dns", readers=range(2), noises=2)
    shutil.rmtree(root / "datasets/test_set")
    with pytest.raises(FileNotFoundError, match=r"no folder .*no_reverb/clean\. Expected"):
        list_corpus(root)
    for path in (root / "datasets/clean").rglob("*.wav"):
        if "reader_00000" not in path.name:
            path.unlink()
    with pytest.raises(FileNotFoundError, match=r"for the speech of the split 'train'\. Expected"):
        list_corpus(root, ("train", "valid"))


def test_the_key_of_our_own_layout_is_the_one_that_caches_were_made_under(tmp_path):
    root = tmp_path / "tiny"
    expected = hashlib.sha256(b"1 1 16000 tiny\n")
    for kind, folder, group in (("speech", "clean", "ann"), ("noise", "noise", "rain")):
        for split in ("train", "valid", "test"):
            name = f"{folder}/{split}/{group}/a.wav"
            write(root / name, speech(0, 0.1, 16000), 16000)
            status = (root / name).stat()
            expected.update(f"{kind} {split}\n".encode())
            expected.update(f"{name}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    (root / "manifest.csv").write_text("path,gender\nclean/train/ann/a.wav,F\n")
    expected.update((root / "manifest.csv").read_bytes())
    assert open_corpus(root).pairs == frozenset()
    (cache,) = (tmp_path / "cache").iterdir()
    assert cache.name == f"tiny-{expected.hexdigest()[:16]}"
