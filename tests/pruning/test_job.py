"""A packed file as a network again; the compression of a run is tried by its experiment."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.audio.stft import STFT
from dynse.pruning import save_packed
from dynse.pruning.job import CompressionConfig, load_packed_run
from dynse.training.nets import FDNNConfig

STFT_20MS = STFT(320, 320, 160, "hamming")


@pytest.mark.parametrize("unit_rms", [False, True])
def test_a_packed_file_is_a_network(tmp_path, unit_rms):
    config = FDNNConfig((8, 8))
    model = config.build(STFT_20MS.bins)
    frames = jnp.abs(jax.random.normal(jax.random.key(1), (1, 5, STFT_20MS.bins)))
    variables = jax.jit(model.init)(jax.random.key(0), frames)
    path = save_packed(
        tmp_path / "net.packed",
        variables,
        metadata={
            "net": dataclasses.asdict(config),
            "stft": dataclasses.asdict(STFT_20MS),
            "mixing": {"unit_rms": unit_rms},
        },
    )
    again, loaded, run = load_packed_run(path)
    assert (run.net, run.stft, run.mixing.unit_rms) == (config, STFT_20MS, unit_rms)
    for one in (again.apply(loaded, frames), again.apply(variables, frames)):
        np.testing.assert_array_equal(one[1], model.apply(variables, frames)[1])


@pytest.mark.parametrize("metadata", [None, {}, {"net": {"kind": "other"}}, {"net": {"a": 1}}, [1]])
def test_a_packed_file_that_names_no_network(tmp_path, metadata):
    path = save_packed(tmp_path / "net.packed", {"a": np.zeros(2, np.float32)}, metadata=metadata)
    with pytest.raises(ValueError, match=r"net\.packed names no network"):
        load_packed_run(path)


def test_names_of_folders():
    assert CompressionConfig("C2").name("tcnn", 3) == "tcnn-C2-seed3"
    rival = CompressionConfig(regularized=False, common_threshold=True)
    assert rival.name("lstm", 0) == "lstm-C1-plain-common-seed0"
