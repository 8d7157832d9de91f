import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.layers.conv import Depthwise, Pointwise, depthwise, pointwise


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def assert_close(actual, expected, tolerance=1e-12):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance),
        actual,
        expected,
    )


def convolve(kernel, signal, dilation, groups):
    """`lax`'s convolution of (B, T, C) with (K, C / groups, D), no padding."""
    return jax.lax.conv_general_dilated(
        signal,
        kernel,
        (1,),
        "VALID",
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
    )


def values_and_gradients(function, *arguments):
    """Of a weighted sum of the outputs, by all arguments; jitted."""

    @jax.jit
    def run(*arguments):
        y, pull = jax.vjp(function, *arguments)
        weights = jnp.asarray(normal(*y.shape, seed=99))
        return y, pull(weights)

    return run(*arguments)


def test_pointwise_is_the_convolution_of_one_tap_forward_and_backward():
    with jax.enable_x64(True):
        arguments = normal(4, 3), normal(2, 5, 4, seed=1)
        expected = values_and_gradients(lambda w, x: convolve(w[None], x, 1, 1), *arguments)
        actual = values_and_gradients(pointwise, *arguments)
        assert actual[0].dtype == jnp.float64
        assert_close(actual, expected)


@pytest.mark.parametrize(("taps", "dilation"), [(3, 1), (3, 4), (2, 2), (1, 1)])
def test_depthwise_is_the_grouped_convolution_forward_and_backward(taps, dilation):
    past, frames, channels = (taps - 1) * dilation, 6, 4

    def reference(kernel, state, x):
        signal = jnp.concatenate([state, x], axis=1)
        return convolve(kernel[:, None], signal, dilation, channels)

    with jax.enable_x64(True):
        arguments = (
            normal(taps, channels),
            normal(2, past, channels, seed=1),
            normal(2, frames, channels, seed=2),
        )
        expected = values_and_gradients(reference, *arguments)
        actual = values_and_gradients(lambda *a: depthwise(*a, dilation)[1], *arguments)
        assert_close(actual, expected)


def test_the_state_is_the_last_frames_also_of_a_block_shorter_than_it():
    state, x = normal(1, 4, 2), normal(1, 3, 2, seed=1)
    kept, _ = depthwise(jnp.ones((3, 2)), jnp.asarray(state), jnp.asarray(x), 2)
    assert_close(kept, np.concatenate([state, x], axis=1)[:, -4:], 1e-6)


def test_a_wrong_gradient_would_be_seen():
    @jax.custom_vjp
    def halved(w, x):
        return pointwise(w, x)

    halved.defvjp(lambda w, x: (pointwise(w, x), x), lambda x, dy: (jnp.zeros((4, 3)), 0.5 * x))
    with jax.enable_x64(True):
        arguments = normal(4, 3), normal(2, 5, 4, seed=1)
        expected = values_and_gradients(lambda w, x: convolve(w[None], x, 1, 1), *arguments)
        with pytest.raises(AssertionError):
            assert_close(values_and_gradients(halved, *arguments), expected)


def test_modules_name_and_start_their_parameters():
    x = jnp.ones((1, 2, 16))
    params = Pointwise(400).init(jax.random.key(0), x)["params"]
    assert {name: leaf.shape for name, leaf in params.items()} == {
        "kernel": (16, 400),
        "bias": (400,),
    }
    for leaf in params.values():  # U(-1/4, 1/4) for 16 inputs
        assert 0.24 < np.abs(leaf).max() <= 0.25
        assert np.abs(leaf.mean()) < 0.05
    assert set(Pointwise(4, use_bias=False).init(jax.random.key(0), x)["params"]) == {"kernel"}
    taps = Depthwise(4, 2).init(jax.random.key(0), jnp.zeros((1, 6, 400)), jnp.ones((1, 2, 400)))
    assert taps["params"]["kernel"].shape == (4, 400)
    assert 0.48 < np.abs(taps["params"]["kernel"]).max() <= 0.5
    biased = Depthwise(4, use_bias=True)
    taps = biased.init(jax.random.key(0), jnp.zeros((1, 3, 400)), jnp.ones((1, 2, 400)))
    assert taps["params"]["bias"].shape == (400,)


def test_the_modules_add_their_biases():
    kernel, bias = jnp.asarray([[1.0, 2.0], [3.0, 4.0]]), jnp.asarray([1.0, -2.0])
    state, x = jnp.asarray([[[1.0, 1.0]]]), jnp.asarray([[[10.0, 100.0]]])
    arguments = {"params": {"kernel": kernel, "bias": bias}}, state, x
    _, y = Depthwise(2, use_bias=True).apply(*arguments)
    assert_close(y, np.array([[[1.0 + 30.0 + 1.0, 2.0 + 400.0 - 2.0]]]))
    variables = {"params": {"kernel": jnp.eye(2), "bias": jnp.asarray([1.0, -2.0])}}
    assert_close(
        Pointwise(2).apply(variables, jnp.asarray([[[3.0, 5.0]]])), np.array([[[4.0, 3.0]]])
    )
