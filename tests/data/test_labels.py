"""Labels of mixtures: cut and joined pieces keep their voice and pitch, SNR by a loop, limits."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynse.data import noise_categories
from dynse.data.bank import Bank, Corpus
from dynse.data.labels import SNR_RANGE_DB, frame_snr_db, label_mixture
from dynse.data.noise_categories import CATEGORIES, noise_category
from dynse.data.pitch import Pitch, bank_pitch
from dynse.data.synthetic import speech_recording
from dynse.data.synthetic_noise import NOISE_CLASSES
from dynse.data.testsets import MixtureSpec, checksum, cut, loop, render

RATE = 16000
GAP = 3200
# lengths in samples of what is sung and what is silent in the two recordings
PARTS = {"clean/test/ann/1.wav": (16000, 8000, 8000), "clean/test/ann/2.wav": (4000, 6400, 14400)}


def sung(f0_hz):
    phase = 2 * np.pi * np.cumsum(f0_hz) / RATE
    return 0.1 * sum(np.sin(k * phase) / k for k in range(1, 9))


def recording(parts, f0_hz):
    """Tone, silence, tone."""
    tones = sung(np.full(sum(parts), f0_hz))
    tones[parts[0] : parts[0] + parts[1]] = 0
    return np.round(32767 * tones).astype(np.int16)


def bank(recordings, tracks=()):
    """recordings: name -> (group, int16 samples)."""
    groups, samples = zip(*recordings.values(), strict=True)
    offsets = np.concatenate([[0], np.cumsum([part.size for part in samples])])
    return Bank(np.concatenate(samples), offsets, tuple(recordings), groups, dict(tracks))


@pytest.fixture
def corpus():
    speech = {
        name: ("ann", recording(parts, f0_hz))
        for (name, parts), f0_hz in zip(PARTS.items(), (140.0, 230.0), strict=True)
    }
    hiss = np.round(np.random.default_rng(0).normal(size=50000) * 2000).astype(np.int16)
    return Corpus(
        "tiny",
        "",
        {"test": bank(speech)},
        {"test": bank({"noise/test/rain/1.wav": ("rain", hiss)})},
        attributes={name: {"gender": "F", "language": "en"} for name in PARTS},
    )


def make_spec(corpus, **changes):
    spec = MixtureSpec(
        id="test-000",
        split="test",
        speech=tuple(PARTS),
        speech_ranges=((5000, 30000), (0, 23999)),
        noise=corpus.noise["test"].names[0],
        noise_offset=100,
        snr_db=5.0,
        level_db=-30.0,
        crc32="",
    )
    spec = dataclasses.replace(spec, **changes)
    speech, noise = corpus.speech["test"], corpus.noise["test"]
    pieces = cut(speech, [speech.index_of(name) for name in spec.speech], spec.speech_ranges)
    return dataclasses.replace(
        spec, crc32=checksum(pieces, loop(noise, 0, spec.noise_offset, spec.length))
    )


def at_centres(spec, by_sample):
    """Frame t has what stands at sample 256 t of the pieces laid end to end with gaps."""
    joined = []
    for name, (start, stop) in zip(spec.speech, spec.speech_ranges, strict=True):
        joined += [0.0] * GAP * bool(joined) + list(by_sample[name][start:stop])
    count = -(-(spec.length + 256) // 256)
    return np.array([joined[256 * t] if 256 * t < len(joined) else 0.0 for t in range(count)])


def ramps(corpus):
    """A pitch that rises with every value, so that no two samples 5 ms apart are alike."""
    return {
        name: np.arange(100, 100 + corpus.speech["test"].length(index) // 80, dtype=np.float32)
        for index, name in enumerate(corpus.speech["test"].names)
    }


def test_voice_and_pitch_stand_where_their_pieces_were_put(corpus):
    spec, tracks = make_spec(corpus), ramps(corpus)
    labels = label_mixture(spec, corpus, Pitch(tracks, 80)).frames
    expected = at_centres(spec, {name: np.repeat(track, 80) for name, track in tracks.items()})
    assert labels.f0_hz.shape == labels.voice.shape == labels.snr_db.shape == expected.shape
    assert (labels.f0_hz.dtype, labels.voice.dtype) == (np.float32, bool)
    # where there is sound, from the parts: a frame is voice as soon as it holds a good share of it
    sounding = {}
    for name, (first, silent, last) in PARTS.items():
        sounding[name] = np.repeat([1.0, 0.0, 1.0], (first, silent, last))
    joined = np.zeros(spec.length + 768)
    joined[256 : 256 + 25000] = sounding[spec.speech[0]][5000:30000]
    joined[256 + 25000 + GAP : 256 + spec.length] = sounding[spec.speech[1]][:23999]
    share = np.array([joined[256 * t : 256 * t + 512].mean() for t in range(len(expected))])
    assert labels.voice[share > 0.5].all()
    assert not labels.voice[share == 0].any()
    assert np.sum((share > 0) & (share <= 0.5)) <= 8
    np.testing.assert_array_equal(labels.f0_hz, np.where(labels.voice, expected, 0))
    # two pauses and the gap; a shift by one frame would be seen
    assert np.sum(np.diff(labels.voice.astype(int)) == 1) == 4 - labels.voice[0]
    for shift in (-1, 1):
        moved = np.roll(labels.f0_hz, shift)
        assert np.mean(moved[labels.voice] != expected[labels.voice]) > 0.99


def test_voice_is_the_one_rule_on_the_clean_signal(corpus):
    spec = make_spec(corpus)
    clean = np.concatenate([np.zeros(256), render(spec, corpus).clean, np.zeros(512)])
    count = -(-(spec.length + 256) // 256)
    power = [np.mean(clean[256 * t : 256 * t + 512].astype(float) ** 2) for t in range(count)]
    level = 10 * np.log10(np.maximum(power, 1e-12))
    expected = (level > np.percentile(level, 95) - 30) & (level > -90)
    np.testing.assert_array_equal(
        label_mixture(spec, corpus, Pitch(ramps(corpus), 80)).frames.voice, expected
    )


def test_the_synthetic_truth_passes_through():
    said = [speech_recording(0, "test", 3, number, 2.0) for number in range(2)]
    names = [recording.name for recording in said]
    tracks = {key: np.concatenate([r.tracks[key] for r in said]) for key in ("f0_hz", "voice")}
    speech = bank({r.name: (r.group, r.samples) for r in said}, tracks)
    hiss = np.round(np.random.default_rng(0).normal(size=9000) * 2000).astype(np.int16)
    corpus = Corpus(
        "synthetic",
        "",
        {"test": speech},
        {"test": bank({"noise/test/fan/0000": ("fan", hiss)})},
        attributes={name: {"register": "high"} for name in names},
    )
    spec = make_spec(
        corpus,
        speech=tuple(names),
        speech_ranges=((777, said[0].samples.size), (0, said[1].samples.size - 1001)),
    )
    labels = label_mixture(spec, corpus, bank_pitch(speech))
    for key in ("f0_hz", "voice"):
        by_sample = {r.name: np.repeat(r.tracks[key], 80) for r in said}
        found, expected = getattr(labels.frames, key), at_centres(spec, by_sample)
        assert 0.2 < np.mean(expected != 0) < 0.95
        np.testing.assert_array_equal(found, expected.astype(found.dtype))
        assert (np.roll(found, 1) != expected).any()
    assert (labels.speaker, labels.gender) == (said[0].group, "F")
    assert (labels.noise_class, labels.noise_category) == ("fan", "machines")


def test_labels_of_the_whole_mixture(corpus):
    spec, pitch = make_spec(corpus), Pitch(ramps(corpus), 80)
    labels = label_mixture(spec, corpus, pitch)
    assert labels[1:] == (
        "rain", "nature", 5.0, "ann", "F", spec.noise, tuple(PARTS), spec.noise,
    )  # fmt: skip
    cut = dataclasses.replace(corpus, attributes={spec.noise: {"attribution": "clip 7"}})
    assert label_mixture(spec, cut, pitch).noise_source == "clip 7"
    for attributes, gender in (
        ({}, None),
        ({"gender": "M"}, "M"),
        ({"gender": "unknown"}, None),
        ({"register": "low"}, "M"),
        ({"register": "high"}, "F"),
    ):
        known = dataclasses.replace(corpus, attributes={spec.speech[0]: attributes})
        assert label_mixture(spec, known, pitch).gender == gender
    assert label_mixture(spec, dataclasses.replace(corpus, attributes={}), pitch).gender is None
    with pytest.raises(KeyError, match=r"no pitch of 'clean/test/ann/2\.wav'"):
        label_mixture(spec, corpus, Pitch({spec.speech[0]: ramps(corpus)[spec.speech[0]]}, 80))


def test_snr_of_frames_by_a_loop(corpus):
    spec = make_spec(corpus)
    mixture = render(spec, corpus)
    found = label_mixture(spec, corpus, Pitch(ramps(corpus), 80)).frames.snr_db
    low, high = SNR_RANGE_DB
    for t, value in enumerate(found):
        powers = []
        for signal in (mixture.clean, mixture.noise):
            frame = [signal[n] for n in range(256 * t - 256, 256 * t + 256) if 0 <= n < spec.length]
            powers.append(sum(float(x) ** 2 for x in frame))
        expected = low if powers[0] == 0 else 10 * np.log10(powers[0] / powers[1])
        assert value == pytest.approx(min(max(expected, low), high), abs=1e-4)
    assert low in found
    assert low < np.median(found) < high


def test_silence_gives_the_limits():
    loud, silent = np.full(1000, 0.1, np.float32), np.zeros(1000, np.float32)
    low, high = SNR_RANGE_DB
    for clean, noise, expected in (
        (loud, silent, high), (silent, loud, low), (silent, silent, low),
        (loud, 1e-9 * loud, high), (1e-9 * loud, loud, low), (loud, loud, 0),
    ):  # fmt: skip
        found = frame_snr_db(clean, noise)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.full(5, expected), atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1e-20, 1e-3, 1.0]), st.integers(1, 600)), min_size=1),
    st.sampled_from([0.0, 1e-20, 1e-3, 1.0]),
)
def test_snr_is_finite_limited_and_rises_with_the_signal(parts, amplitude):
    clean = np.concatenate([np.full(length, level, np.float32) for level, length in parts])
    noise = np.full(len(clean), amplitude, np.float32)
    found = frame_snr_db(clean, noise)
    assert np.isfinite(found).all()
    assert (found >= SNR_RANGE_DB[0]).all()
    assert (found <= SNR_RANGE_DB[1]).all()
    assert (frame_snr_db(2 * clean, noise) >= found).all()


def test_every_synthetic_class_has_a_category():
    categories = {noise_category(name) for name in NOISE_CLASSES}
    assert None not in categories
    assert categories <= set(CATEGORIES)
    assert len(categories) > 5
    assert noise_category("no such class") is None


def test_no_class_is_in_two_categories():
    listed = [name for names in noise_categories._CLASSES.values() for name in names]
    assert len(set(listed)) == len(listed)
