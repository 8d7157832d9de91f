"""The cache gives back what was put in, is whole or absent, and says why it refuses."""

import errno
import hashlib
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from dynse.data import cache
from dynse.data.bank import Bank, Recording, Skipped
from dynse.data.cache import default_cache_dir, load_corpus, save_corpus


def recording(name, group, length=800, seed=0, tracks=False):
    rng = np.random.default_rng([seed, length])
    samples = rng.integers(-32768, 32768, length).astype(np.int16)
    if not tracks:
        return Recording(name, group, samples)
    voice = rng.integers(0, 2, length // 80).astype(bool)
    f0_hz = rng.uniform(80, 300, length // 80).astype(np.float32)
    return Recording(name, group, samples, {"voice": voice, "f0_hz": f0_hz})


def speech():
    return [
        recording("c/1.wav", "ann", 800, tracks=True),
        recording("c/3.wav", "ann", 1600, tracks=True),
        recording("c/2.wav", "bob", 80, tracks=True),
    ]


def noise():
    return [recording("n/1.wav", "rain", 1001)]


def save(directory, **options):
    save_corpus(
        directory,
        **{"name": "tiny", "speech": {"train": speech()}, "noise": {"train": noise()}} | options,
    )


def test_what_goes_in_comes_out(tmp_path):
    skipped = [Skipped("c/4.wav", "is empty (0 bytes)")]
    save(tmp_path / "a", skipped=skipped, attributes={"c/1.wav": {"gender": "F"}})
    corpus = load_corpus(tmp_path / "a")
    assert corpus.name == "tiny"
    assert corpus.skipped == tuple(skipped)
    assert corpus.attributes == {"c/1.wav": {"gender": "F"}}
    train = corpus.speech["train"]
    assert isinstance(train.samples, np.memmap)
    assert train.names == ("c/1.wav", "c/3.wav", "c/2.wav")
    assert train.groups == ("ann", "ann", "bob")
    np.testing.assert_array_equal(train.offsets, [0, 800, 2400, 2480])
    for index, expected in enumerate(speech()):
        np.testing.assert_array_equal(train.recording(index) * 32768, expected.samples)
        assert train.recording(index).dtype == np.float32
        assert train.length(index) == expected.samples.size
        for track in ("voice", "f0_hz"):
            start, stop = train.offsets[index] // 80, train.offsets[index + 1] // 80
            np.testing.assert_array_equal(train.tracks[track][start:stop], expected.tracks[track])
    assert corpus.noise["train"].tracks == {}
    assert corpus.noise["train"].length(0) == 1001


def test_groups_and_names_are_found(tmp_path):
    save(tmp_path / "a")
    train = load_corpus(tmp_path / "a").speech["train"]
    assert train.group_spans() == {"ann": (0, 2400), "bob": (2400, 2480)}
    assert train.index_of("c/2.wav") == 2
    assert len(train) == 3
    with pytest.raises(KeyError, match=r"no recording 'c/9.wav'"):
        train.index_of("c/9.wav")


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    save(tmp_path / "a")
    save(tmp_path / "elsewhere" / "b", name="other")
    assert (
        load_corpus(tmp_path / "a").fingerprint
        == load_corpus(tmp_path / "elsewhere" / "b").fingerprint
    )
    changed = noise()
    changed[0].samples[500] ^= 1
    save(tmp_path / "c", noise={"train": changed})
    assert load_corpus(tmp_path / "c").fingerprint != load_corpus(tmp_path / "a").fingerprint


def test_the_fingerprint_is_the_hash_that_is_documented(tmp_path):
    save(tmp_path / "a", speech={"train": [recording("c/1.wav", "ann")]})
    expected = hashlib.sha256()
    for stem, part in (("speech", recording("c/1.wav", "ann")), ("noise", noise()[0])):
        head = f"{stem}-train\n{part.group}\t{part.name}\t{part.samples.size}\n"
        expected.update(head.encode() + part.samples.tobytes())
    assert load_corpus(tmp_path / "a").fingerprint == expected.hexdigest()


def test_samples_are_read_as_plain_npy_and_cannot_be_written(tmp_path):
    save(tmp_path / "a")
    plain = np.load(tmp_path / "a" / "speech-train.npy")
    np.testing.assert_array_equal(plain, np.concatenate([r.samples for r in speech()]))
    with pytest.raises(ValueError, match="read-only"):
        load_corpus(tmp_path / "a").speech["train"].samples[0] = 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "no recording for speech-train"),
        ([recording("b", "x"), recording("a", "x")], "not sorted"),
        ([recording("a", "x"), recording("a", "x")], "not sorted"),
        ([Recording("a", "x", np.zeros(80, np.float32))], "must be .n,. int16"),
        ([Recording("a", "x", np.zeros(0, np.int16))], "must be .n,. int16"),
        ([recording("a", "x", tracks=True), recording("b", "x")], "expected the tracks"),
        (
            [Recording("a", "x", np.zeros(81, np.int16), {"voice": np.zeros(1, bool)})],
            "81 samples need 80 to each value",
        ),
    ],
)
def test_ill_formed_recordings_are_refused_and_leave_nothing(tmp_path, parts, message):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "a", speech={"train": parts})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("a", "a")}, "unique"),
        ({"groups": ("y", "x")}, "sorted"),
        ({"groups": ("x",)}, "as many groups"),
        ({"offsets": np.array([0, 10, 30])}, "end at 30 of 20"),
        ({"offsets": np.array([0, 0, 20])}, "rise"),
        ({"samples": np.zeros(20)}, "int16"),
        ({"tracks": {"voice": np.zeros(1)}}, "track 'voice'"),
    ],
)
def test_a_bank_checks_itself(change, message):
    fine = {
        "samples": np.zeros(20, np.int16),
        "offsets": np.array([0, 10, 20]),
        "names": ("a", "b"),
        "groups": ("x", "x"),
    }
    Bank(**fine)
    with pytest.raises(ValueError, match=message):
        Bank(**(fine | change))


