"""A test set is fixed: rendering is exact and repeatable, and what was changed is refused."""

import dataclasses

import numpy as np
import pytest

from dynse.data import testsets
from dynse.data.bank import Bank, Corpus
from dynse.data.testsets import MixtureSpec, checksum, cut, join, loop, read_csv, render, write_csv


def bank(recordings):
    """recordings: (group, name, int16 samples), sorted."""
    groups, names, samples = zip(*recordings, strict=True)
    return Bank(
        np.concatenate(samples),
        np.concatenate([[0], np.cumsum([part.size for part in samples])]),
        tuple(names),
        tuple(groups),
    )


def bursts(seed, length, amplitude=0.2):
    """Noise that is on for 0.3 s, off for 0.2 s, as int16."""
    rng = np.random.default_rng(seed)
    on = np.arange(length) % 8000 < 4800
    return np.round(rng.uniform(-1, 1, length) * on * amplitude * 32767).astype(np.int16)


@pytest.fixture
def corpus():
    speech = bank([
        ("ann", "clean/test/ann/1.wav", bursts(1, 40000)),
        ("ann", "clean/test/ann/2.wav", bursts(2, 30000)),
        ("bob", "clean/test/bob/1.wav", bursts(3, 120000)),
    ])  # fmt: skip
    noise = bank([
        ("dog", "noise/test/dog/1.wav", bursts(4, 20000)),
        ("rain", "noise/test/rain/1.wav", bursts(5, 200000, 0.05)),
    ])  # fmt: skip
    return Corpus("tiny", "", {"test": speech}, {"test": noise})


def make_spec(corpus, **changes):
    spec = MixtureSpec(
        id="test-000",
        split="test",
        speech=("clean/test/ann/1.wav", "clean/test/ann/2.wav"),
        speech_ranges=((0, 40000), (1000, 29000)),
        noise="noise/test/dog/1.wav",
        noise_offset=15000,
        snr_db=5.0,
        level_db=-30.0,
        crc32="",
    )
    spec = dataclasses.replace(spec, **changes)
    speech, noise = corpus.speech["test"], corpus.noise["test"]
    indices = [speech.index_of(name) for name in spec.speech]
    pieces = cut(speech, indices, spec.speech_ranges)
    looped = loop(noise, noise.index_of(spec.noise), spec.noise_offset, spec.length)
    return dataclasses.replace(spec, crc32=checksum(pieces, looped))


