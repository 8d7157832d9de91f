from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynse.layers import lstm as module
from dynse.layers.lstm import LONG_BLOCK, LSTM, lstm, lstm_cost

BATCH, FRAMES, INPUTS, WIDTH = 2, LONG_BLOCK + 2, 3, 5


def draw(two_biases=True, scale=1.0, seed=0, frames=FRAMES):
    """params, state, x and weights of the outputs, float64."""
    rng = np.random.default_rng(seed)
    params = {
        "input_kernel": rng.normal(size=(INPUTS, 4 * WIDTH)),
        "hidden_kernel": scale * rng.normal(size=(WIDTH, 4 * WIDTH)),
        "input_bias": rng.normal(size=4 * WIDTH),
    }
    if two_biases:
        params["hidden_bias"] = rng.normal(size=4 * WIDTH)
    h, c, dh, dc = rng.normal(size=(4, BATCH, WIDTH))
    x = scale * rng.normal(size=(BATCH, frames, INPUTS))
    return params, (h, c), x, ((dh, dc), rng.normal(size=(BATCH, frames, WIDTH)))


def differentiate(recurrence):
    """jitted: the outputs, and the gradients of their weighted sum by params, state and x.

    Args:
        recurrence: that long blocks go through.
    """

    @jax.jit
    def run(params, state, x, weights):
        with mock.patch.object(module, "_long_recurrence", recurrence):
            outputs, pull = jax.vjp(lstm, params, state, x)
        return outputs, pull(weights)

    return run


by_hand = differentiate(module._long_recurrence)
plain = differentiate(module._recurrence)


def assert_close(actual, expected, tolerance=1e-9):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * np.abs(e).max()),
        actual,
        expected,
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loop(params, state, x, order="ifgo"):
    """The equations, frame by frame in NumPy."""
    (h, c), outputs = state, []
    for t in range(x.shape[1]):
        a = x[:, t] @ params["input_kernel"] + h @ params["hidden_kernel"]
        a = a + params["input_bias"] + params.get("hidden_bias", 0)
        gate = dict(zip(order, np.split(a, 4, axis=1), strict=True))
        c = sigmoid(gate["f"]) * c + sigmoid(gate["i"]) * np.tanh(gate["g"])
        h = sigmoid(gate["o"]) * np.tanh(c)
        outputs.append(h)
    return (h, c), np.stack(outputs, axis=1)


@pytest.mark.parametrize("two_biases", [True, False])
@pytest.mark.parametrize("frames", [1, FRAMES])
def test_values_are_those_of_a_numpy_loop(frames, two_biases):
    params, state, x, _ = draw(two_biases, frames=frames)
    with jax.enable_x64(True):
        actual = jax.jit(lstm)(params, state, x)
        assert_close(actual, loop(params, state, x), 1e-12)
        with pytest.raises(AssertionError):
            assert_close(actual, loop(params, state, x, order="figo"))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1e-3, 1.0, 30.0]))
def test_the_gradient_by_hand_is_that_of_autodiff(seed, scale):
    arguments = draw(scale=scale, seed=seed)
    with jax.enable_x64(True):
        actual, expected = by_hand(*arguments), plain(*arguments)
        assert_close(actual[0], expected[0])
        # A saturated gate's gradient is all rounding: each is measured by the largest.
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
        for a, e in zip(*map(jax.tree.leaves, (actual[1], expected[1])), strict=True):
            np.testing.assert_allclose(a, e, rtol=0, atol=1e-9 * largest)


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_wrong_gradient_would_be_seen(wrong):
    def backward(residuals, cotangents):
        gradients = list(module._long_backward(residuals, cotangents))
        gradients[wrong] = jax.tree.map(lambda leaf: 0.999 * leaf, gradients[wrong])
        return tuple(gradients)

    broken = jax.custom_vjp(module._recurrence)
    broken.defvjp(module._long_forward, backward)
    arguments = draw()
    with jax.enable_x64(True), pytest.raises(AssertionError):
        assert_close(differentiate(broken)(*arguments), plain(*arguments))


def test_values_and_gradients_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    params, state, x, (dstate, dy) = draw()
    net = torch.nn.LSTM(INPUTS, WIDTH, batch_first=True).double()
    names = {
        "weight_ih_l0": "input_kernel",
        "weight_hh_l0": "hidden_kernel",
        "bias_ih_l0": "input_bias",
        "bias_hh_l0": "hidden_bias",
    }
    with torch.no_grad():
        for name, own in names.items():
            getattr(net, name).copy_(torch.tensor(params[own].T))
    h, c, frames = (torch.tensor(one, requires_grad=True) for one in (*state, x))
    y, last = net(frames, (h[None], c[None]))
    pairs = [(dy, y), (dstate[0], last[0][0]), (dstate[1], last[1][0])]
    sum((torch.tensor(weight) * value).sum() for weight, value in pairs).backward()
    gradients = {own: getattr(net, name).grad.numpy().T for name, own in names.items()}
    expected = (
        (tuple(one[0].detach().numpy() for one in last), y.detach().numpy()),
        (gradients, (h.grad.numpy(), c.grad.numpy()), frames.grad.numpy()),
    )
    with jax.enable_x64(True):
        assert_close(by_hand(params, state, x, (dstate, dy)), expected)


@pytest.mark.parametrize("two_biases", [True, False])
def test_the_module_names_and_starts_its_parameters(two_biases):
    layer = LSTM(400, two_biases)
    x = jnp.ones((1, 1, 257))
    params = jax.jit(layer.init)(jax.random.key(0), layer.init_state(1), x)["params"]
    expected = {
        "input_kernel": (257, 1600),
        "hidden_kernel": (400, 1600),
        "input_bias": (1600,),
        "hidden_bias": (1600,),
    }
    if not two_biases:
        del expected["hidden_bias"]
    assert {name: leaf.shape for name, leaf in params.items()} == expected
    for leaf in params.values():  # U(-1/20, 1/20) for 400 units
        assert 0.0495 < np.abs(leaf).max() <= 0.05
        assert np.abs(leaf.mean()) < 0.005
    cost = lstm_cost("lstm", 257, 400, two_biases=two_biases)
    assert cost.params == sum(leaf.size for leaf in params.values())
    assert cost.macs == params["input_kernel"].size + params["hidden_kernel"].size
