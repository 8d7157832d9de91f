import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
from dynse.models.fdnn import FDNN

SMALL = FDNN(bins=9, hidden=(8, 6))


def test_published_counts():
    params, macs, at_outputs = counts(FDNN())
    assert params == 9_054_369
    assert (round(macs / 1e9, 3), at_outputs) == (3.628, macs)
    shapes = parameter_shapes(FDNN())
    assert set(shapes) == {"params"}
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 9_054_369
    check_costs(FDNN())


def test_contract():
    contract.check_causal_network(SMALL, random_variables(SMALL), magnitudes(SMALL, 4, 6))


def test_the_net_is_the_one_of_the_equations():
    variables, frames = random_variables(SMALL), magnitudes(SMALL, 2, 3)
    h = frames.astype(np.float64)
    for name in ("fc1", "fc2", "fc3"):
        layer = variables["params"][name]
        h = np.maximum(h, 0) @ layer["kernel"].astype(np.float64) + layer["bias"]
    _, gain, aux = SMALL.apply(variables, frames)
    np.testing.assert_allclose(gain, 1 / (1 + np.exp(-h)), atol=1e-6)
    assert aux.gates == aux.scores == ()


def test_it_enhances_waveforms():
    variables = random_variables(SMALL)
    check_waveforms(SMALL, variables, STFT(16, 16, 8))
    frames = magnitudes(SMALL, 2, 3)
    check_kernels_learn(train_gradients(SMALL, variables, frames, key=jax.random.key(0))[0])


def test_the_target_is_the_ideal_ratio_mask():
    draw = np.random.default_rng(0)
    clean, noise = draw.normal(size=(2, 1, 4, 9)) + 1j * draw.normal(size=(2, 1, 4, 9))
    clean[0, 0, 0] = noise[0, 0, 0] = 0  # silence
    clean[0, 1, 0] = noise[0, 2, 0] = 0  # noise alone, speech alone
    clean, noise = (jnp.asarray(one, jnp.complex64) for one in (clean, noise))
    mask = np.asarray(SMALL.target(clean, clean + noise))
    speech, rest = np.abs(clean) ** 2, np.abs(noise) ** 2
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(np.sqrt(speech / (speech + rest)))
    np.testing.assert_allclose(mask, expected, atol=1e-5)
    assert (mask[0, 0, 0], mask[0, 1, 0], mask[0, 2, 0]) == (0, 0, 1)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"expected frames \(B, T, 9\), got \(1, 2, 8\)"):
        SMALL.apply(random_variables(SMALL), jnp.ones((1, 2, 8)))
