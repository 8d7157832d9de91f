"""A compressed net as a run, and its limits. The compression of one is tried by its experiment."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.audio.stft import STFT
from dynse.data.mixing import MixingConfig
from dynse.pruning import save_packed, sparse_group_lasso
from dynse.pruning.recipes import CompressionConfig
from dynse.pruning.runs import load_packed_run, packed_metadata, shrunk_run
from dynse.training.nets import FDNNConfig, GCRNConfig, LSTMConfig
from dynse.training.runs import RunConfig

STFT_20MS = STFT(320, 320, 160, "hamming")


@pytest.mark.parametrize("rms", [None, 0.1])
def test_a_packed_file_is_a_network(tmp_path, rms):
    config = FDNNConfig((8, 8))
    model = config.build(STFT_20MS.bins)
    frames = jnp.abs(jax.random.normal(jax.random.key(1), (1, 5, STFT_20MS.bins)))
    variables = jax.jit(model.init)(jax.random.key(0), frames)
    path = save_packed(
        tmp_path / "net.packed",
        variables,
        metadata=packed_metadata(RunConfig(config, STFT_20MS, MixingConfig(rms=rms))),
    )
    again, loaded, run = load_packed_run(path)
    assert (run.net, run.stft, run.mixing.rms) == (config, STFT_20MS, rms)
    for one in (again.apply(loaded, frames), again.apply(variables, frames)):
        np.testing.assert_array_equal(one[1], model.apply(variables, frames)[1])


@pytest.mark.parametrize("metadata", [None, {}, {"net": {"kind": "other"}}, {"net": {"a": 1}}, [1]])
def test_a_packed_file_that_names_no_network(tmp_path, metadata):
    path = save_packed(tmp_path / "net.packed", {"a": np.zeros(2, np.float32)}, metadata=metadata)
    with pytest.raises(ValueError, match=r"net\.packed names no network"):
        load_packed_run(path)


@pytest.mark.parametrize("net", [FDNNConfig((12, 10)), LSTMConfig((8, 6))], ids=["fdnn", "lstm"])
def test_a_shrunk_net_is_the_same_net(net):
    run = RunConfig(net, STFT_20MS)
    model = net.build(STFT_20MS.bins)
    frames = jnp.abs(jax.random.normal(jax.random.key(1), (2, 9, STFT_20MS.bins)))
    variables = jax.jit(model.init)(jax.random.key(0), frames)
    first, second = (path for path, _ in net.chain[:2])
    name = "kernel" if net.kind == "fdnn" else "input_kernel"
    # Three units of the first layer that nobody hears.
    params = jax.tree.map(np.array, variables["params"])
    params[second][name][:3] = 0
    if "hidden_kernel" in params[first]:
        params[first]["hidden_kernel"][:3] = 0
    narrow, small = shrunk_run(run, {"params": params})
    assert narrow.net.hidden == (net.hidden[0] - 3, net.hidden[1])
    whole = model.apply({"params": params}, frames)[1]
    found = narrow.net.build(STFT_20MS.bins).apply(small, frames)[1]
    np.testing.assert_allclose(found, whole, atol=1e-5)
    assert np.abs(model.apply(variables, frames)[1] - whole).max() > 1e-4  # they said something


def test_what_is_no_chain_does_not_shrink():
    assert shrunk_run(RunConfig(GCRNConfig((2, 2))), {"params": {}}) is None


def test_names_of_folders():
    assert CompressionConfig("C2").name("tcnn", 3) == "tcnn-C2-seed3"
    rival = CompressionConfig(regularized=False, common_threshold=True)
    assert rival.name("lstm", 0) == "lstm-C1-plain-common-seed0"


PARAMS = {"a": np.float32([[1, -2], [0, 1]]), "b": np.float32([[3, 4]])}
GROUPS = {"a": (1,), "b": (1,)}


def test_limits_by_shares_of_the_loss():
    """Each term of the regulariser a tenth of the loss, alphas spread over the tensors."""
    lambdas, alphas = CompressionConfig("C2", alphas=(0.3, 0.03)).limits(6.0, PARAMS, GROUPS)
    np.testing.assert_allclose(alphas, (0.9, 0.09))
    terms = [float(sparse_group_lasso(PARAMS, GROUPS, *one)) for one in np.diag(lambdas)]
    np.testing.assert_allclose(terms, 0.6, rtol=1e-5)
    single, same = CompressionConfig("C1", alphas=(0.3, 0.03)).limits(6.0, PARAMS, GROUPS)
    assert single == (lambdas[0], 0.0)
    assert same == alphas


def test_limits_as_published_are_absolute():
    config = CompressionConfig("C2", lambdas=(0.1, 0.2), alphas=(0.3, 0.4))
    assert config.limits(6.0, PARAMS, GROUPS) == ((0.1, 0.2), (0.3, 0.4))
    plain = dataclasses.replace(config, regularized=False)
    assert plain.limits(6.0, PARAMS, GROUPS) == ((0.0, 0.0), (0.3, 0.4))