def active_level(signal):
    """The rule written out: frames of 512 every 256, within 30 dB of the 95th percentile."""
    signal = np.concatenate([np.zeros(256), np.asarray(signal, np.float64), np.zeros(512)])
    count = -(-(signal.size - 512) // 256)
    power = np.array([np.mean(signal[t * 256 : t * 256 + 512] ** 2) for t in range(count)])
    level = 10 * np.log10(np.maximum(power, 1e-12))
    active = level > np.percentile(level, 95) - 30
    return 10 * np.log10(power[active].mean())


def test_a_mixture_is_the_sum_of_its_parts_at_the_asked_snr_and_level(corpus):
    mixture = render(make_spec(corpus), corpus)
    for part in (mixture.noisy, mixture.clean, mixture.noise):
        assert part.dtype == np.float32
        assert part.shape == (40000 + 3200 + 28000,)
    np.testing.assert_array_equal(mixture.noisy, mixture.clean + mixture.noise)
    assert (mixture.speaker, mixture.noise_class) == ("ann", "dog")
    assert active_level(mixture.clean) == pytest.approx(-30, abs=0.05)
    difference = active_level(mixture.clean) - active_level(mixture.noise)
    assert difference == pytest.approx(5, abs=0.05)


def test_silence_around_a_noise_event_does_not_count(corpus):
    padded = np.concatenate([bursts(6, 4800), np.zeros(67000, np.int16)])
    dense = np.tile(bursts(6, 4800), 15)
    levels = []
    for samples in (padded, dense):
        changed = dataclasses.replace(corpus, noise={"test": bank([("x", "n", samples)])})
        mixture = render(make_spec(changed, noise="n", noise_offset=0), changed)
        levels.append(20 * np.log10(np.abs(mixture.noise).max()))
    assert levels[0] == pytest.approx(levels[1], abs=0.5)


def test_pieces_are_faded_and_parted_by_zeros(corpus):
    mixture = render(make_spec(corpus), corpus)
    np.testing.assert_array_equal(mixture.clean[40000:43200], 0)
    source = corpus.speech["test"].recording(1)[1000:29000]
    piece = mixture.clean[43200:]
    gain = piece[500] / source[500]
    np.testing.assert_allclose(piece[160:-160], gain * source[160:-160], atol=1e-7)
    ramp = np.sin(np.pi / 2 * (np.arange(160) + 0.5) / 160) ** 2
    np.testing.assert_allclose(piece[:160], gain * source[:160] * ramp, atol=1e-6)
    np.testing.assert_allclose(piece[-160:], gain * source[-160:] * ramp[::-1], atol=1e-6)


def test_short_pieces_are_faded_too():
    joined = join((np.full(5, 16384, np.int16),))
    assert joined.shape == (5,)
    assert np.all(np.abs(joined) < 0.01)


def test_noise_is_looped_from_its_offset(corpus):
    noise = render(make_spec(corpus), corpus).noise
    source = corpus.noise["test"].recording(0)
    gain = noise[5000] / source[0]
    np.testing.assert_allclose(noise[:5000], gain * source[15000:], atol=1e-7)
    np.testing.assert_allclose(noise[5000:25000], gain * source, atol=1e-7)


def test_a_peak_scales_all_parts_together(corpus):
    quiet = render(make_spec(corpus), corpus)
    loud = render(make_spec(corpus, level_db=0.0), corpus)
    parts = (loud.noisy, loud.clean, loud.noise)
    assert max(np.abs(part).max() for part in parts) == pytest.approx(0.99, abs=1e-5)
    np.testing.assert_array_equal(loud.noisy, loud.clean + loud.noise)
    ratio = np.abs(loud.clean).max() / np.abs(quiet.clean).max()
    np.testing.assert_allclose(loud.noise, ratio * quiet.noise, rtol=1e-5, atol=1e-7)


def test_rendering_twice_gives_equal_bytes(corpus):
    spec = make_spec(corpus)
    once, twice = render(spec, corpus), render(spec, corpus)
    for part in ("noisy", "clean", "noise"):
        assert getattr(once, part).tobytes() == getattr(twice, part).tobytes()


def test_another_corpus_is_refused(corpus):
    spec = make_spec(corpus)
    for kind, sample in (("speech", 0), ("noise", 15000)):
        changed = dict(getattr(corpus, kind))
        samples = changed["test"].samples.copy()
        samples[sample] ^= 1
        changed["test"] = dataclasses.replace(changed["test"], samples=samples)
        with pytest.raises(ValueError, match=r"test-000: the samples .* are not those"):
            render(spec, dataclasses.replace(corpus, **{kind: changed}))
    # samples that the mixture does not use may differ
    changed = corpus.speech["test"].samples.copy()
    changed[-1] ^= 1
    other = dataclasses.replace(corpus.speech["test"], samples=changed)
    render(spec, dataclasses.replace(corpus, speech={"test": other}))


def test_bad_specs_are_refused(corpus):
    spec = make_spec(corpus)
    for change, error, message in (
        ({"split": "valid"}, KeyError, "has the splits .'test'., not 'valid'"),
        ({"noise": "noise/x.wav"}, KeyError, "no recording 'noise/x.wav'"),
        ({"noise_offset": 20000}, ValueError, "offset 20000 lies outside"),
        ({"speech_ranges": ((0, 40001), (0, 9))}, ValueError, "lies outside of clean/test/ann/1"),
    ):
        with pytest.raises(error, match=message):
            render(dataclasses.replace(spec, **change), corpus)


def test_silence_cannot_be_set_to_a_level(corpus):
    silent = dataclasses.replace(
        corpus, noise={"test": bank([("x", "n", np.zeros(9000, np.int16))])}
    )
    with pytest.raises(ValueError, match="test-000: speech or noise is silent"):
        render(make_spec(silent, noise="n", noise_offset=0), silent)


def test_a_csv_comes_back_as_it_was(corpus, tmp_path):
    specs = (
        make_spec(corpus),
        make_spec(corpus, id="test-001", snr_db=-2.5, level_db=-20.25, noise_offset=0),
    )
    test_set = testsets.TestSet("tiny-test-v1", "tiny", "test", specs)
    write_csv(test_set, tmp_path / "a.csv")
    back = read_csv(tmp_path / "a.csv")
    assert back == test_set
    assert back.sha256 == test_set.sha256
    first = (tmp_path / "a.csv").read_text().splitlines()[0]
    assert first == f"# dynse test set 1 sha256={test_set.sha256}"
    write_csv(back, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "b.csv"}


def test_a_changed_csv_is_refused_by_its_hash(corpus, tmp_path):
    path = tmp_path / "a.csv"
    write_csv(testsets.TestSet("tiny-test-v1", "tiny", "test", (make_spec(corpus),)), path)
    content = path.read_bytes()
    for old, new in ((b",5,", b",6,"), (b"split=test", b"split=train"), (b"15000", b"15001")):
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
        with pytest.raises(ValueError, match=r"a.csv was changed: its first line says sha256"):
            read_csv(path)
    path.write_bytes(content + content[-100:])
    with pytest.raises(ValueError, match="was changed"):
        read_csv(path)
    path.write_bytes(content.partition(b"\n")[2])
    with pytest.raises(ValueError, match="expected a first line"):
        read_csv(path)
    # line ends that a checkout turned into Windows' ones are no change
    path.write_bytes(content.replace(b"\n", b"\r\n"))
    read_csv(path)


def test_names_that_the_csv_cannot_hold_are_refused(corpus, tmp_path):
    spec = dataclasses.replace(make_spec(corpus), speech=("a;b.wav", "c.wav"))
    with pytest.raises(ValueError, match="must not hold ';'"):
        write_csv(testsets.TestSet("t", "tiny", "test", (spec,)), tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []
