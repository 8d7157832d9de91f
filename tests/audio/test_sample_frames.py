import jax
import numpy as np
import pytest

from dynse.audio.sample_frames import SampleFrames
from dynse.audio.stft import STFT


def audio(length, seed=0):
    return np.random.default_rng(seed).normal(size=(2, length)).astype(np.float32)


@pytest.mark.parametrize(("length", "hop"), [(8, 4), (9, 3)])
def test_frames_and_overlap_add_by_hand(length, hop):
    shape, noisy = SampleFrames(length, hop), audio(31)
    frames = np.asarray(jax.jit(shape.forward)(noisy))
    padded = np.pad(noisy, ((0, 0), (length - hop, 2 * length)))
    count = -(-(31 + length - hop) // hop)
    assert frames.shape == (2, count, length)
    for t in range(count):
        np.testing.assert_array_equal(frames[:, t], padded[:, t * hop : t * hop + length])

    other = np.random.default_rng(1).normal(size=frames.shape).astype(np.float32)
    total, held = np.zeros((2, 2, (count - 1) * hop + length))
    for t in range(count):
        total[:, t * hop : t * hop + length] += other[:, t]
        held[:, t * hop : t * hop + length] += 1
    expected = (total / held)[:, length - hop :][:, :31]
    inverse = jax.jit(shape.inverse, static_argnums=1)
    np.testing.assert_allclose(inverse(other, 31), expected, atol=1e-6)
    np.testing.assert_allclose(inverse(frames, 31), noisy, atol=1e-6)


def test_blocks_equal_the_whole_and_timing_is_the_stft_s():
    shape, stft, noisy = SampleFrames(8, 4), STFT(8, 8, 4), audio(24)
    state, back, frames, samples = shape.init_state(2), shape.init_state(2), [], []
    step, step_inverse = jax.jit(shape.step), jax.jit(shape.step_inverse)
    for start, end in ((0, 4), (4, 16), (16, 24)):
        state, block = step(state, noisy[:, start:end])
        back, out = step_inverse(back, block)
        frames.append(block)
        samples.append(out)
    whole = np.asarray(jax.jit(shape.forward)(noisy))
    np.testing.assert_array_equal(np.concatenate(frames, 1), whole[:, :6])
    np.testing.assert_allclose(np.concatenate(samples, 1)[:, 4:], noisy[:, :20], atol=1e-6)
    for length in (1, 4, 23, 24):
        assert shape.frames(length) == stft.frames(length)
    spectrum = np.fft.rfft(whole * stft.window)
    np.testing.assert_allclose(jax.jit(stft.forward)(noisy), spectrum, atol=1e-5)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="hop_length must divide win_length, got 3 and 8"):
        SampleFrames(8, 3)
    shape = SampleFrames(8, 4)
    with pytest.raises(ValueError, match=r"expected samples \(B, T \* 4\), got \(2, 5\)"):
        shape.step(shape.init_state(2), audio(5))
    with pytest.raises(ValueError, match=r"expected frames \(B, T, 8\), got \(2, 3, 7\)"):
        shape.step_inverse(shape.init_state(2), np.zeros((2, 3, 7)))
    with pytest.raises(ValueError, match="24 samples need 7 frames, got 6"):
        shape.inverse(np.zeros((2, 6, 8)), 24)
