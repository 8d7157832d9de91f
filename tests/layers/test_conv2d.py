import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.layers.conv2d import (
    GLU,
    Conv2d,
    Deconv2d,
    conv2d,
    conv2d_cost,
    conv_width,
    deconv2d,
    deconv2d_cost,
    deconv_width,
)

WIDTH, CHANNELS, FEATURES = 7, 3, 4


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def inputs(taps):
    """Kernel, past and frames (B, T, F, C)."""
    return (
        normal(*taps, CHANNELS, FEATURES),
        normal(2, taps[0] - 1, WIDTH, CHANNELS, seed=1),
        normal(2, 5, WIDTH, CHANNELS, seed=2),
    )


def by_torch(transposed, kernel, past, x, stride, padding, output_padding=0):
    """Values and gradients of a weighted sum by kernel, past and frames, from PyTorch."""
    torch = pytest.importorskip("torch")
    leaves = [torch.tensor(one, requires_grad=True) for one in (kernel, past, x)]
    weight, signal = leaves[0], torch.cat(leaves[1:], 1).permute(0, 3, 1, 2)
    if transposed:
        y = torch.nn.functional.conv_transpose2d(
            signal,
            weight.permute(2, 3, 0, 1),
            stride=(1, stride),
            padding=(0, padding),
            output_padding=(0, output_padding),
        )
        start = kernel.shape[0] - 1  # frames of the past, and at the end those of the future
        y = y[:, :, start : start + x.shape[1]]
    else:
        y = torch.nn.functional.conv2d(
            signal, weight.permute(3, 2, 0, 1), stride=(1, stride), padding=(0, padding)
        )
    y = y.permute(0, 2, 3, 1)
    (torch.tensor(normal(*y.shape, seed=9)) * y).sum().backward()
    return [y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]


def by_jax(layer, kernel, past, x):
    """The same of one of our functions."""

    @jax.jit
    def run(kernel, past, x):
        def values(kernel, past, x):
            return layer(kernel, past if past.shape[1] else None, x)[1]

        y, pull = jax.vjp(values, kernel, past, x)
        return [y, *pull(jnp.asarray(normal(*y.shape, seed=9)))]

    return run(kernel, past, x)


@pytest.mark.parametrize(
    ("taps", "stride", "padding"), [((1, 3), 2, 0), ((2, 5), 1, 2), ((3, 5), 2, 1)]
)
def test_the_convolution_is_that_of_pytorch_forward_and_backward(taps, stride, padding):
    with jax.enable_x64(True):
        layer = functools.partial(conv2d, stride=stride, padding=padding)
        actual = by_jax(layer, *inputs(taps))
        expected = by_torch(False, *inputs(taps), stride, padding)
        assert actual[0].shape[2] == conv_width(WIDTH, taps[1], stride, padding)
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, e, atol=1e-12)


@pytest.mark.parametrize(
    ("taps", "stride", "padding", "output_padding"),
    [
        ((1, 3), 2, 0, 0),
        ((1, 3), 2, 0, 1),
        ((2, 5), 1, 2, 0),
        ((2, 5), 2, 1, 1),
        ((3, 4), 3, 0, 2),
        ((1, 1), 2, 0, 1),
    ],
)
def test_the_transposed_one_is_that_of_pytorch_forward_and_backward(
    taps, stride, padding, output_padding
):
    with jax.enable_x64(True):
        shape = {"stride": stride, "padding": padding, "output_padding": output_padding}
        actual = by_jax(functools.partial(deconv2d, **shape), *inputs(taps))
        expected = by_torch(True, *inputs(taps), stride, padding, output_padding)
        assert actual[0].shape[2] == deconv_width(WIDTH, taps[1], *shape.values())
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, e, atol=1e-12)


@pytest.mark.parametrize("layer", [conv2d, deconv2d])
def test_the_state_is_the_last_frames_also_of_a_block_shorter_than_it(layer):
    kernel, past, x = inputs((4, 3))
    state, _ = layer(kernel, past, x[:, :2])
    np.testing.assert_array_equal(state, jnp.concatenate([past, x], axis=1)[:, 2:5])
    with pytest.raises(ValueError, match="expected a state of 3 frames, got 0"):
        layer(kernel, None, x)
    with pytest.raises(ValueError, match="expected a state of 0 frames, got 3"):
        layer(kernel[:1], past, x)


@pytest.mark.parametrize("kind", [Conv2d, Deconv2d])
def test_modules_name_and_start_their_parameters_and_gate(kind):
    taps, stride = (2, 3), 2
    own = functools.partial(kind, FEATURES, taps, stride)
    _, past, x = (one.astype(np.float32) for one in inputs(taps))
    params = jax.jit(GLU(own).init)(jax.random.key(0), past, x)["params"]
    shapes = {"kernel": (*taps, CHANNELS, FEATURES), "bias": (FEATURES,)}
    assert jax.tree.map(jnp.shape, params) == {"linear": shapes, "sigmoid": shapes}
    bound = (2 * 3 * CHANNELS) ** -0.5
    kernel = np.abs(params["linear"]["kernel"])
    assert 0.9 * bound < kernel.max() <= bound

    function = {Conv2d: conv2d, Deconv2d: deconv2d}[kind]
    halves = {}
    for half, part in params.items():
        state, y = function(part["kernel"], past, x, stride=stride)
        halves[half] = np.asarray(y + part["bias"], np.float64)
    after, y = GLU(own).apply({"params": params}, past, x)
    expected = halves["linear"] / (1 + np.exp(-halves["sigmoid"]))
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_array_equal(after, state)


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_macs_are_those_that_xla_counts():
    """Two flops a MAC. Beside them the transposed one adds up what its taps gave."""
    frames, width, channels, features, taps = 6, 19, 32, 8, (2, 3)
    kernel = jnp.ones((*taps, channels, features))
    past, x = jnp.ones((1, 1, width, channels)), jnp.ones((1, frames, width, channels))
    cost = conv2d_cost("a", taps, channels, features, outputs=conv_width(width, 3, 2))
    run = functools.partial(conv2d, stride=2)
    assert flops(lambda *a: run(*a)[1], kernel, past, x) == 2 * frames * cost.macs
    outputs = deconv_width(width, 3, 2)
    cost = deconv2d_cost("a", taps, channels, features, inputs=width, outputs=outputs)
    run = functools.partial(deconv2d, stride=2)
    done = flops(lambda *a: run(*a)[1], kernel, past, x) / frames
    assert 2 * cost.macs <= done <= 1.1 * 2 * cost.macs < 2 * cost.macs_at_outputs
