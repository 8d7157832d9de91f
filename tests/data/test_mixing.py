import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.audio.activity import active_frames
from dynse.data import mixing
from dynse.data.augmentation import Augmentation
from dynse.data.bank import Bank
from dynse.data.mixing import (
    HostSource,
    MixingConfig,
    Source,
    device_source,
    draw_batch,
    draw_crops,
    host_source,
    load_source,
    mix,
    rms_factor,
)
from dynse.data.pitch import HOP_LENGTH, Pitch

RATE = 16000


def bank_of(*groups):
    """Groups of recordings, each recording an int16 array."""
    recordings = [
        (f"g{g}", f"g{g}/{r}", samples)
        for g, group in enumerate(groups)
        for r, samples in enumerate(group)
    ]
    samples = np.concatenate([one for _, _, one in recordings]).astype(np.int16)
    lengths = [len(one) for _, _, one in recordings]
    return Bank(
        samples=samples,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        names=tuple(name for _, name, _ in recordings),
        groups=tuple(group for group, _, _ in recordings),
    )


def sounds(seed, seconds):
    """Bursts of noise and pauses between them."""
    draw = np.random.default_rng(seed)
    bursts = np.repeat(draw.uniform(size=round(seconds * 10)) < 0.6, RATE // 10)
    return (3000 * bursts * draw.normal(size=len(bursts))).clip(-32768, 32767)


@pytest.fixture(scope="module")
def speech():
    return load_source(bank_of([sounds(0, 3), sounds(1, 2)], [sounds(2, 4)]))


@pytest.fixture(scope="module")
def noise():
    return load_source(bank_of([sounds(5, 3)], [sounds(6, 2)], [sounds(7, 3)]))


CONFIG = MixingConfig(batch_size=6, crop_s=1.0, snr_db=(-5, 15), level_db=(-35, -15))
DRAW = jax.jit(draw_batch, static_argnums=3)
CROPS = jax.jit(draw_crops, static_argnums=2)


def levels_db(signal):
    """RMS over active frames, by a loop in float64."""
    active = active_frames(signal)
    levels = []
    for row, frames in zip(np.asarray(signal, np.float64), active, strict=True):
        padded = np.pad(row, (256, 512))
        power = [np.square(padded[t * 256 : t * 256 + 512]).mean() for t in np.flatnonzero(frames)]
        levels.append(10 * np.log10(np.mean(power)))
    return np.array(levels)


def test_augmented_crops_are_mixed_at_the_levels_drawn(speech, noise):
    config = dataclasses.replace(CONFIG, augmentation=Augmentation(room=1.0, band=1.0))
    plain, varied = (DRAW(speech, noise, jax.random.key(0), one) for one in (CONFIG, config))
    np.testing.assert_array_equal(varied.snr_db, plain.snr_db)
    assert np.abs(varied.clean - plain.clean).max() > 1e-3
    found = levels_db(varied.clean) - levels_db(varied.noisy - varied.clean)
    np.testing.assert_allclose(found, varied.snr_db, atol=0.02)


def test_a_batch_is_a_function_of_its_key(speech, noise):
    first, again, other = (DRAW(speech, noise, jax.random.key(seed), CONFIG) for seed in (0, 0, 1))
    assert first.f0_hz is None  # nothing is known of this speech
    for a, b, c in zip(first[:3], again[:3], other[:3], strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    assert len({row.tobytes() for row in np.asarray(first.clean)}) == CONFIG.batch_size


def test_snr_and_level_hold_over_active_frames(speech, noise):
    for seed in range(3):
        batch = jax.tree.map(np.asarray, DRAW(speech, noise, jax.random.key(seed), CONFIG))
        assert batch.noisy.shape == batch.clean.shape == (6, RATE)
        speech_db = levels_db(batch.clean)
        assert ((speech_db >= -35.01) & (speech_db <= -14.99)).all()
        measured = speech_db - levels_db(batch.noisy - batch.clean)
        np.testing.assert_allclose(measured, batch.snr_db, atol=0.05)
        assert ((batch.snr_db >= -5) & (batch.snr_db <= 15)).all()
    assert np.ptp(speech_db) > 1
    assert np.ptp(batch.snr_db) > 1


def test_crops_come_from_one_group_and_every_group_comes_up():
    # Group g's samples count up from 1000 g: a value tells its group and its place.
    lengths = {0: (300, 120), 1: (500,), 2: (200, 90, 60)}
    groups = []
    for group, parts in lengths.items():
        values = 1000 * group + np.arange(sum(parts))
        groups.append(np.split(values, np.cumsum(parts)[:-1]))
    source = load_source(bank_of(*groups))
    crops = CROPS(source, jax.random.split(jax.random.key(0), 300), 400)
    assert crops.samples.dtype == np.int16
    values = np.asarray(crops.samples).astype(int)
    group, place = values // 1000, values % 1000
    assert (group == group[:, :1]).all()
    sizes = np.array([sum(parts) for parts in lengths.values()])[group[:, 0]]
    # Places follow one another and wrap around at the group's end, also where it is shorter.
    np.testing.assert_array_equal(place, (place[:, :1] + np.arange(400)) % sizes[:, None])
    counts = np.bincount(group[:, 0], minlength=3)
    assert counts.min() > 70  # 100 expected, whatever the length; 8 is a standard deviation
    assert len(np.unique(place[:, 0])) > 100


def test_silent_crops_do_not_explode():
    silent, loud = np.zeros((1, RATE), np.float32), sounds(0, 1)[None].astype(np.float32) / 32768
    snr, level = jnp.zeros(1), jnp.full(1, -20.0)
    noisy, clean = mix(jnp.asarray(silent), jnp.asarray(loud), snr, level)
    assert not clean.any()
    np.testing.assert_allclose(levels_db(np.asarray(noisy)), -20, atol=0.05)
    noisy, clean = mix(jnp.asarray(loud), jnp.asarray(silent), snr, level)
    np.testing.assert_array_equal(noisy, clean)
    np.testing.assert_allclose(levels_db(np.asarray(clean)), -20, atol=0.05)
    noisy, clean = mix(jnp.asarray(silent), jnp.asarray(silent), snr, level)
    assert not noisy.any()
    assert np.isfinite(noisy).all()


def test_a_crop_in_samples():
    assert MixingConfig(crop_s=2.0).crop_samples() == 32000
    assert MixingConfig(crop_s=0.5).crop_samples(8000) == 4000


def test_f0_comes_from_where_the_crop_does():
    """Each recording's samples stand for its F0: the crop tells what the F0 must be."""
    draw = np.random.default_rng(3)
    tracks, groups = {}, []
    for group, lengths in enumerate([(4800, 1600), (3200,)]):
        parts = []
        for recording, length in enumerate(lengths):
            values = draw.integers(1, 30000, length // HOP_LENGTH)
            tracks[f"g{group}/{recording}"] = values.astype(np.float32)
            parts.append(np.repeat(values, HOP_LENGTH))
        groups.append(parts)
    source = load_source(bank_of(*groups), Pitch(tracks, HOP_LENGTH))
    crops = CROPS(source, jax.random.split(jax.random.key(0), 20), 8000)
    assert crops.f0_hz.shape == (20, 33)
    # They wrap around in both groups; the last frame's centre lies behind the crop.
    np.testing.assert_array_equal(crops.f0_hz[:, :32], crops.samples[:, np.arange(32) * 256])
    batch = DRAW(source, source, jax.random.key(0), MixingConfig(batch_size=2, crop_s=0.5))
    assert batch.f0_hz.shape == (2, 33)


def test_mixtures_of_one_rms():
    """Noisy at an RMS of 0.1, clean by the same factor; silence stays silence."""
    rng = np.random.default_rng(0)
    speech, noise = (
        load_source(bank_of([(3000 * rng.normal(size=RATE)).astype(np.int16)])) for _ in range(2)
    )
    config = MixingConfig(batch_size=3, crop_s=0.2)
    plain = DRAW(speech, noise, jax.random.key(0), config)
    unit = DRAW(speech, noise, jax.random.key(0), dataclasses.replace(config, rms=0.1))
    factor = 0.1 / np.sqrt(np.square(plain.noisy).mean(-1, keepdims=True))
    np.testing.assert_allclose(unit.noisy, factor * plain.noisy, rtol=1e-5)
    np.testing.assert_allclose(unit.clean, factor * plain.clean, rtol=1e-5)
    np.testing.assert_array_equal(rms_factor(np.zeros((2, 8), np.float32), 1.0), [1, 1])


def test_f0_of_recordings_that_begin_anywhere():
    """Against one search a value: the recording that its middle lies in."""
    draw = np.random.default_rng(4)
    lengths = [1, 79, 161, 80, 400, 7, 333, 5]
    bank = bank_of([np.ones(length) for length in lengths])
    tracks = {
        name: draw.uniform(60, 500, -(-length // 10)).astype(np.float32)
        for name, length in zip(bank.names, lengths, strict=True)
    }
    pitch = Pitch(tracks, 10)
    expected = []
    for k in range(-(-sum(lengths) // HOP_LENGTH)):
        middle = min(k * HOP_LENGTH + HOP_LENGTH // 2, sum(lengths) - 1)
        index = np.flatnonzero(bank.offsets <= middle)[-1]
        expected.append(pitch.at(bank.names[index], middle - bank.offsets[index]))
    np.testing.assert_array_equal(host_source(bank, pitch).f0_hz, expected)


def test_large_banks_stay_on_the_host(monkeypatch):
    bank = bank_of([np.arange(50)], [np.arange(30)])
    monkeypatch.setattr(mixing, "DEVICE_BYTES", 160)
    assert isinstance(load_source(bank), Source)
    monkeypatch.setattr(mixing, "DEVICE_BYTES", 159)
    found = load_source(bank)
    assert isinstance(found, HostSource)
    assert found.samples is bank.samples
    # By mistake it does not get onto the device.
    with pytest.raises(TypeError, match="HostSource"):
        DRAW(found, found, jax.random.key(0), CONFIG)
    for left, right in zip(
        device_source(found)[:3], (bank.samples, [0, 50], [50, 30]), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_a_group_that_int32_cannot_count_is_named():
    samples = np.broadcast_to(np.int16(0), (2**31 + 5,))
    bank = Bank(samples, np.array([0, 5, 2**31 + 5]), ("a", "b"), ("few", "many"))
    with pytest.raises(ValueError, match=r"fewer than 2\^31 samples, got 2147483648 of 'many'"):
        load_source(bank)
