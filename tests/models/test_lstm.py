import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import torch_layers
from models.complete import (
    check_costs,
    check_kernels_learn,
    check_waveforms,
    counts,
    magnitudes,
    parameter_shapes,
    random_variables,
    train_gradients,
)

from dynse.audio.stft import STFT
from dynse.layers.lstm import LONG_BLOCK
from dynse.models.lstm import LSTMMapping

SMALL = LSTMMapping(bins=9, hidden=(5, 4))


def test_published_counts():
    params, macs, at_outputs = counts(LSTMMapping())
    assert params == 30_217_377
    assert (round(macs / 1e9, 3), at_outputs) == (12.104, macs)
    shapes = parameter_shapes(LSTMMapping())
    assert set(shapes) == {"params"}
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 30_217_377
    check_costs(LSTMMapping())


def test_contract():
    frames = magnitudes(SMALL, 4, LONG_BLOCK + 2)
    contract.check_causal_network(SMALL, random_variables(SMALL), frames)


def test_the_net_is_that_of_pytorch():
    variables, frames = random_variables(SMALL), magnitudes(SMALL, 2, 6)
    params = variables["params"]
    h = torch_layers.tensor(frames)
    for name in ("lstm1", "lstm2"):
        h = torch_layers.lstm(params[name], h)
    expected = torch_layers.dense(params["fc"], h).relu()
    _, output, aux = jax.jit(SMALL.apply)(variables, frames)
    np.testing.assert_allclose(output, expected, atol=1e-6)
    assert 0.1 < np.mean(np.asarray(output) == 0) < 0.9
    assert aux.gates == aux.scores == ()


def test_it_enhances_waveforms():
    variables = random_variables(SMALL)
    check_waveforms(SMALL, variables, STFT(16, 16, 8))
    frames = magnitudes(SMALL, 2, 3)
    check_kernels_learn(train_gradients(SMALL, variables, frames, key=jax.random.key(0))[0])


def test_the_noisy_phase_is_kept():
    draw = np.random.default_rng(0)
    spectrum = draw.normal(size=(1, 3, 9)) + 1j * draw.normal(size=(1, 3, 9))
    spectrum[0, 0, 0] = 0
    spectrum = jnp.asarray(spectrum, jnp.complex64)
    same = SMALL.estimate(spectrum, SMALL.inputs(spectrum))
    np.testing.assert_allclose(same, spectrum, atol=1e-6)
    level = draw.uniform(1, 2, size=(1, 3, 9)).astype(np.float32)
    enhanced = np.asarray(SMALL.estimate(spectrum, level))
    np.testing.assert_allclose(np.abs(enhanced), level, rtol=1e-5)
    np.testing.assert_allclose(np.angle(enhanced), np.angle(spectrum), atol=1e-5)
    np.testing.assert_array_equal(SMALL.target(spectrum, 2 * spectrum), SMALL.inputs(spectrum))


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"expected frames \(B, T, 9\), got \(1, 2, 8\)"):
        SMALL.apply(random_variables(SMALL), jnp.ones((1, 2, 8)))
