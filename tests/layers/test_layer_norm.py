import jax
import jax.numpy as jnp
import numpy as np

from dynse.layers.layer_norm import EPS, LayerNorm, layer_norm


def test_values_by_hand_and_gradients_by_differences():
    draw = np.random.default_rng(0)
    scale, bias, x = draw.normal(size=5), draw.normal(size=5), draw.normal(2, 3, size=(2, 3, 5))

    def plain(scale, bias, x):
        y = np.empty_like(x)
        for index in np.ndindex(2, 3):
            row = x[index]
            var = ((row - row.mean()) ** 2).mean()
            y[index] = (row - row.mean()) / np.sqrt(var + EPS) * scale + bias
        return y

    with jax.enable_x64(True):
        weights, steps = draw.normal(size=x.shape), [draw.normal(size=s) for s in (5, 5, x.shape)]
        y, pull = jax.vjp(jax.jit(layer_norm), scale, bias, x)
        np.testing.assert_allclose(y, plain(scale, bias, x), atol=1e-12)
        gradients = pull(jnp.asarray(weights))
        for index, step in enumerate(steps):
            ends = []
            for sign in (1, -1):
                moved = [scale, bias, x]
                moved[index] = moved[index] + sign * 1e-5 * step
                ends.append((weights * plain(*moved)).sum())
            slope = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose((gradients[index] * step).sum(), slope, rtol=1e-6)


def test_a_constant_frame_stays_finite_and_the_module_starts_plain():
    x = jnp.full((1, 2, 4), 1000.1)
    variables = LayerNorm().init(jax.random.key(0), x)
    np.testing.assert_array_equal(variables["params"]["scale"], np.ones(4))
    np.testing.assert_array_equal(variables["params"]["bias"], np.zeros(4))
    assert np.abs(LayerNorm().apply(variables, x)).max() < 0.1
    own = {"params": {"scale": 2 * jnp.ones(4), "bias": jnp.arange(4.0)}}
    row = jnp.asarray([[[1.0, -1.0, 1.0, -1.0]]])
    np.testing.assert_allclose(LayerNorm().apply(own, row), 2 * row + jnp.arange(4), atol=1e-4)
