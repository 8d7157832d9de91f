import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.layers.gru import gru
from dynse.layers.lstm import lstm
from dynse.pruning import shrink

BATCH, FRAMES = 3, 7
FDNN = [
    ("fc1", jax.nn.relu),
    ("fc2", jax.nn.sigmoid),
    ("fc3", None),
    ("fc4", jax.nn.sigmoid),
]
LSTMS = [("lstm1", None), ("lstm2", None), ("lstm3", None), ("fc", jax.nn.relu)]
GRUS = [("fc1", jnp.tanh), ("gru1", None), ("gru2", None), ("fc2", jax.nn.sigmoid)]


def dense(rng, inputs, width):
    return {
        "kernel": rng.normal(0, inputs**-0.5, (inputs, width)).astype(np.float32),
        "bias": rng.normal(0, 0.5, width).astype(np.float32),
    }


def recurrent(rng, gates, inputs, width, *, hidden_bias=None):
    layer = {
        "input_kernel": rng.normal(0, inputs**-0.5, (inputs, gates * width)),
        "hidden_kernel": rng.normal(0, width**-0.5, (width, gates * width)),
        "input_bias": rng.normal(0, 0.5, gates * width),
    }
    if hidden_bias:
        layer["hidden_bias"] = rng.normal(0, 0.5, hidden_bias)
    return {name: tensor.astype(np.float32) for name, tensor in layer.items()}


def apply(params, chain, x):
    """(B, T, in) -> (B, T, out), by the shapes of the parameters alone."""
    for path, activation in chain:
        layer = params[path]
        if "kernel" in layer:
            x = x @ layer["kernel"] + layer.get("bias", 0)
            x = x if activation is None else activation(x)
            continue
        zeros = jnp.zeros((len(x), len(layer["hidden_kernel"])))
        is_lstm = layer["hidden_kernel"].shape[1] == 4 * zeros.shape[1]
        _, x = lstm(layer, (zeros, zeros), x) if is_lstm else gru(layer, zeros, x)
    return x


def macs(params, chain):
    """Per frame: one a weight."""
    return sum(
        tensor.size
        for path, _ in chain
        for name, tensor in params[path].items()
        if name.endswith("kernel")
    )


def check(params, chain):
    """Same outputs to 1e-5, fewer MACs; the units that are left."""
    inputs = params[chain[0][0]]
    inputs = len(inputs["kernel"] if "kernel" in inputs else inputs["input_kernel"])
    x = np.random.default_rng(5).standard_normal((BATCH, FRAMES, inputs)).astype(np.float32)
    before = np.array(jax.tree.leaves(params)[0])
    smaller, units = shrink(params, chain)
    np.testing.assert_array_equal(jax.tree.leaves(params)[0], before)
    np.testing.assert_allclose(apply(smaller, chain, x), apply(params, chain, x), atol=1e-5)
    assert macs(smaller, chain) < macs(params, chain)
    return smaller, {path: kept.tolist() for path, kept in units.items()}


def test_dense_layers():
    rng = np.random.default_rng(0)
    params = {
        "fc1": dense(rng, 5, 6),
        "fc2": dense(rng, 6, 8),
        "fc3": dense(rng, 8, 7),
        "fc4": dense(rng, 7, 4),
        "elsewhere": np.ones(3),
    }
    params["fc1"]["kernel"][:, [0, 3]] = 0  # two constants, of positive and negative bias
    params["fc1"]["bias"][[0, 3]] = 0.7, -0.7
    params["fc2"]["kernel"][[1, 2, 4, 5], 6] = 0  # with those two folded, a constant as well
    params["fc4"]["kernel"][2] = 0  # not heard
    params["fc3"]["kernel"][1, [0, 1, 3, 4, 5, 6]] = 0  # heard by that one alone
    smaller, units = check(params, FDNN)
    assert units == {
        "fc1": [1, 2, 4, 5],
        "fc2": [0, 2, 3, 4, 5, 7],
        "fc3": [0, 1, 3, 4, 5, 6],
        "fc4": [0, 1, 2, 3],
    }
    assert smaller["fc2"]["kernel"].shape == (4, 6)
    assert smaller["elsewhere"] is params["elsewhere"]


def test_the_constants_are_what_makes_it_exact():
    """Negative control: a unit without inputs, dropped and not folded, is heard."""
    rng = np.random.default_rng(0)
    params = {"fc1": dense(rng, 5, 6), "fc4": dense(rng, 6, 4)}
    chain = [FDNN[0], FDNN[3]]
    params["fc1"]["kernel"][:, 0], params["fc1"]["bias"][0] = 0, 0.7
    smaller, _ = check(params, chain)
    unfolded = {**smaller, "fc4": {**smaller["fc4"], "bias": params["fc4"]["bias"]}}
    x = np.ones((1, 1, 5), np.float32)
    assert abs(apply(unfolded, chain, x) - apply(params, chain, x)).max() > 0.01


