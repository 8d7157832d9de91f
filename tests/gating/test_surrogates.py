"""One table: every surrogate goes through the same properties."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.gating.step import hard_step
from dynse.gating.surrogates import SURROGATES, arctan, fast_sigmoid, sigmoid

SCORES = np.array([-3.0, -1.0, -0.3, 0.0, 1e-30, 0.2, 1.0, 2.5], np.float32)


def _sigmoid_slope(s):
    return np.exp(-s) / (1 + np.exp(-s)) ** 2


# name: the formula in NumPy, and the height of the soft step it is the derivative of (its
# integral; None where it has none).
TABLE = {
    "identity": (lambda s: np.ones_like(s), None),
    "clipped": (lambda s: np.where(np.abs(s) <= 1, 1.0, 0.0), 2.0),
    "sigmoid": (_sigmoid_slope, 1.0),
    "fast_sigmoid": (lambda s: (1 + 2 * np.abs(s)) ** -2.0, 1.0),
    "arctan": (lambda s: 1 / (1 + (np.pi * s) ** 2), 1.0),
    "gumbel_sigmoid": (_sigmoid_slope, 1.0),
}
every_surrogate = pytest.mark.parametrize("name", sorted(SURROGATES))


def test_table_covers_every_surrogate():
    assert TABLE.keys() == SURROGATES.keys()


@every_surrogate
def test_gradient_is_surrogate_times_cotangent(name):
    cotangent = jnp.arange(1.0, 1 + len(SCORES))

    @jax.jit
    def gradient(scores):
        return jax.grad(lambda s: (hard_step(s, SURROGATES[name]) * cotangent).sum())(scores)

    expected = TABLE[name][0](SCORES.astype(np.float64)) * np.asarray(cotangent)
    np.testing.assert_allclose(gradient(jnp.asarray(SCORES)), expected, rtol=1e-5)


@every_surrogate
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_exact_zeros_and_ones_in_the_scores_dtype(name, dtype):
    scores = jnp.asarray(SCORES, dtype)
    gate, pullback = jax.vjp(jax.jit(partial(hard_step, surrogate=SURROGATES[name])), scores)
    assert gate.dtype == dtype
    np.testing.assert_array_equal(np.asarray(gate, np.float32), np.asarray(scores, np.float32) > 0)
    assert pullback(jnp.ones_like(gate))[0].dtype == dtype


@every_surrogate
def test_symmetric_and_finite(name):
    surrogate = SURROGATES[name]
    scores = jnp.array([0.0, 0.5, 1.0, 3.0, 80.0, 1e4, jnp.inf])
    np.testing.assert_allclose(surrogate(scores), surrogate(-scores), rtol=1e-5, atol=1e-7)
    assert jnp.isfinite(surrogate(scores)).all()


@every_surrogate
def test_integral_is_the_height_of_the_soft_step(name):
    height = TABLE[name][1]
    if height is None:
        pytest.skip("straight-through has no soft step")
    # s = sinh(u) spaces the samples so that the slow tails of 1 / s^2 are reached.
    u = np.linspace(-16, 16, 200_001)
    values = np.asarray(SURROGATES[name](jnp.asarray(np.sinh(u), jnp.float32)), np.float64)
    assert np.trapezoid(values * np.cosh(u), u) == pytest.approx(height, rel=1e-3)


@pytest.mark.parametrize(
    ("surrogate", "peak"),
    [
        (partial(sigmoid, temperature=0.25), 1.0),
        (partial(sigmoid, temperature=2.0), 0.125),
        (partial(fast_sigmoid, slope=10.0), 1.0),
        (partial(arctan, slope=10.0), 1.0),
    ],
)
def test_parameters_change_the_width(surrogate, peak):
    assert float(surrogate(jnp.float32(0))) == pytest.approx(peak)
    assert float(surrogate(jnp.float32(50))) < 0.01 * peak


def test_temperature_may_be_traced():
    @jax.jit
    def gradient(temperature):
        surrogate = partial(sigmoid, temperature=temperature)
        return jax.grad(lambda s: hard_step(s, surrogate))(0.0)

    assert float(gradient(0.5)) == pytest.approx(0.5)
    assert float(gradient(0.25)) == pytest.approx(1.0)
