import jax
import jax.numpy as jnp
import numpy as np

from dynse.audio.features import compress, log_power, magnitude


def spectrum():
    draw = np.random.default_rng(0)
    return (draw.normal(size=(2, 3, 5)) + 1j * draw.normal(size=(2, 3, 5))).astype(np.complex64)


def test_values_by_numpy():
    x = spectrum()
    np.testing.assert_allclose(magnitude(x), np.abs(x), rtol=1e-6)
    np.testing.assert_allclose(compress(np.abs(x)), (np.abs(x) + 1e-9) ** 0.3, rtol=1e-5)
    np.testing.assert_allclose(compress(np.abs(x), 0.5), (np.abs(x) + 1e-9) ** 0.5, rtol=1e-5)
    np.testing.assert_allclose(log_power(x), np.log10(np.abs(x) ** 2), rtol=1e-4, atol=1e-6)


def test_silence():
    zero = jnp.zeros((1, 1, 2), jnp.complex64)
    assert not magnitude(zero).any()
    np.testing.assert_allclose(compress(magnitude(zero)), 1e-9**0.3, rtol=1e-5)
    np.testing.assert_allclose(log_power(zero), -12, rtol=1e-6)


def test_gradients_are_finite_at_zero_and_right_elsewhere():
    features = (magnitude, lambda x: compress(magnitude(x)), log_power)
    for feature in features:

        def objective(real, imag, feature=feature):
            return feature(jax.lax.complex(real, imag)).sum()

        gradients = jax.grad(objective, argnums=(0, 1))(jnp.zeros(3), jnp.zeros(3))
        assert all(np.isfinite(g).all() for g in gradients)
    by_real = jax.grad(lambda r: magnitude(jax.lax.complex(r, jnp.float32(4.0))))(3.0)
    np.testing.assert_allclose(by_real, 0.6, rtol=1e-6)
    assert jax.grad(lambda r: magnitude(jax.lax.complex(r, jnp.float32(0.0))))(0.0) == 0
