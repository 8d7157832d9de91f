import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.gating.step import init_moving_average, moving_average
from dynse.probes import activation_rates, causal_average, frame_bits, varying_channels


def test_bits_are_the_gates_block_after_block():
    gates = (np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[1.0], [np.nan]]))
    bits = frame_bits(gates)
    assert bits.dtype == bool
    np.testing.assert_array_equal(bits, [[False, True, True], [True, False, False]])
    on_device = frame_bits([jnp.asarray(gate)[None] for gate in gates])
    assert isinstance(on_device, jax.Array)
    np.testing.assert_array_equal(on_device[0], bits)


@pytest.mark.parametrize("window", [1, 2, 5, 40])
def test_causal_average_is_the_one_of_the_gates_own_pooling(window):
    draw = np.random.default_rng(window)
    bits, floats = draw.random((23, 3)) < 0.4, draw.normal(size=(23, 3)).astype(np.float32)
    for features in (bits, floats):
        x = jnp.asarray(features, jnp.float32)[None]
        _, expected = moving_average(init_moving_average(1, 3, window), x, window)
        average = causal_average(features, window)
        assert average.dtype == np.float32
        np.testing.assert_allclose(average, expected[0], atol=1e-6)
    np.testing.assert_array_equal(causal_average(bits, 1), bits)


def test_the_average_of_a_frame_does_not_see_later_frames():
    bits = np.random.default_rng(0).random((12, 4)) < 0.5
    changed = bits.copy()
    changed[7:] ^= True
    np.testing.assert_array_equal(causal_average(bits, 3)[:7], causal_average(changed, 3)[:7])
    assert (causal_average(bits, 3)[7:] != causal_average(changed, 3)[7:]).any()


def test_rates_and_varying_channels():
    bits = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0], [1, 0, 0, 1]], bool)
    np.testing.assert_array_equal(activation_rates(bits), [1, 0, 0.25, 0.5])
    np.testing.assert_array_equal(varying_channels(bits), [2, 3])
    np.testing.assert_array_equal(varying_channels(bits[:1]), [])


def test_what_cannot_be_averaged_is_named():
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        causal_average(np.ones((3, 2)), 0)
    with pytest.raises(ValueError, match="at least one frame, got none"):
        activation_rates(np.ones((0, 2)))
