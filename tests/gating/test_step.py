import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.gating.step import (
    hard_step,
    init_moving_average,
    moving_average,
)
from dynse.gating.surrogates import gumbel_sigmoid, identity


def test_zero_and_nan_are_closed():
    scores = jnp.array([jnp.nan, 0.0, -0.0, -jnp.inf, jnp.inf, 1e-37])
    assert hard_step(scores).tolist() == [0, 0, 0, 0, 1, 1]


def test_add_and_subtract_idiom_fails_in_bfloat16():
    """Negative control: why the step is a custom_jvp."""
    scores = jnp.linspace(0.001, 400, 500, dtype=jnp.bfloat16)
    hard = (scores > 0).astype(scores.dtype)
    idiom = scores + (hard - scores)
    assert (idiom != 1).any()
    assert (hard_step(scores) == 1).all()


def test_integer_scores_are_refused():
    with pytest.raises(TypeError, match="int32"):
        hard_step(jnp.array([1, -1]))


def test_noise_opens_with_the_sigmoid_of_the_score():
    score = jnp.full(100_000, -1.0)
    opened = hard_step(score, gumbel_sigmoid, key=jax.random.key(0)).mean()
    assert float(opened) == pytest.approx(1 / (1 + np.e), abs=0.005)
    halved = hard_step(score, identity, key=jax.random.key(0), noise=0.5).mean()
    assert float(halved) == pytest.approx(1 / (1 + np.e**2), abs=0.005)
    np.testing.assert_array_equal(hard_step(score, key=jax.random.key(0), noise=0.0), 0)


def test_gumbel_derivative_is_taken_at_the_noisy_score():
    key, scores = jax.random.key(3), jnp.linspace(-2, 2, 9)
    noisy = scores + jax.random.logistic(key, scores.shape)
    gradient = jax.grad(lambda s: hard_step(s, gumbel_sigmoid, key=key).sum())(scores)
    np.testing.assert_allclose(gradient, gumbel_sigmoid(noisy), rtol=1e-6)
    assert not np.allclose(gradient, gumbel_sigmoid(scores))


def _running_mean_loop(x, window):
    y = np.zeros(x.shape)
    for t in range(x.shape[1]):
        for past in range(max(0, t - window + 1), t + 1):
            y[:, t] += x[:, past]
    return y / window


@pytest.mark.parametrize("window", [1, 2, 5, 16])
def test_moving_average_against_a_loop(window):
    x = np.random.default_rng(0).normal(size=(2, 23, 3)).astype(np.float32)
    state, y = moving_average(init_moving_average(2, 3, window), jnp.asarray(x), window)
    np.testing.assert_allclose(y, _running_mean_loop(x, window), atol=1e-6)
    assert state.shape == (2, window - 1, 3)
    np.testing.assert_array_equal(state, x[:, x.shape[1] - (window - 1) :])


@pytest.mark.parametrize("block", [1, 2, 7, 20])
def test_moving_average_of_blocks_is_bit_identical(block):
    window, x = 6, jax.random.normal(jax.random.key(0), (2, 20, 3))
    _, whole = moving_average(init_moving_average(2, 3, window), x, window)
    state, parts = init_moving_average(2, 3, window), []
    for start in range(0, 20, block):
        state, part = moving_average(state, x[:, start : start + block], window)
        parts.append(part)
    np.testing.assert_array_equal(jnp.concatenate(parts, axis=1), whole)


def _by_running_sum(x, window):
    padded = jnp.pad(jnp.cumsum(x, axis=1), ((0, 0), (window, 0), (0, 0)))
    return (padded[:, window:] - padded[:, :-window]) / window


def _by_ring(x, window):
    return moving_average(init_moving_average(*x.shape[::2], window), x, window)[1]


@pytest.mark.parametrize(("average", "forgets"), [(_by_ring, True), (_by_running_sum, False)])
def test_nan_is_forgotten(average, forgets):
    """A running sum is the negative control."""
    x = jnp.ones((1, 12, 2)).at[0, 3, 0].set(jnp.nan)
    y = average(x, 4)
    assert jnp.isnan(y[0, 3:7, 0]).all()
    assert bool(jnp.isfinite(y[0, 7:, 0]).all()) is forgets
    assert jnp.isfinite(y[..., 1]).all()


def test_wrong_window_is_refused():
    with pytest.raises(ValueError, match="window - 1 = 3"):
        moving_average(init_moving_average(1, 2, 6), jnp.ones((1, 5, 2)), 4)
    with pytest.raises(ValueError, match="at least 1 frame, got 0"):
        init_moving_average(1, 2, 0)
