"""Drawn test sets keep their promises on lengths, balance and repeatability."""

import dataclasses
import importlib.util
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dynse.data import testsets
from dynse.data.bank import Bank, Corpus
from dynse.data.drawing import make_test_set
from dynse.data.folders import folder_corpus
from dynse.data.testsets import render, write_csv

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def bank(kind, lengths_s, seed):
    """White noise; lengths_s: group -> seconds of each of its recordings."""
    rng = np.random.default_rng(seed)
    recordings = [
        (group, f"{kind}/test/{group}/{index}.wav", round(16000 * seconds))
        for group, lengths in sorted(lengths_s.items())
        for index, seconds in enumerate(lengths)
    ]
    offsets = np.concatenate([[0], np.cumsum([length for _, _, length in recordings])])
    return Bank(
        rng.integers(-5000, 5000, offsets[-1]).astype(np.int16),
        offsets,
        tuple(name for _, name, _ in recordings),
        tuple(group for group, _, _ in recordings),
    )


SPEECH = {
    "long": [15.0],
    "fits": [7.0],
    "pairs": [3.9, 4.0, 3.5],
    "acted-1": [2.0] * 8,
    "acted-2": [2.0] * 8,
    "little": [2.5],
    "awkward": [5.9, 12.0],
}
NOISE = {"rain": [30.0], "dog": [5.0, 5.0, 4.0], "street": [10.0, 7.9], "wind": [6.5]}


@pytest.fixture(scope="module")
def corpus():
    return Corpus("tiny", "", {"test": bank("clean", SPEECH, 0)}, {"test": bank("noise", NOISE, 1)})


@pytest.fixture(scope="module")
def drawn(corpus):
    return draw(corpus)


def draw(corpus, seed=0, **options):
    return make_test_set(corpus, "test", name="tiny-test-v1", seed=seed, **options)


def speakers(test_set):
    return [spec.speech[0].split("/")[2] for spec in test_set]


def classes(test_set):
    return [spec.noise.split("/")[2] for spec in test_set]


def test_lengths_are_kept_and_mixtures_are_of_one_speaker(drawn):
    assert len(drawn) == 210
    for spec in drawn:
        assert 6 * 16000 <= spec.length <= 8 * 16000
        assert len({name.split("/")[2] for name in spec.speech}) == 1
        assert all(stop - start >= 8000 for start, stop in spec.speech_ranges)
        assert -35 <= spec.level_db <= -20
    by_speaker = dict(zip(speakers(drawn), drawn, strict=True))
    assert by_speaker["fits"].speech_ranges == ((0, 112000),)
    assert len(by_speaker["long"].speech) == 1
    assert len(by_speaker["pairs"].speech) == 2
    assert by_speaker["acted-1"].speech_ranges == ((0, 32000),) * 3
    assert by_speaker["little"].speech == ("clean/test/little/0.wav",) * 3


def test_speakers_and_classes_are_equally_often_at_every_snr_and_overall(corpus):
    test_set = draw(corpus, per_snr=10)
    assert [spec.snr_db for spec in test_set] == [-5] * 10 + [0] * 10 + [5] * 10 + [10] * 10 + [
        15
    ] * 10
    for groups, count in ((speakers(test_set), 7), (classes(test_set), 4)):
        blocks = [groups, *(groups[start : start + 10] for start in range(0, 50, 10))]
        for block in blocks:
            assert len(set(block)) == count
            assert max(Counter(block).values()) - min(Counter(block).values()) <= 1


def test_equal_numbers_of_speakers_and_classes_do_not_lock(corpus):
    noise = bank("noise", {f"class-{index}": [9.0] for index in range(len(SPEECH))}, 2)
    test_set = draw(dataclasses.replace(corpus, noise={"test": noise}), per_snr=14)
    assert len(set(zip(speakers(test_set), classes(test_set), strict=True))) > 3 * len(SPEECH)


def test_recordings_take_turns(drawn):
    used = Counter(spec.noise for spec in drawn)
    for group, lengths in NOISE.items():
        counts = [used[f"noise/test/{group}/{index}.wav"] for index in range(len(lengths))]
        assert max(counts) - min(counts) <= 1


