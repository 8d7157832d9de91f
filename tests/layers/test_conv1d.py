import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.layers.conv1d import DepthwiseConv1d, PointwiseConv1d


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_both_are_those_of_pytorch():
    functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    x = normal(2, 6, 4)
    signal = torch.tensor(x).transpose(1, 2)

    params = {"kernel": normal(1, 4, 5, seed=1), "bias": normal(5, seed=2)}
    y = jax.jit(PointwiseConv1d(5).apply)({"params": params}, x)
    kernel = torch.tensor(params["kernel"]).permute(2, 1, 0)
    expected = functional.conv1d(signal, kernel, torch.tensor(params["bias"]))
    np.testing.assert_allclose(y, expected.transpose(1, 2), atol=1e-5)

    params = {"kernel": normal(3, 1, 4, seed=1), "bias": normal(4, seed=2)}
    past = normal(2, 4, 4, seed=3)
    state, y = jax.jit(DepthwiseConv1d(3, 2).apply)({"params": params}, past, x)
    kernel = torch.tensor(params["kernel"]).permute(2, 1, 0)
    signal = torch.cat([torch.tensor(past).transpose(1, 2), signal], 2)
    bias = torch.tensor(params["bias"])
    expected = functional.conv1d(signal, kernel, bias, dilation=2, groups=4)
    np.testing.assert_allclose(y, expected.transpose(1, 2), atol=1e-5)
    np.testing.assert_array_equal(state, x[:, 2:])


def test_modules_name_and_start_their_parameters():
    x = jnp.ones((1, 2, 16))
    params = jax.jit(PointwiseConv1d(400).init)(jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, params) == {"kernel": (1, 16, 400), "bias": (400,)}
    assert 0.24 < np.abs(np.asarray(params["kernel"])).max() <= 0.25
    state, x = jnp.zeros((1, 6, 400)), jnp.ones((1, 2, 400))
    params = jax.jit(DepthwiseConv1d(4, 2).init)(jax.random.key(0), state, x)["params"]
    assert jax.tree.map(jnp.shape, params) == {"kernel": (4, 1, 400), "bias": (400,)}
    assert 0.48 < np.abs(np.asarray(params["kernel"])).max() <= 0.5
