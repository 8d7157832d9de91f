from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynse.layers import gru as module
from dynse.layers.gru import GRU, LONG_BLOCK, gru, gru_cost

BATCH, FRAMES, INPUTS, WIDTH = 2, LONG_BLOCK + 2, 3, 5


def draw(two_biases=True, scale=1.0, seed=0, frames=FRAMES):
    """params, state, x and weights of the outputs, float64."""
    rng = np.random.default_rng(seed)
    params = {
        "input_kernel": rng.normal(size=(INPUTS, 3 * WIDTH)),
        "hidden_kernel": scale * rng.normal(size=(WIDTH, 3 * WIDTH)),
        "input_bias": rng.normal(size=3 * WIDTH),
        "hidden_bias": rng.normal(size=3 * WIDTH if two_biases else WIDTH),
    }
    state = rng.normal(size=(BATCH, WIDTH))
    x = scale * rng.normal(size=(BATCH, frames, INPUTS))
    weights = (rng.normal(size=state.shape), rng.normal(size=(BATCH, frames, WIDTH)))
    return params, state, x, weights


def differentiate(recurrence):
    """jitted: the outputs, and the gradients of their weighted sum by params, state and x.

    Args:
        recurrence: that long blocks go through.
    """

    @jax.jit
    def run(params, state, x, weights):
        with mock.patch.object(module, "_long_recurrence", recurrence):
            outputs, pull = jax.vjp(gru, params, state, x)
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


def loop(params, state, x, order="rzn"):
    """The equations, frame by frame in NumPy."""
    width = state.shape[-1]
    columns = {gate: slice(k * width, (k + 1) * width) for k, gate in enumerate(order)}
    from_hidden = np.zeros(3 * width)
    from_hidden[-len(params["hidden_bias"]) :] = params["hidden_bias"]
    h, outputs = state, []
    for t in range(x.shape[1]):
        a = {g: x[:, t] @ params["input_kernel"][:, c] for g, c in columns.items()}
        b = {g: h @ params["hidden_kernel"][:, c] + from_hidden[c] for g, c in columns.items()}
        a = {g: a[g] + params["input_bias"][c] for g, c in columns.items()}
        r, z = sigmoid(a["r"] + b["r"]), sigmoid(a["z"] + b["z"])
        n = np.tanh(a["n"] + r * b["n"])
        h = (1 - z) * n + z * h
        outputs.append(h)
    return h, np.stack(outputs, axis=1)


@pytest.mark.parametrize("two_biases", [True, False])
@pytest.mark.parametrize("frames", [1, FRAMES])
def test_values_are_those_of_a_numpy_loop(frames, two_biases):
    params, state, x, _ = draw(two_biases, frames=frames)
    with jax.enable_x64(True):
        actual = jax.jit(gru)(params, state, x)
        assert_close(actual, loop(params, state, x), 1e-12)
        with pytest.raises(AssertionError):
            assert_close(actual, loop(params, state, x, order="zrn"))


@pytest.mark.parametrize("two_biases", [True, False])
def test_the_gradient_by_hand_is_that_of_autodiff(two_biases):
    arguments = draw(two_biases)
    with jax.enable_x64(True):
        expected = plain(*arguments)
        assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected))
        assert_close(by_hand(*arguments), expected)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1e-3, 1.0, 30.0]))
def test_it_is_also_where_gates_saturate(seed, scale):
    arguments = draw(scale=scale, seed=seed)
    with jax.enable_x64(True):
        actual, expected = by_hand(*arguments), plain(*arguments)
        assert_close(actual[0], expected[0])
        # A saturated gate's gradient is all rounding: each is measured by the largest.
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
        for a, e in zip(*map(jax.tree.leaves, (actual[1], expected[1])), strict=True):
            np.testing.assert_allclose(a, e, rtol=0, atol=1e-9 * largest)