def test_a_full_disk_names_folder_and_bytes_and_leaves_nothing(tmp_path, monkeypatch):
    def full(path, mode):
        return open("/dev/full", mode)

    monkeypatch.setattr(cache, "open", full, raising=False)
    with pytest.raises(OSError, match=r"no space left for the corpus cache .*/a: ") as caught:
        save(tmp_path / "a", bytes_needed=6123)
    assert caught.value.errno == errno.ENOSPC
    assert "it needs 6123 bytes" in str(caught.value)
    assert "DYNSE_CACHE" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    save(tmp_path / "a")
    assert len(load_corpus(tmp_path / "a").speech["train"]) == 3


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path):
    def never():
        raise AssertionError("a recording was taken")
        yield

    with pytest.raises(OSError, match=f"needs {10**18} bytes"):
        save(tmp_path / "a", speech={"train": never()}, bytes_needed=10**18)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_build_leaves_nothing(tmp_path):
    def interrupted():
        yield speech()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "a", speech={"train": interrupted()})
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_is_removed_at_the_next_one_and_a_running_one_is_not(tmp_path):
    code = (
        "import os, signal, sys, numpy as np\n"
        "from dynse.data.bank import Recording\nfrom dynse.data.cache import save_corpus\n"
        "def killed():\n"
        "    yield Recording('a', 'x', np.ones(80, np.int16))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_corpus(sys.argv[1], name='t', speech={'train': killed()}, noise={})"
    )
    process = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], check=False)
    assert process.returncode == -9
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".building-a-")
    with pytest.raises(FileNotFoundError, match="no corpus cache"):
        load_corpus(tmp_path / "a")
    running = tmp_path / f".building-a-{socket.gethostname()}-{os.getppid()}"
    running.mkdir()
    save(tmp_path / "a")
    assert {path.name for path in tmp_path.iterdir()} == {"a", running.name}


def test_a_second_builder_leaves_the_first_ones_cache(tmp_path):
    def late():
        save(tmp_path / "a", name="first")
        yield from speech()

    # both run in this process here, so the inner one must not share the build folder
    original = os.getpid
    pids = iter([1, 2])
    cache.os.getpid = lambda: next(pids)
    try:
        save(tmp_path / "a", name="second", speech={"train": late()})
    finally:
        cache.os.getpid = original
    assert load_corpus(tmp_path / "a").name == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_loading_refuses_another_version_and_a_damaged_cache(tmp_path):
    save(tmp_path / "a")
    index = json.loads((tmp_path / "a" / "index.json").read_text())
    (tmp_path / "a" / "index.json").write_text(json.dumps(index | {"version": 0}))
    with pytest.raises(ValueError, match="has version 0, expected 1: delete the folder"):
        load_corpus(tmp_path / "a")
    save(tmp_path / "b")
    content = (tmp_path / "b" / "speech-train.npy").read_bytes()
    (tmp_path / "b" / "speech-train.npy").write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"damaged .*delete the folder"):
        load_corpus(tmp_path / "b")


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DYNSE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "dynse"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "dynse"
    monkeypatch.setenv("DYNSE_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"