def test_without_biases():
    """Nowhere to fold a constant into: it stays, unless it is 0."""
    rng = np.random.default_rng(1)
    params = {"fc1": dense(rng, 5, 4), "fc4": {"kernel": dense(rng, 4, 3)["kernel"]}}
    chain = [FDNN[0], FDNN[3]]
    params["fc1"]["kernel"][:, :2] = 0
    params["fc1"]["bias"][:2] = 1, -1
    assert check(params, chain)[1] == {"fc1": [0, 2, 3], "fc4": [0, 1, 2]}


@pytest.mark.parametrize("hidden_biases", [True, False])
def test_stacked_lstms(hidden_biases):
    rng = np.random.default_rng(2)
    biases = 4 * 6 if hidden_biases else None
    params = {
        "lstm1": recurrent(rng, 4, 5, 6, hidden_bias=biases),
        "lstm2": recurrent(rng, 4, 6, 6, hidden_bias=biases),
        "lstm3": recurrent(rng, 4, 6, 6, hidden_bias=biases),
        "fc": dense(rng, 6, 4),
    }

    def silence(index, unit, heard_by=()):
        """Nothing behind the layer hears the unit, within it those in `heard_by` alone."""
        following = params["fc" if index == 3 else f"lstm{index + 1}"]
        following["kernel" if index == 3 else "input_kernel"][unit] = 0
        hidden = params[f"lstm{index}"]["hidden_kernel"].reshape(6, 4, 6)
        hidden[unit, :, [other for other in range(6) if other not in heard_by]] = 0

    silence(3, 1, heard_by=(1,))  # itself alone
    silence(3, 4, heard_by=(1, 4))  # itself and one that nobody hears
    silence(2, 0)
    silence(1, 5, heard_by=(2,))  # heard by one that is heard: stays
    # lstm1's unit 3 is heard by the units of lstm2 that go, and by no other.
    silence(1, 3)
    params["lstm2"]["input_kernel"].reshape(6, 4, 6)[3, :, 0] = 1
    assert params["lstm2"]["input_kernel"][3].any()
    smaller, units = check(params, LSTMS)
    assert units == {
        "lstm1": [0, 1, 2, 4, 5],
        "lstm2": [1, 2, 3, 4, 5],
        "lstm3": [0, 2, 3, 5],
        "fc": [0, 1, 2, 3],
    }
    assert smaller["lstm3"]["hidden_kernel"].shape == (4, 16)


@pytest.mark.parametrize("hidden_bias", [3 * 6, 6])
def test_grus_behind_a_dense_layer(hidden_bias):
    rng = np.random.default_rng(3)
    params = {
        "fc1": dense(rng, 5, 6),
        "gru1": recurrent(rng, 3, 6, 6, hidden_bias=hidden_bias),
        "gru2": recurrent(rng, 3, 6, 6, hidden_bias=hidden_bias),
        "fc2": dense(rng, 6, 4),
    }
    params["fc1"]["kernel"][:, 2] = 0
    params["gru2"]["input_kernel"][1] = 0
    params["gru1"]["hidden_kernel"][1] = 0
    units = check(params, GRUS)[1]
    assert units["fc1"] == [0, 1, 3, 4, 5]
    assert units["gru1"] == [0, 2, 3, 4, 5]


def test_a_recurrent_unit_without_inputs_is_not_a_constant():
    rng = np.random.default_rng(4)
    params = {"lstm": recurrent(rng, 4, 5, 3), "fc": dense(rng, 3, 2)}
    for name in ("input_kernel", "hidden_kernel"):
        params["lstm"][name].reshape(-1, 4, 3)[..., 1] = 0
    _, units = shrink(params, [("lstm", None), ("fc", None)])
    assert units["lstm"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("chain", [FDNN, LSTMS], ids=["dense", "lstm"])
def test_one_unit_a_layer_is_left_of_zeros(chain):
    rng = np.random.default_rng(6)
    params = {
        path: dense(rng, 5, 5) if path.startswith("fc") else recurrent(rng, 4, 5, 5)
        for path, _ in chain
    }
    for layer in params.values():
        for name, tensor in layer.items():
            tensor[:] *= not name.endswith("kernel")
    _, units = check(params, chain)
    assert [len(kept) for kept in units.values()] == [1, 1, 1, 5]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"kernel": np.ones((3, 3, 4))[0], "scale": np.ones(4)}, "at 'fc2', got kernel, scale"),
        ({}, "at 'fc2', got nothing"),
        ({"kernel": np.ones((3, 4))}, "expected fc2 to read the 2 units of fc1, it reads 3"),
    ],
)
def test_wrong_chains(layer, message):
    params = {"fc1": dense(np.random.default_rng(0), 5, 2), "fc2": layer}
    with pytest.raises(ValueError, match=message):
        shrink(params, [("fc1", None), ("fc2", None)])
