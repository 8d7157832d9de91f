"""Controls in place of gates, in training and after it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.models.controlled import ControlledNet, GateControl
from dynse.models.conv_fsenet import ConvFSENet, GateConfig

NET = ConvFSENet(bins=5, width=4, inner=6, stacks=1, blocks=2, gate=GateConfig(hidden=2))
RATES = (np.array([0.9, 0.1, 0.6, 0.2]), np.array([0.0, 1.0, 0.4, 0.3]))


@pytest.fixture(scope="module")
def frames():
    return jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (2, 7, 5)), jnp.float32)


@pytest.fixture(scope="module")
def variables(frames):
    return jax.jit(NET.init)(jax.random.key(0), frames)


def test_fixed_keeps_the_channels_open_most_often(variables, frames):
    net = ControlledNet(NET, GateControl.of("fixed", RATES))
    _, gain, aux = net.apply(variables, frames)
    # 1.8 and 1.7 channels are open on average: two of each block.
    expected = [jnp.array([1.0, 0, 1, 0]), jnp.array([0.0, 1, 1, 0])]
    for gate, row in zip(aux.gates, expected, strict=True):
        np.testing.assert_array_equal(gate, jnp.broadcast_to(row, (2, 7, 4)))
    _, replayed, _ = NET.apply(variables, frames, gates=[row[None, None] for row in expected])
    np.testing.assert_array_equal(gain, replayed)


def test_random_is_drawn_at_its_rates_and_anew_for_every_key(variables, frames):
    net = ControlledNet(NET, GateControl.of("random", RATES))
    long = jnp.tile(frames, (1, 300, 1))
    _, _, aux = net.apply(variables, long, key=jax.random.key(1))
    for gate, rates in zip(aux.gates, RATES, strict=True):
        # Four standard deviations of 4,200 draws.
        np.testing.assert_allclose(gate.mean((0, 1)), rates, atol=4 * 0.5 / np.sqrt(4200))
    _, one, _ = net.apply(variables, frames, key=jax.random.key(1))
    _, same, _ = net.apply(variables, frames, key=jax.random.key(1))
    _, other, _ = net.apply(variables, frames, key=jax.random.key(2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(np.asarray(one - other)).max() > 0


def test_no_gate_is_paid_for():
    net = ControlledNet(NET, GateControl.of("fixed", RATES))
    without = dataclasses.replace(NET, gate=None).cost()
    assert sum(layer.macs for layer in net.cost()) == sum(layer.macs for layer in without)


def test_wrong_controls_are_named():
    with pytest.raises(ValueError, match="fixed, random; got 'shuffled'"):
        GateControl("shuffled", ())
    with pytest.raises(ValueError, match="between 0 and 1"):
        GateControl("fixed", ((1.5,),))