def test_a_limit_is_kept_and_without_it_would_not_be(corpus, drawn):
    free = Counter(who.split("-")[0] for who in speakers(drawn))
    assert free["acted"] == 60
    limited = draw(corpus, limits={"acted-": 0.2})
    counts = Counter(speakers(limited))
    assert counts["acted-1"] == counts["acted-2"] == 21
    others = [counts[who] for who in SPEECH if not who.startswith("acted")]
    assert max(others) - min(others) <= 1
    assert sum(counts.values()) == 210
    for start in range(0, 210, 42):
        block = Counter(speakers(limited)[start : start + 42])
        assert block["acted-1"] + block["acted-2"] <= 10
    assert draw(corpus, limits={"acted-": 0.9}) == drawn  # a limit that binds nobody
    with pytest.raises(ValueError, match="leave nobody for 105 of 210"):
        draw(corpus, limits={"": 0.5})


def test_the_seed_alone_decides(corpus):
    assert draw(corpus, per_snr=4) == draw(corpus, per_snr=4)
    assert draw(corpus, per_snr=4, seed=1) != draw(corpus, per_snr=4)


def test_every_mixture_renders_from_what_was_drawn(corpus):
    for spec in draw(corpus, per_snr=4):
        mixture = render(spec, corpus)
        assert mixture.noisy.size == spec.length
        offset_limit = next(
            corpus.noise["test"].length(index)
            for index, name in enumerate(corpus.noise["test"].names)
            if name == spec.noise
        )
        assert 0 <= spec.noise_offset < offset_limit
        assert offset_limit < spec.length or spec.noise_offset <= offset_limit - spec.length


def test_pauses_are_not_drawn(corpus):
    # 20 s of which all but the last 9 are nearly silent: about half of the plain draws miss
    noise = bank("noise", {"event": [20.0]}, 3)
    noise.samples[: 11 * 16000] //= 1000
    for spec in draw(dataclasses.replace(corpus, noise={"test": noise}), per_snr=8):
        assert spec.noise_offset + spec.length > 11 * 16000


def test_bad_arguments_are_refused(corpus):
    with pytest.raises(ValueError, match="expected 0 < min_s <= max_s"):
        draw(corpus, min_s=6.0, max_s=6.5)
    with pytest.raises(KeyError, match="lacks the split 'valid'"):
        make_test_set(corpus, "valid", name="x", seed=0)


def test_the_committed_test_sets_are_whole():
    for split, count in (("test", 210), ("valid", 60)):
        test_set = testsets.read_csv(EXPERIMENTS / f"testsets/dynse-mini-{split}-v1.csv")
        assert (test_set.name, test_set.corpus, test_set.split) == (
            f"dynse-mini-{split}-v1",
            "dynse-mini",
            split,
        )
        assert len(test_set) == len({spec.id for spec in test_set}) == count
        assert set(Counter(spec.snr_db for spec in test_set).values()) == {count // 5}
        emodb = sum(who.startswith("emodb-") for who in speakers(test_set))
        assert 0 < emodb <= 0.2 * count
        for groups in (speakers(test_set), classes(test_set)):
            assert max(Counter(groups).values()) - min(Counter(groups).values()) <= 1
        names = {name for spec in test_set for name in (*spec.speech, spec.noise)}
        assert all(name.startswith((f"clean/{split}/", f"noise/{split}/")) for name in names)


@pytest.mark.skipif("DYNSE_MINI" not in os.environ, reason="DYNSE_MINI names no corpus")
def test_drawing_again_gives_the_committed_bytes(tmp_path, monkeypatch):
    location = importlib.util.spec_from_file_location("script", EXPERIMENTS / "make_testsets.py")
    script = importlib.util.module_from_spec(location)
    monkeypatch.setitem(sys.modules, "script", script)  # dataclasses look their module up
    location.loader.exec_module(script)
    root = Path(os.environ["DYNSE_MINI"])
    corpus = folder_corpus(root, name="dynse-mini", progress=False)
    for test_set in script.draw(corpus, script.Config(root=root)):
        write_csv(test_set, tmp_path / "again.csv")
        committed = EXPERIMENTS / f"testsets/{test_set.name}.csv"
        assert (tmp_path / "again.csv").read_bytes() == committed.read_bytes()
        for spec in test_set:
            render(spec, corpus)
