"""Joint training of a net with exits, and phases that freeze."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training.small import GATE, bank, run_config

from dynse.audio.features import magnitude
from dynse.data.mixing import draw_batch, load_source
from dynse.exits import phase_layers
from dynse.models.conv_fsenet import Aux
from dynse.training.exits import ExitLoss, freeze
from dynse.training.gates import GateTraining
from dynse.training.losses import compressed_spectral_loss
from dynse.training.nets import EarlyExitConvFSENetConfig, EarlyExitNsNet2Config
from dynse.training.runs import RunConfig, new_state, train_step
from dynse.training.runs import run_config as from_json
from dynse.training.step import NoExtraLoss

SPEECH, NOISE = load_source(bank(0)), load_source(bank(2))
NET = EarlyExitNsNet2Config(
    first=4, hidden=4, wide=4, exits=("fc1", "gru1", "gru2"), exit_weights="growing"
)


def test_the_step_minimises_the_weighted_sum_of_the_exits_losses(quick_programs):
    config = run_config(net=NET)
    state = new_state(config)
    model, stft = NET.build(config.stft.bins), config.stft
    data_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1))[0]
    variables = {"batch_stats": state.batch_stats}

    @jax.jit
    def losses(params):
        batch = draw_batch(SPEECH, NOISE, jax.random.fold_in(data_key, 0), config.mixing)
        spectrum = stft.forward(batch.noisy)
        aux = model.apply({**variables, "params": params}, magnitude(spectrum), train=True)[2]
        enhanced = [stft.inverse(gain * spectrum, batch.noisy.shape[1]) for gain in aux.exits]
        return [compressed_spectral_loss(e, batch.clean, stft=stft).mean() for e in enhanced]

    def total(params):
        one, two, three = losses(params)
        return one / 3 + 2 * two / 3 + three

    expected = jax.jit(losses)(state.params)
    norm = optax.tree.norm(jax.jit(jax.grad(total))(state.params))
    _, metrics = train_step(config)(state, SPEECH, NOISE)
    found = [metrics[name] for name in ("loss_exit0", "loss_exit1", "loss")]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)


def test_one_exit_alone_has_no_extra_loss():
    for net in (
        dataclasses.replace(NET, exits=("gru1",)),
        dataclasses.replace(NET, exit_index=1),
    ):
        extra = net.extra_loss(10)
        total, _, metrics = extra(extra.init(), Aux((), ()), None, 0)
        assert (float(total), metrics) == (0.0, {})


def test_gates_and_exits_add_their_losses():
    net = EarlyExitConvFSENetConfig(
        width=4, inner=4, stacks=1, blocks=2, exits=(0,), gate=GATE, gate_training=GateTraining()
    )
    extra = net.extra_loss(10)
    gates = (jnp.ones((1, 2, 4)),) * 2
    aux = Aux(gates, gates, (jnp.float32(0.25),))
    total, _, metrics = extra(extra.init(), aux, None, jnp.int32(9))
    alone, _, _ = extra.other(extra.init(), aux, None, jnp.int32(9))
    assert float(total) == pytest.approx(float(alone) + 0.25)
    assert {"kept", "loss_exit0"} < set(metrics)
    model = net.build(9)
    assert model.exits == (0,)
    assert model.gate == GATE


def test_a_frozen_phase_leaves_what_was_trained_before(quick_programs):
    net = dataclasses.replace(NET, exit_index=1)
    model = net.build(33)
    params = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 1, 33)))["params"]
    programs = [model.clone(exit_index=index) for index in range(3)]
    needed = [{cost.path for cost in program.cost()} for program in programs]
    optimizer = freeze(run_config().optimizer.build(10), phase_layers(needed, 1))
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    moved = {name for name, own in updates.items() if any(map(jnp.any, jax.tree.leaves(own)))}
    assert set(params) == {"fc1", "gru1", "head_gru1"}
    assert moved == {"gru1", "head_gru1"}


@pytest.mark.parametrize("net", [NET, EarlyExitConvFSENetConfig(exits=(0, 3))])
def test_configurations_come_back_from_json(net):
    config = RunConfig(net=net)
    assert from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_the_loss_needs_a_weight_for_each_exit():
    with pytest.raises(ValueError, match="expected 2 weights, one an exit, got 1"):
        ExitLoss((1.0, 1.0), NoExtraLoss())((), Aux((), (), (1.0, 2.0)), None, 0)
