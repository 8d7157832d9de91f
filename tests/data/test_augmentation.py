import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from dynse.data import augmentation
from dynse.data.augmentation import (
    Augmentation,
    augment,
    band_response,
    biquad_response,
    room_response,
)

RATE = 16000
LENGTH = 20480
NEVER = {"biquad": 0.0, "room": 0.0, "band": 0.0}


def noise_like(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def many(draw, count=40):
    keys = jax.random.split(jax.random.key(3), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: draw(key, LENGTH, RATE)))(keys))


def apply_augment(config, speech, noise, seed=0):
    run = jax.jit(lambda key, s, n: augment(key, s, n, config))
    return [np.asarray(out) for out in run(jax.random.key(seed), speech, noise)]


def test_a_biquad_filters_as_its_difference_equation_does():
    for seed in range(5):
        key = jax.random.key(seed)
        r = np.asarray(jax.random.uniform(key, (4,), minval=-3 / 8, maxval=3 / 8), np.float64)
        x = noise_like(seed, LENGTH - 500).astype(np.float64)
        response = np.asarray(biquad_response(key, LENGTH))
        found = np.fft.irfft(np.fft.rfft(x, LENGTH) * response, LENGTH)[: len(x)]
        expected = signal.lfilter([1, r[0], r[1]], [1, r[2], r[3]], x)
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_rooms_reverberate_as_long_and_as_loud_as_said():
    responses = np.fft.irfft(many(room_response), LENGTH)
    np.testing.assert_allclose(responses[:, 0], 1, atol=1e-4)
    late = responses[:, 1:]
    direct_db = -10 * np.log10(np.square(late).sum(-1))
    assert (direct_db > -0.1).all()
    assert (direct_db < 15.1).all()
    assert np.ptp(direct_db) > 8
    first_s = (np.argmax(abs(late) > 1e-5, axis=-1) + 1) / RATE
    assert (first_s > 0.0019).all()
    assert (first_s < 0.021).all()
    # Schroeder: the energy that is still to come, from 5 to 25 dB below the whole.
    to_come = 10 * np.log10(np.square(late)[:, ::-1].cumsum(-1)[:, ::-1] + 1e-20)
    below = to_come - to_come[:, :1]
    times = np.stack([np.argmax(below < -level, axis=-1) for level in (5, 25)]) / RATE
    reverberation_s = 3 * (times[1] - times[0])
    assert (reverberation_s > 0.07).all()
    assert (reverberation_s < 0.7).all()
    assert np.ptp(reverberation_s) > 0.25


def test_a_band_is_one_gap_no_wider_than_said():
    mel = np.log1p(np.arange(LENGTH // 2 + 1) * RATE / LENGTH / 700)
    widths = []
    for response in many(lambda *a: band_response(*a, widest=0.2)):
        assert np.isin(response, (0, 1)).all()
        edges = np.flatnonzero(np.diff(np.pad(1 - response, 1)))
        assert len(edges) == 2  # one gap
        widths.append((mel[edges[1] - 1] - mel[edges[0]]) / mel[-1])
    assert max(widths) <= 0.2
    assert max(widths) > 0.15
    assert min(widths) < 0.05


def test_never_is_never():
    speech, noise = noise_like(1, 3, 4000), noise_like(2, 3, 4000)
    out = apply_augment(Augmentation(**NEVER), speech, noise)
    np.testing.assert_allclose(out[0], speech, atol=1e-5)
    np.testing.assert_allclose(out[1], noise, atol=1e-5)


def test_a_share_of_the_crops_is_changed():
    speech = noise_like(1, 60, 500)
    out = apply_augment(Augmentation(**{**NEVER, "biquad": 0.5}), speech, speech)
    changed = [np.abs(one - speech).max(-1) > 1e-3 for one in out]
    assert all(15 < one.sum() < 45 for one in changed)
    assert (changed[0] != changed[1]).any()  # speech and noise each their own


def test_a_room_is_for_speech_alone_and_nothing_wraps_around():
    clicks = np.zeros((4, 4000), np.float32)
    clicks[:, 3000] = 1
    speech, noise = apply_augment(Augmentation(**{**NEVER, "room": 1.0}), clicks, clicks)
    np.testing.assert_allclose(noise, clicks, atol=1e-6)
    np.testing.assert_allclose(speech[:, :3000], 0, atol=1e-6)
    np.testing.assert_allclose(speech[:, 3000], 1, atol=1e-6)
    assert (np.square(speech[:, 3001:]).sum(-1) > 1e-3).all()


def test_the_same_band_goes_from_both():
    clicks = np.zeros((6, 8000), np.float32)
    clicks[:, 4000] = 1
    config = Augmentation(**{**NEVER, "band": 1.0}, band_width=0.3)
    speech, noise = apply_augment(config, clicks, clicks)
    np.testing.assert_array_equal(speech, noise)
    assert (np.abs(speech - clicks).max(-1) > 1e-3).any()


def test_the_key_decides():
    speech = noise_like(1, 2, 500)
    first, again, other = (
        apply_augment(Augmentation(room=1.0), speech, speech, seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first[0], again[0])
    assert np.abs(first[0] - other[0]).max() > 1e-2


@pytest.mark.parametrize("name", ["biquad", "room", "band", "band_width"])
def test_what_is_no_share_is_named(name):
    with pytest.raises(ValueError, match=f"{name} must be from 0 to 1, got 1.5"):
        Augmentation(**{name: 1.5})


@pytest.mark.parametrize("samples", [1, 37, 40000, 40961])
def test_transforms_are_long_enough_and_hardly_longer(samples):
    length = augmentation._fast_length(samples)
    assert samples <= length < 1.21 * samples + 1
    assert jnp.fft.rfft(jnp.zeros(length)).shape == (length // 2 + 1,)
