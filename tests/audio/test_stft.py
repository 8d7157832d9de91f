import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynse.audio.stft import STFT

SHAPES = [(512, 512, 256), (16, 16, 8), (16, 16, 4), (20, 12, 4), (20, 20, 10, "hamming")]
SMALL = STFT(8, 8, 2)


def signal(batch, length, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, length)).astype(np.float32)


def loop(x, n_fft, win, hop, kind="hann"):
    """Frame by frame: the zeros before, the window, the DFT."""
    window = np.hamming(win) if kind == "hamming" else np.hanning(win + 1)[:-1]
    count = -(-(x.shape[1] + win - hop) // hop)
    padded = np.zeros((len(x), win - hop + count * hop))
    padded[:, win - hop : win - hop + x.shape[1]] = x
    frames = [padded[:, t * hop : t * hop + win] * window for t in range(count)]
    return np.stack([np.fft.rfft(frame, n_fft) for frame in frames], axis=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_a_loop(shape):
    stft, x = STFT(*shape), signal(2, 3 * shape[1] + 5)
    spectrum = stft.forward(x)
    expected = loop(x, *shape)
    assert spectrum.dtype == jnp.complex64
    assert spectrum.shape == (2, stft.frames(x.shape[1]), stft.bins) == expected.shape
    np.testing.assert_allclose(spectrum, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_inverse_gives_the_signal_back_to_its_first_and_last_sample(shape):
    stft = STFT(*shape)
    for length in (1, 3 * shape[1] + 5):
        x = signal(2, length)
        restored = stft.inverse(stft.forward(x), length)
        assert restored.shape == x.shape
        np.testing.assert_allclose(restored, x, atol=1e-5)


def test_the_inverse_of_a_changed_spectrum_is_the_least_squares_signal():
    stft, length = STFT(8, 8, 4), 12
    # Frames as a linear map of the signal, and its pseudo-inverse over all covered samples.
    count, past = stft.frames(length), stft.past
    analysis = np.zeros((count * 8, past + count * 4))
    window = np.hanning(9)[:-1]
    for t in range(count):
        analysis[t * 8 : t * 8 + 8, t * 4 : t * 4 + 8] = np.diag(window)
    frames = np.random.default_rng(1).normal(size=(count, 8))
    solved = np.linalg.lstsq(analysis, frames.ravel(), rcond=None)[0]
    restored = stft.inverse(jnp.asarray(np.fft.rfft(frames))[None], length)[0]
    np.testing.assert_allclose(restored, solved[past : past + length], atol=1e-5)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_any_split_into_blocks_equals_the_whole(sizes):
    x = signal(2, 2 * sum(sizes))
    state, inverse_state = SMALL.init_state(2), SMALL.init_state(2)
    _, whole = SMALL.step(state, x)
    _, whole_samples = SMALL.step_inverse(inverse_state, whole)
    spectra, samples, start = [], [], 0
    for size in sizes:
        state, spectrum = SMALL.step(state, x[:, start : start + 2 * size])
        inverse_state, done = SMALL.step_inverse(inverse_state, spectrum)
        spectra.append(np.asarray(spectrum))
        samples.append(np.asarray(done))
        start += 2 * size
    np.testing.assert_allclose(np.concatenate(spectra, 1), whole, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(samples, 1), whole_samples, atol=1e-5)
    # What comes out is what went in, win_length - hop_length samples ago.
    delayed = np.concatenate([np.zeros((2, SMALL.past)), x], 1)[:, : x.shape[1]]
    np.testing.assert_allclose(np.concatenate(samples, 1), delayed, atol=1e-5)


def test_one_frame_sees_its_own_samples_alone():
    stft = STFT(16, 16, 4)
    x = np.zeros((1, 64), np.float32)
    x[0, 20:24] = 1  # samples 20 to 23 stand in the frames t with 4 t - 12 <= 23 and 4 t + 4 > 20
    heard = np.flatnonzero(np.abs(stft.forward(x))[0].sum(-1) > 1e-6)
    np.testing.assert_array_equal(heard, [5, 6, 7, 8])


def test_the_gradient_is_finite():
    gradient = jax.grad(lambda x: jnp.abs(SMALL.inverse(SMALL.forward(x), 6)).sum())(signal(1, 6))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((512, 512, 0), "0 < hop_length"),
        ((256, 512, 256), "win_length <= n_fft"),
        ((512, 512, 200), "must divide"),
        ((512, 512, 512), "leaves samples"),
        ((512, 512, 256, "hannn"), "hann or hamming, got 'hannn'"),
    ],
)
def test_impossible_shapes_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        STFT(*shape)


def test_wrong_blocks_are_refused():
    with pytest.raises(ValueError, match=r"got \(1, 3\)"):
        SMALL.step(SMALL.init_state(1), jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"\(B, T, 5\), got \(1, 2, 4\)"):
        SMALL.step_inverse(SMALL.init_state(1), jnp.zeros((1, 2, 4), jnp.complex64))
    with pytest.raises(ValueError, match="20 samples need 13 frames, got 2"):
        SMALL.inverse(jnp.zeros((1, 2, 5), jnp.complex64), 20)
