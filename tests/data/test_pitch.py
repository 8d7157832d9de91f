"""F0 of recordings: pYIN against glides that are known, the corpus' own truth, and the cache."""

import numpy as np
import pytest

from dynse.data import pitch
from dynse.data.bank import Bank
from dynse.data.pitch import HIGHEST_HZ, HOP_LENGTH, LOWEST_HZ, Pitch, bank_pitch, estimate_pitch
from dynse.data.synthetic import speech_recording

RATE = 16000


def tone(f0_hz):
    """Twelve harmonics of a fundamental (n,) in Hz."""
    phase = 2 * np.pi * np.cumsum(f0_hz) / RATE
    return 0.1 * sum(np.sin(k * phase) / k for k in range(1, 13))


def bank(recordings, tracks=()):
    samples = [np.round(32767 * part).astype(np.int16) for part in recordings]
    offsets = np.concatenate([[0], np.cumsum([part.size for part in samples])])
    names = tuple(f"clean/test/ann/{n}.wav" for n in range(len(samples)))
    return Bank(np.concatenate(samples), offsets, names, ("ann",) * len(samples), dict(tracks))


def cents(found, expected):
    return 1200 * np.log2(found / expected)


def centres(count):
    """Sample at the centre of each value of pYIN's tracks."""
    return HOP_LENGTH * np.arange(count) + HOP_LENGTH // 2


def test_a_glide_up_and_down_is_followed_without_delay():
    pytest.importorskip("librosa")
    # an octave in half a second, and back: 24 cents from one value to the next
    time = np.arange(RATE) / RATE
    f0_hz = 110 * 2 ** (1 - np.abs(2 * time - 1))
    found = estimate_pitch(tone(f0_hz))
    assert found.dtype == np.float32
    assert found.shape == (100,)
    # away from the ends and from the turn, where 40 ms hold two directions
    inside = np.r_[5:46, 54:95]
    assert (found[inside] > 0).all()

    def error(shift):
        return cents(found[inside], f0_hz[centres(100)[inside + shift]])

    # pYIN's steps are 10 cents
    assert np.median(np.abs(error(0))) < 5
    assert np.abs(error(0)).max() < 15
    # neither early nor late: rise and fall would be off in opposite directions
    delay = np.median(error(0)[:41]) - np.median(error(0)[41:])
    assert abs(delay) < 6
    for shift in (-1, 1):
        assert np.median(np.abs(error(shift))) > 15
        assert abs(np.median(error(shift)[:41]) - np.median(error(shift)[41:])) > 30


@pytest.mark.parametrize("f0_hz", [LOWEST_HZ * 1.05, 97.3, 233.0, HIGHEST_HZ * 0.95])
def test_the_range_is_reached_and_octaves_are_not_mistaken(f0_hz):
    pytest.importorskip("librosa")
    found = estimate_pitch(tone(np.full(4800, f0_hz)))
    assert np.abs(cents(found[4:-4], f0_hz)).max() < 10


def test_noise_and_silence_are_unvoiced():
    pytest.importorskip("librosa")
    hiss = np.random.default_rng(0).normal(size=8000) * 0.01
    signal = np.concatenate([tone(np.full(4000, 150.0)), hiss, tone(np.full(4003, 190.0))])
    found = estimate_pitch(signal)
    assert found.shape == (101,)
    assert np.mean(found[30:70] == 0) > 0.8
    assert np.abs(cents(found[4:20], 150)).max() < 10
    assert np.abs(cents(found[80:96], 190)).max() < 10
    assert not estimate_pitch(np.zeros(3000)).any()
    assert estimate_pitch(np.zeros(1)).shape == (1,)