@pytest.mark.parametrize("wrong", [0, 3])
def test_a_wrong_gradient_would_be_seen(wrong):
    def backward(residuals, dy):
        gradients = list(module._long_backward(residuals, dy))
        gradients[wrong] = 0.999 * gradients[wrong]
        return tuple(gradients)

    broken = jax.custom_vjp(module._recurrence)
    broken.defvjp(module._long_forward, backward)
    arguments = draw()
    with jax.enable_x64(True), pytest.raises(AssertionError):
        assert_close(differentiate(broken)(*arguments), plain(*arguments))


def test_values_and_gradients_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    params, state, x, (dstate, dy) = draw()
    net = torch.nn.GRU(INPUTS, WIDTH, batch_first=True).double()
    names = {
        "weight_ih_l0": "input_kernel",
        "weight_hh_l0": "hidden_kernel",
        "bias_ih_l0": "input_bias",
        "bias_hh_l0": "hidden_bias",
    }
    with torch.no_grad():
        for name, own in names.items():
            getattr(net, name).copy_(torch.tensor(params[own].T))
    inputs = [torch.tensor(state, requires_grad=True), torch.tensor(x, requires_grad=True)]
    y, last = net(inputs[1], inputs[0][None])
    ((torch.tensor(dy) * y).sum() + (torch.tensor(dstate) * last[0]).sum()).backward()
    gradients = {own: getattr(net, name).grad.numpy().T for name, own in names.items()}
    expected = (
        (last[0].detach().numpy(), y.detach().numpy()),
        (gradients, *(one.grad.numpy() for one in inputs)),
    )
    with jax.enable_x64(True):
        assert_close(by_hand(params, state, x, (dstate, dy)), expected)


def test_one_bias_is_the_convention_of_flax():
    params, state, x, _ = (jax.tree.map(np.float32, one) for one in draw(two_biases=False))
    columns = {gate: slice(k * WIDTH, (k + 1) * WIDTH) for k, gate in enumerate("rzn")}
    cell = {}
    for gate, c in columns.items():
        cell[f"i{gate}"] = {
            "kernel": params["input_kernel"][:, c],
            "bias": params["input_bias"][c],
        }
        cell[f"h{gate}"] = {"kernel": params["hidden_kernel"][:, c]}
    cell["hn"]["bias"] = params["hidden_bias"]
    rnn = nn.RNN(nn.GRUCell(WIDTH))
    expected = jax.jit(rnn.apply)({"params": {"cell": cell}}, x, initial_carry=state)
    assert_close(jax.jit(gru)(params, state, x)[1], expected, 1e-6)


@pytest.mark.parametrize(("two_biases", "hidden_bias"), [(True, (1200,)), (False, (400,))])
def test_the_module_names_and_starts_its_parameters(two_biases, hidden_bias):
    layer = GRU(400, two_biases)
    x = jnp.ones((1, 1, 257))
    params = jax.jit(layer.init)(jax.random.key(0), layer.init_state(1), x)["params"]
    assert {name: leaf.shape for name, leaf in params.items()} == {
        "input_kernel": (257, 1200),
        "hidden_kernel": (400, 1200),
        "input_bias": (1200,),
        "hidden_bias": hidden_bias,
    }
    for leaf in params.values():  # U(-1/20, 1/20) for 400 units
        assert 0.0495 < np.abs(leaf).max() <= 0.05
        assert np.abs(leaf.mean()) < 0.005
    cost = gru_cost("gru", 257, 400, two_biases=two_biases)
    assert cost.params == sum(leaf.size for leaf in params.values())
    assert cost.macs == params["input_kernel"].size + params["hidden_kernel"].size


def test_a_hidden_bias_of_another_size_is_named():
    params, state, x, _ = draw()
    with pytest.raises(ValueError, match=r"hidden_bias \(15,\) or \(5,\), got \(10,\)"):
        gru({**params, "hidden_bias": np.zeros(10)}, state, x)
