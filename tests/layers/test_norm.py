import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.layers.norm import EPS, BatchNorm, normalize_batch

SHAPE = (3, 7, 4)


def inputs(seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=SHAPE) * [0.1, 1, 3, 10] + [0, 2, -5, 1]
    return draw.uniform(0.5, 2, 4), draw.normal(size=4), x


def plain(scale, bias, x, relu):
    """The textbook, two passes, differentiated by JAX."""
    mean = x.mean((0, 1))
    var = jnp.square(x - mean).mean((0, 1))
    y = scale * (x - mean) / jnp.sqrt(var + EPS) + bias
    return jnp.maximum(y, 0) if relu else y


@pytest.mark.parametrize("relu", [False, True])
def test_value_and_gradient_are_those_of_the_plain_formula(relu):
    with jax.enable_x64(True):
        weights = np.random.default_rng(9).normal(size=SHAPE)

        @jax.jit
        def both(*arguments):
            y, pull = jax.vjp(lambda *a: plain(*a, relu), *arguments)
            fast, fast_pull = jax.vjp(lambda *a: normalize_batch(*a, relu)[0], *arguments)
            return (y, *pull(weights)), (fast, *fast_pull(weights))

        expected, actual = both(*inputs())
        clipped = np.mean(np.asarray(expected[0]) == 0)
        assert 0.2 < clipped < 0.8 if relu else clipped == 0
        for e, a in zip(expected, actual, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-8, atol=1e-8 * np.abs(e).max())


def test_the_statistics_are_the_batch_s_and_pass_no_gradient():
    scale, bias, x = (jnp.asarray(a, jnp.float32) for a in inputs())
    _, mean, var = normalize_batch(scale, bias, x)
    np.testing.assert_allclose(mean, np.asarray(x).mean((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(var, np.asarray(x).var((0, 1)), rtol=1e-4)
    gradient = jax.grad(lambda x: sum(s.sum() for s in normalize_batch(scale, bias, x)[1:]))(x)
    assert not gradient.any()


def test_a_constant_channel_stays_finite():
    y, _, var = normalize_batch(jnp.ones(4), jnp.zeros(4), jnp.full(SHAPE, 1000.1))
    assert (var >= 0).all()
    assert np.isfinite(y).all()


def test_running_statistics_move_as_in_a_loop():
    norm, mean, var = BatchNorm(momentum=0.1), np.zeros(4), np.ones(4)
    scale, bias, _ = inputs()
    variables = {
        "params": {"scale": jnp.asarray(scale, jnp.float32), "bias": jnp.asarray(bias)},
        "batch_stats": {"mean": jnp.zeros(4), "var": jnp.ones(4)},
    }
    update = jax.jit(lambda v, x: norm.apply(v, x, train=True, mutable=["batch_stats"])[1])
    for seed in range(3):
        x = inputs(seed)[2]
        variables = {**variables, **update(variables, jnp.asarray(x, jnp.float32))}
        rows = x.reshape(-1, 4)
        mean = 0.9 * mean + 0.1 * rows.mean(0)
        var = 0.9 * var + 0.1 * rows.var(0, ddof=1)
    np.testing.assert_allclose(variables["batch_stats"]["mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(variables["batch_stats"]["var"], var, rtol=1e-4)

    x = inputs(7)[2]
    for relu in (False, True):
        y = BatchNorm(relu=relu).apply(variables, jnp.asarray(x, jnp.float32), train=False)
        expected = scale * (x - mean) / np.sqrt(var + EPS) + bias
        expected = np.maximum(expected, 0) if relu else expected
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_initialising_leaves_the_running_statistics_alone():
    x = jnp.asarray(inputs()[2], jnp.float32)
    variables = BatchNorm().init(jax.random.key(0), x, train=True)
    assert not variables["batch_stats"]["mean"].any()
    assert (variables["batch_stats"]["var"] == 1).all()


def test_frequencies_are_normalised_together_with_the_frames():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    for train in (False, True):

        @jax.jit
        def run(x, train=train):
            return BatchNorm().apply(variables, x, train=train, mutable=["batch_stats"])

        y, updated = run(x)
        rows, rows_updated = run(x.reshape(2, 15, 4))
        np.testing.assert_array_equal(y, rows.reshape(x.shape))
        jax.tree.map(np.testing.assert_array_equal, updated, rows_updated)
    np.testing.assert_allclose(np.asarray(y).mean((0, 1, 2)), 0, atol=1e-6)