def test_the_truth_of_a_corpus_passes_through(monkeypatch, tmp_path):
    monkeypatch.setattr(pitch, "estimate_pitch", lambda samples: pytest.fail("not needed"))
    said = [speech_recording(0, "test", 1, number, 1.5) for number in range(2)]
    tracks = {key: np.concatenate([r.tracks[key] for r in said]) for key in ("f0_hz", "voice")}
    spoken = bank([recording.samples / 32767 for recording in said], tracks)
    found = bank_pitch(spoken, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert tracks["f0_hz"].any()
    for name, recording in zip(spoken.names, said, strict=True):
        samples = np.arange(recording.samples.size)
        np.testing.assert_array_equal(
            found.at(name, samples), np.repeat(recording.tracks["f0_hz"], 80)
        )


def test_pitch_is_asked_by_recording_and_sample():
    track = np.array([100, 0, 120], np.float32)
    made = Pitch({"a": track}, 160)
    asked = np.array([[0, 159], [160, 319], [320, 479]])
    np.testing.assert_array_equal(made.at("a", asked), [[100, 100], [0, 0], [120, 120]])
    assert made.at("a", np.zeros(0, int)).shape == (0,)
    for outside in (-1, 480):
        with pytest.raises(ValueError, match=f"within the 480 samples of a, got {outside}"):
            made.at("a", np.array([outside]))
    with pytest.raises(KeyError, match="no pitch of 'b' among 1 recordings"):
        made.at("b", asked)


@pytest.fixture
def five(monkeypatch):
    """Five recordings, two to a file, and a cheap stand-in for pYIN that counts its calls."""
    calls = []

    def first_sample(samples):
        calls.append(len(samples))
        return np.full(-(-len(samples) // HOP_LENGTH), samples[0], np.float32)

    monkeypatch.setattr(pitch, "_CHUNK", 2)
    monkeypatch.setattr(pitch, "estimate_pitch", first_sample)
    return bank([np.full(200 + 100 * n, 0.1 * (n + 1)) for n in range(5)]), calls


def test_tracks_are_computed_once_and_read_back(five, tmp_path):
    recordings, calls = five
    for _ in range(2):
        found = bank_pitch(recordings, cache_dir=tmp_path, progress=False)
        assert found.hop_length == HOP_LENGTH
        assert tuple(found.tracks) == recordings.names
        for index, track in enumerate(found.tracks.values()):
            assert track.shape == ((200 + 100 * index + 159) // 160,)
            np.testing.assert_array_equal(track, recordings.recording(index)[0])
    assert calls == [200, 300, 400, 500, 600]
    (folder,) = tmp_path.iterdir()
    assert sorted(file.name for file in folder.iterdir()) == [
        "00000.npy", "00002.npy", "00004.npy",
    ]  # fmt: skip


def test_the_key_is_that_of_content_and_settings(five, tmp_path, monkeypatch):
    recordings, calls = five
    changed = recordings.samples.copy()
    changed[-1] ^= 1
    louder = Bank(changed, recordings.offsets, recordings.names, recordings.groups)
    renamed = Bank(
        recordings.samples,
        recordings.offsets,
        (*recordings.names[:-1], "clean/test/ann/5.wav"),
        recordings.groups,
    )
    for number, other in enumerate((recordings, louder, renamed), 1):
        bank_pitch(other, cache_dir=tmp_path, progress=False)
        assert len(calls) == 5 * number
    monkeypatch.setattr(pitch, "LOWEST_HZ", 70.0)
    bank_pitch(recordings, cache_dir=tmp_path, progress=False)
    assert len(calls) == 20


def test_a_killed_run_goes_on_with_the_files_that_are_missing(five, tmp_path, monkeypatch):
    recordings, calls = five
    whole = pitch.estimate_pitch

    def killed(samples):
        if len(samples) == 500:
            raise KeyboardInterrupt
        return whole(samples)

    monkeypatch.setattr(pitch, "estimate_pitch", killed)
    with pytest.raises(KeyboardInterrupt):
        bank_pitch(recordings, cache_dir=tmp_path, progress=False)
    assert calls == [200, 300, 400]
    monkeypatch.setattr(pitch, "estimate_pitch", whole)
    found = bank_pitch(recordings, cache_dir=tmp_path, progress=False)
    assert calls == [200, 300, 400, 400, 500, 600]
    for index, track in enumerate(found.tracks.values()):
        np.testing.assert_array_equal(track, recordings.recording(index)[0])


def test_a_damaged_file_is_named(five, tmp_path):
    recordings, _ = five
    bank_pitch(recordings, cache_dir=tmp_path, progress=False)
    (path,) = tmp_path.glob("*/00002.npy")
    whole = path.read_bytes()
    for damaged in (b"", whole[:-4], whole[:20], b"no array at all"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"00002\.npy is damaged .*delete it"):
            bank_pitch(recordings, cache_dir=tmp_path, progress=False)
    np.save(path, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"damaged \(expected \(7,\) float32, got \(3,\)"):
        bank_pitch(recordings, cache_dir=tmp_path, progress=False)
    path.unlink()
    bank_pitch(recordings, cache_dir=tmp_path, progress=False)
    assert path.read_bytes() == whole
