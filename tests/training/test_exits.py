"""Joint training of a net with exits, and phases that freeze."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training.small import GATE, bank, corpus, run_config

from dynse.audio.features import magnitude
from dynse.data.mixing import draw_batch, load_source
from dynse.exits import phase_layers
from dynse.models.network import Aux
from dynse.training.exits import ExitLoss, freeze
from dynse.training.gates import GateTraining
from dynse.training.loop import LoopConfig
from dynse.training.losses import compressed_spectral_loss
from dynse.training.nets import EarlyExitConvFSENetConfig, EarlyExitNsNet2Config
from dynse.training.phases import phase_runs, train_phases
from dynse.training.runs import (
    RunConfig,
    load_run,
    new_state,
    train_crops,
    train_step,
    validation_crops,
)
from dynse.training.runs import run_config as from_json
from dynse.training.step import NoExtraLoss, make_validation

SPEECH, NOISE = load_source(bank(0)), load_source(bank(2))
NET = EarlyExitNsNet2Config(
    first=4, hidden=4, wide=4, exits=("fc1", "gru1", "gru2"), exit_weights="growing"
)


def test_the_step_minimises_the_weighted_sum_of_the_exits_losses():
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
    _, metrics = train_step(config)(state, *train_crops(config, SPEECH, NOISE)(0))
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
        width=4, inner=4, stacks=1, blocks=2, exits=(0, 1), gate=GATE, gate_training=GateTraining()
    )
    extra = net.extra_loss(10)
    gates = (jnp.ones((1, 2, 4)),) * 2
    aux = Aux(gates, gates, (jnp.float32(0.25),))
    total, _, metrics = extra(extra.init(), aux, None, jnp.int32(9))
    alone, _, _ = extra.other(extra.init(), aux, None, jnp.int32(9))
    assert float(total) == pytest.approx(float(alone) + 0.25)
    assert {"kept", "loss_exit0"} < set(metrics)
    model = net.build(9)
    assert model.exits == (0, 1)
    assert model.gate == GATE


def test_a_net_of_exits_needs_some():
    with pytest.raises(ValueError, match="expected exits, got none"):
        EarlyExitConvFSENetConfig(exits=())


def test_a_frozen_phase_leaves_what_was_trained_before():
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


@pytest.mark.parametrize("net", [NET, EarlyExitConvFSENetConfig(exits=(0, 8))])
def test_configurations_come_back_from_json(net):
    config = RunConfig(net=net)
    assert from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_the_loss_needs_a_weight_for_each_exit():
    with pytest.raises(ValueError, match="expected 2 weights, one an exit, got 1"):
        ExitLoss((1.0, 1.0), NoExtraLoss())((), Aux((), (), (1.0, 2.0)), None, 0)


def test_a_validation_weighs_the_losses_of_all_exits():
    config = run_config(net=NET)
    state, model, stft = new_state(config), NET.build(config.stft.bins), config.stft
    shared = {"seed": config.seed, "batches": 1}
    valid = make_validation(model, config.mixing, stft, **shared, weights=NET.loss_weights)
    crops = validation_crops(config, corpus())
    found = valid(state, crops)
    batch = draw_batch(
        load_source(bank(1)),
        load_source(bank(3)),
        jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 2), 0),
        config.mixing,
    )
    spectrum = stft.forward(batch.noisy)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    gains = jax.jit(model.apply)(variables, magnitude(spectrum))[2].exits
    losses = [
        float(
            compressed_spectral_loss(
                stft.inverse(gain * spectrum, batch.noisy.shape[1]), batch.clean, stft=stft
            ).mean()
        )
        for gain in gains
    ]
    np.testing.assert_allclose([found[f"loss_exit{i}"] for i in range(3)], losses, rtol=1e-5)
    assert found["loss"] == pytest.approx(losses[0] / 3 + 2 * losses[1] / 3 + losses[2], rel=1e-5)
    # Of one output it is that one's loss.
    plain = make_validation(model, config.mixing, stft, **shared)(state, crops)
    assert plain["loss"] == pytest.approx(losses[2], rel=1e-5)
    assert set(plain) == {"loss", "si_sdr_db", "kept"}


def test_layers_of_each_phase():
    def layers(**options):
        net = dataclasses.replace(NET, **options)
        return dataclasses.replace(net, exit_index=1).trained_layers(9)

    assert layers() == {"gru1", "head_gru1"}
    assert layers(split="duplicate") == {"fc1", "side_gru1", "head_gru1"}
    assert layers(moving=True) is None
    assert NET.trained_layers(9) is None
    assert dataclasses.replace(NET, exit_index=0).trained_layers(9) is None


@pytest.mark.parametrize("moving", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_layerwise_training(tmp_path, moving):
    net = dataclasses.replace(NET, exits=("fc1", "gru1"), moving=moving)
    config = run_config(steps=5, net=net)
    assert [run.loop.steps for run in phase_runs(config)] == [2, 3]
    model, variables, lines = train_phases(tmp_path, config, corpus())
    assert model == net.build(33)
    assert [line["step"] for line in lines if "valid" not in line] == [1, 2, 3, 4, 5]
    parts = [from_folder(tmp_path / name) for name in ("0-fc1", "1-gru1")]
    for name, own in variables["params"].items():
        last = parts[name in parts[1]["params"]]["params"][name]
        jax.tree.map(np.testing.assert_array_equal, own, last)
    first = [part["params"]["fc1"]["kernel"] for part in parts]
    assert bool((first[0] == first[1]).all()) != moving
    np.testing.assert_array_equal(*(part["batch_stats"]["mean"] for part in parts))
    # Nothing is left to train.
    again = train_phases(tmp_path, config, corpus())
    assert again[2] == lines
    jax.tree.map(np.testing.assert_array_equal, again[1], variables)


@pytest.mark.slow
def test_phases_draw_batches_of_their_own():
    net = dataclasses.replace(NET, exits=("fc1", "gru1"), moving=True)
    config = run_config(net=net)
    one, two = (phase_runs(config)[1], dataclasses.replace(config, net=net))
    losses = []
    for run in (one, dataclasses.replace(two, net=dataclasses.replace(net, exits=("gru1",)))):
        crops = train_crops(run, SPEECH, NOISE)(0)
        _, metrics = train_step(run)(new_state(run), *crops)
        losses.append(float(metrics["loss"]))
    assert losses[0] != losses[1]


def test_only_a_gated_net_has_its_best_state_in_the_last_quarter():
    gated = run_config(steps=100)
    assert gated.best_from_step == 75
    stopping = dataclasses.replace(gated.loop, patience=3)
    assert dataclasses.replace(gated, loop=stopping).best_from_step == 0
    assert RunConfig(loop=LoopConfig(steps=100)).best_from_step == 0


def from_folder(folder):
    return load_run(folder)[1]
