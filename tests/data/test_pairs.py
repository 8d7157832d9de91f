"""Given pairs stay pairs: in the cache, in training crops, and in the test set."""

import dataclasses
import json
from collections import Counter

import jax
import numpy as np
import pytest
import soundfile
import soxr
from data.published import dns_challenge, voicebank

from dynse.audio.activity import active_frames
from dynse.data.bank import Recording
from dynse.data.cache import load_corpus, save_corpus
from dynse.data.drawing import pair_test_set
from dynse.data.folders import folder_corpus
from dynse.data.mixing import MixingConfig, draw_batch, load_source
from dynse.data.named import VALID_PER_SNR, is_drawn_from, named_test_sets
from dynse.data.testsets import read_csv, render, write_csv
from dynse.training.runs import RunConfig, train_run

DRAW = jax.jit(draw_batch, static_argnums=3)
PAIRS = MixingConfig(batch_size=8, crop_s=0.5, pairs=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def corpus(folder):
    return folder_corpus(voicebank(folder / "vb"), cache_dir=folder / "cache", progress=False)


@pytest.fixture(scope="module")
def dns(folder):
    root = dns_challenge(folder / "dns", readers=range(3))
    return folder_corpus(root, cache_dir=folder / "cache", progress=False)


def active_level(signal):
    """RMS over active frames, by a loop in float64."""
    padded = np.pad(np.asarray(signal, np.float64), (256, 512))
    frames = np.flatnonzero(active_frames(np.asarray(signal)))
    power = [np.square(padded[t * 256 : t * 256 + 512]).mean() for t in frames]
    return 10 * np.log10(np.mean(power))


def test_a_corpus_of_pairs_that_do_not_lie_under_each_other_is_refused(corpus):
    noise = {**corpus.noise, "test": corpus.noise["valid"]}
    with pytest.raises(ValueError, match="given pairs of split 'test' must have the names"):
        dataclasses.replace(corpus, noise=noise)
    dataclasses.replace(corpus, noise=noise, pairs=frozenset({"valid"}))


def test_caches_made_before_there_were_pairs_are_opened(tmp_path, corpus):
    recordings = [Recording("a", "x", np.ones(80, np.int16))]
    banks = {"speech": {"train": recordings}, "noise": {"train": recordings}}
    save_corpus(tmp_path / "c", name="tiny", **banks, pairs={"train"})
    assert load_corpus(tmp_path / "c").pairs == {"train"}
    index = json.loads((tmp_path / "c/index.json").read_text())
    del index["pairs"]
    (tmp_path / "c/index.json").write_text(json.dumps(index))
    assert load_corpus(tmp_path / "c").pairs == frozenset()


def test_training_crops_are_of_one_place(corpus):
    speech, noise = corpus.speech["train"], corpus.noise["train"]
    sources = load_source(speech), load_source(noise)
    batch = jax.tree.map(np.asarray, DRAW(*sources, jax.random.key(0), PAIRS))
    places = []
    for clean, noisy in zip(batch.clean, batch.noisy, strict=True):
        found = []
        for start, stop in speech.group_spans().values():
            # crops wrap around at the end of their speaker
            own = np.tile(speech.samples[start:stop] / 32768.0, 2)
            windows = np.lib.stride_tricks.sliding_window_view(own, len(clean))[: stop - start]
            (hits,) = np.nonzero(np.abs(windows[:, ::250] - clean[::250]).max(-1) < 1e-7)
            found += [(start, stop, hit) for hit in hits if np.allclose(windows[hit], clean)]
        ((start, stop, place),) = found
        under = np.tile(noise.samples[start:stop] / 32768.0, 2)[place : place + len(clean)]
        np.testing.assert_array_equal(noisy - clean, under.astype(np.float32))
        places.append((start, place))
    assert len(set(places)) == len(places)
    assert len({start for start, _ in places}) == 2
    measured = [active_level(c) - active_level(n - c) for c, n in zip(*batch[1::-1], strict=True)]
    np.testing.assert_allclose(batch.snr_db, measured, atol=0.01)


def test_without_pairs_the_same_recordings_are_remixed(corpus):
    sources = load_source(corpus.speech["train"]), load_source(corpus.noise["train"])
    remix = dataclasses.replace(PAIRS, pairs=False, snr_db=(20.0, 21.0))
    key = jax.random.key(0)
    given, mixed = DRAW(*sources, key, PAIRS), DRAW(*sources, key, remix)
    assert (np.asarray(mixed.snr_db) >= 20).all()
    assert (np.asarray(given.snr_db) < 20).all()
    for one in range(PAIRS.batch_size):
        given_noise, mixed_noise = (np.asarray(b.noisy - b.clean)[one] for b in (given, mixed))
        assert abs(np.corrcoef(given_noise, mixed_noise)[0, 1]) < 0.2
        assert np.corrcoef(given.clean[one], mixed.clean[one])[0, 1] > 0.999


def test_pairs_keep_to_an_rms(corpus):
    sources = load_source(corpus.speech["train"]), load_source(corpus.noise["train"])
    unit = DRAW(*sources, jax.random.key(0), dataclasses.replace(PAIRS, rms=0.1))
    np.testing.assert_allclose(np.square(unit.noisy).mean(-1), 0.01, rtol=1e-4)


def test_pairs_that_are_not_there_are_refused(dns, corpus, tmp_path):
    with pytest.raises(ValueError, match="'dns' has no given pairs in train, valid: "):
        train_run(tmp_path, RunConfig(mixing=PAIRS), dns)
    with pytest.raises(ValueError, match=r"the split 'train' of 'dns' is not of .* are: test"):
        pair_test_set(dns, "train", name="x", seed=0)


def test_the_test_set_is_the_published_files(corpus, folder):
    test_set = pair_test_set(corpus, "test", name="all", seed=0)
    assert [spec.speech for spec in test_set] == [(n,) for n in corpus.speech["test"].names]
    assert len({spec.id for spec in test_set}) == 5
    for spec in test_set:
        mixture = render(spec, corpus)
        clean, noisy = (
            soxr.resample(
                soundfile.read(folder / "vb" / name, dtype="float32")[0], 48000, 16000, "VHQ"
            )
            for name in (spec.speech[0], spec.speech[0].replace("clean", "noisy"))
        )
        np.testing.assert_array_equal(mixture.noisy, np.rint(32768 * noisy) / 32768)
        np.testing.assert_array_equal(mixture.clean, np.rint(32768 * clean) / 32768)
        np.testing.assert_array_equal(mixture.noisy, mixture.clean + mixture.noise)
        assert {mixture.noisy.dtype, mixture.clean.dtype} == {np.dtype(np.float32)}
        assert len(mixture.noisy) == spec.length


def test_snr_and_class_are_the_logged_ones_or_measured(corpus, dns):
    mixtures = [render(s, corpus) for s in pair_test_set(corpus, "test", name="all", seed=0)]
    assert [one.noise_class for one in mixtures] == ["bus", "living", "noise", "cafe", "noise"]
    assert [one.speaker for one in mixtures] == ["p232"] * 3 + ["p257"] * 2
    assert [mixtures[index].snr_db for index in (0, 1, 3)] == [17.5, 2.5, -7.5]
    for index in (2, 4):
        one = mixtures[index]
        assert one.snr_db == int(one.snr_db)
        assert abs(one.snr_db - active_level(one.clean) + active_level(one.noise)) <= 0.51
    assert [s.snr_db for s in pair_test_set(dns, "test", name="all", seed=0)][:2] == [-3, 12]


def test_few_pairs_are_spread_over_speakers(corpus):
    def speakers(count, seed=0):
        chosen = pair_test_set(corpus, "test", name="few", seed=seed, count=count)
        names = [spec.speech[0] for spec in chosen]
        assert len(set(names)) == len(names)
        assert [s.id for s in chosen] == [f"test-{index:03d}" for index in range(len(names))]
        return Counter(name.rpartition("/")[2][:4] for name in names)

    assert speakers(2) == speakers(2, seed=1) == {"p232": 1, "p257": 1}
    assert speakers(4) == {"p232": 2, "p257": 2}
    assert speakers(5) == speakers(50) == {"p232": 3, "p257": 2}
    drawn = [pair_test_set(corpus, "test", name="few", seed=s, count=2) for s in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_pairs_come_back_from_csv_and_another_corpus_is_refused(corpus, dns, tmp_path):
    test_set = pair_test_set(corpus, "test", name="vb-test", seed=0)
    write_csv(test_set, tmp_path / "a.csv")
    back = read_csv(tmp_path / "a.csv")
    assert back == test_set
    assert back.mixtures[0].level_db is None
    assert is_drawn_from(back, corpus)
    assert not is_drawn_from(back, dns)
    test, _ = named_test_sets(corpus, tmp_path / "a.csv", per_snr=1)
    assert test == test_set
    with pytest.raises(ValueError, match="test-000: without a level it is one recording"):
        dataclasses.replace(test_set.mixtures[0], speech=("a", "b"))


def test_named_test_sets_take_given_pairs(corpus, dns):
    test, valid = named_test_sets(corpus, None, per_snr=VALID_PER_SNR)
    assert {spec.level_db for spec in (*test, *valid)} == {None}
    assert len(test) == 5
    assert len(valid) == 4
    assert {spec.split for spec in valid} == {"valid"}
    # of the DNS Challenge the test split alone is of pairs
    test, valid = named_test_sets(dns, None, per_snr=1)
    assert (len(test), len(valid)) == (3, 5)
    assert None not in {spec.level_db for spec in valid}
    # at asked SNRs they are drawn from the recordings
    test, valid = named_test_sets(corpus, None, per_snr=1, snrs_db=(0, 5))
    assert [spec.snr_db for spec in (*test, *valid)] == [0, 5, 0, 5]
    assert None not in {spec.level_db for spec in test}


def test_all_pairs_are_taken_where_they_are_asked_for(corpus):
    few, valid = named_test_sets(corpus, None, per_snr=1, valid_per_snr=0)
    assert (len(few), len(valid)) == (5, 0)
    test, _ = named_test_sets(corpus, None, per_snr=0, all_pairs=True)
    assert len(test) == 5
