import jax.numpy as jnp
import numpy as np
import pytest

from dynse.audio.activity import active_frames, active_level_db, frame_levels_db, frame_power
from dynse.audio.stft import STFT

HOP = 256


def steps(*levels_db, seconds=0.512):
    """A square wave, whose RMS is its amplitude, at these levels one after the other."""
    length = round(16000 * seconds)
    wave = np.where(np.arange(length) % 16 < 8, 1.0, -1.0)
    return np.concatenate([10 ** (level / 20) * wave for level in levels_db]).astype(np.float32)


def both(function, signal, *options):
    """The result in NumPy, after checking that JAX gives the same."""
    in_numpy = function(signal, *options)
    in_jax = function(jnp.asarray(signal), *options)
    assert isinstance(in_numpy, np.ndarray | np.generic)
    assert isinstance(in_jax, jnp.ndarray)
    np.testing.assert_allclose(in_numpy, in_jax, rtol=1e-4, atol=1e-4)
    return in_numpy


def test_power_is_that_of_a_loop_over_the_stft_s_frames():
    x = np.random.default_rng(0).normal(size=(2, 1000)).astype(np.float32)
    for length, hop in ((512, 256), (12, 4)):
        count = STFT(length, length, hop).frames(1000)
        padded = np.pad(x, ((0, 0), (length - hop, length)))
        expected = [np.square(padded[:, t * hop :][:, :length]).mean(-1) for t in range(count)]
        power = both(frame_power, x, length, hop)
        np.testing.assert_allclose(power, np.stack(expected, -1), rtol=1e-5)


def test_levels_by_hand():
    levels = both(frame_levels_db, steps(-20, -50))
    half = 32  # frames of each part; frame 0 is half zeros
    np.testing.assert_allclose(levels[0], -20 - 10 * np.log10(2), atol=1e-3)
    np.testing.assert_allclose(levels[1:half], -20, atol=1e-3)
    np.testing.assert_allclose(levels[half + 1 : 2 * half], -50, atol=1e-3)
    assert both(frame_levels_db, np.zeros(600, np.float32)).max() == pytest.approx(-120)


@pytest.mark.parametrize(("below", "active"), [(-29.5, True), (-30.5, False)])
def test_the_limit_lies_30_db_below_the_loud_frames(below, active):
    frames = both(active_frames, steps(-10, -10 + below))
    assert frames.dtype == bool
    assert frames[1:32].all()
    assert (frames[33:63] == active).all()


def test_a_few_loud_frames_are_above_the_95th_percentile_and_do_not_count():
    frames = both(active_frames, np.concatenate([steps(-60, seconds=3.2), steps(0, seconds=0.048)]))
    assert frames[1:199].all()


def test_the_rule_follows_the_level_of_the_utterance():
    x = steps(-10, -60, -20)
    expected = active_frames(x)
    for gain in (0.03, 3.0):
        np.testing.assert_array_equal(both(active_frames, gain * x), expected)
    rows = np.stack([x, 0.03 * x])
    np.testing.assert_array_equal(both(active_frames, rows), [expected, expected])


def test_silence_is_never_active():
    zeros = np.zeros((2, 4000), np.float32)
    assert not both(active_frames, zeros).any()
    np.testing.assert_allclose(both(active_level_db, zeros), -120)
    assert not both(active_frames, steps(-95)).any()


def test_the_active_level_leaves_pauses_out():
    level = both(active_level_db, steps(-20, -80, -20))
    assert level == pytest.approx(-20, abs=0.3)  # frames that are half a pause count
    whole = 10 * np.log10(np.mean(np.square(steps(-20, -80, -20))))
    assert whole < -21.5


def test_a_hop_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="must divide"):
        frame_power(np.zeros(100), 512, 200)
