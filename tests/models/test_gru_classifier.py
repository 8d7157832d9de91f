import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.layers.gru import gru
from dynse.models.gru_classifier import GRUClassifier, last_valid

BATCH, FRAMES, INPUTS, WIDTH, OUTPUTS = 3, 6, 4, 5, 2


@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_outputs_are_a_dense_layer_on_the_gru(activation):
    net = GRUClassifier(WIDTH, OUTPUTS, activation)
    x = np.random.default_rng(0).normal(size=(BATCH, FRAMES, INPUTS)).astype(np.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    variables = contract.random_like(shapes, 1)
    # As dynse.quantization reads them.
    assert jax.tree.map(jnp.shape, variables["params"]) == {
        "gru": {
            "input_kernel": (INPUTS, 3 * WIDTH),
            "hidden_kernel": (WIDTH, 3 * WIDTH),
            "input_bias": (3 * WIDTH,),
            "hidden_bias": (3 * WIDTH,),
        },
        "fc": {"kernel": (WIDTH, OUTPUTS), "bias": (OUTPUTS,)},
    }
    state, y, aux = jax.jit(net.apply)(variables, x)
    params = variables["params"]
    h_last, h = jax.jit(gru)(params["gru"], np.zeros((BATCH, WIDTH), np.float32), x)
    expected = h @ params["fc"]["kernel"] + params["fc"]["bias"]
    if activation == "sigmoid":
        expected = 1 / (1 + np.exp(-expected))
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(state, h_last, atol=1e-6)
    assert aux == ()
    for cost, leaves in zip(net.cost(INPUTS), (params["gru"], params["fc"]), strict=True):
        assert cost.params == sum(leaf.size for leaf in leaves.values())
        assert cost.macs == sum(leaf.size for leaf in leaves.values() if leaf.ndim == 2)


def test_last_valid_picks_the_frame_before_the_padding():
    outputs = np.arange(BATCH * FRAMES * OUTPUTS).reshape(BATCH, FRAMES, OUTPUTS)
    lengths = np.array([1, FRAMES, 4])
    picked = jax.jit(last_valid)(outputs, lengths)
    np.testing.assert_array_equal(picked, [outputs[i, n - 1] for i, n in enumerate(lengths)])


def test_what_follows_the_last_valid_frame_does_not_matter():
    net = GRUClassifier(WIDTH, OUTPUTS)
    x = np.random.default_rng(0).normal(size=(BATCH, FRAMES, INPUTS)).astype(np.float32)
    variables = contract.random_like(jax.eval_shape(net.init, jax.random.key(0), x), 1)
    lengths = np.array([2, 5, 6])
    padded = np.where(np.arange(FRAMES)[:, None] < lengths[:, None, None], x, np.nan)
    run = jax.jit(lambda x: last_valid(net.apply(variables, x)[1], lengths))
    np.testing.assert_array_equal(run(padded), run(x))


def test_an_unknown_activation_is_named():
    net = GRUClassifier(WIDTH, OUTPUTS, "softmax")
    with pytest.raises(ValueError, match="activation must be one of none, sigmoid; got 'softmax'"):
        net.init(jax.random.key(0), jnp.ones((1, 1, INPUTS)))
