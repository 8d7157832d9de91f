"""A run folder: reading, refusal, early stopping, divergence, checkpoints."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.small import corpus
from training.small import run_config as small_run

from dynse.models.controlled import GateControl
from dynse.training.checkpoints import CheckpointError, Checkpoints
from dynse.training.loop import DivergedError, LoopConfig, train
from dynse.training.runs import load_run, new_state, run_config, train_run


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """Folder, configuration and variables of two steps."""
    folder, config = tmp_path_factory.mktemp("gated"), small_run(steps=2)
    return folder, config, train_run(folder, config, corpus())[1]


def same(left, right):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


def test_a_finished_run_is_loaded_with_its_configuration(gated):
    folder, config, variables = gated
    model, loaded, found = load_run(folder)
    assert found == config
    assert model == config.net.build(33)
    assert same(variables, loaded)
    assert run_config(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_a_folder_of_another_run_is_refused(gated):
    with pytest.raises(ValueError, match=r"another configuration \(different: loop, run\)"):
        train_run(gated[0], small_run(steps=4), corpus())


def test_two_processes_do_not_train_in_one_folder(gated):
    folder, config, _ = gated
    inside = "import sys; from dynse.atomic import alone_in\n"
    inside += "with alone_in(sys.argv[1]): print(flush=True); input()"
    command = [sys.executable, "-c", inside, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(BlockingIOError, match="another process is at work there"):
            train_run(folder, config, corpus())
        other.kill()  # which leaves nothing behind
        other.wait()
    train_run(folder, config, corpus())


def test_no_run_and_no_checkpoint_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="holds no run"):
        load_run(tmp_path)
    content = {"run": dataclasses.asdict(small_run())}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="no best checkpoint"):
        load_run(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    small = {"kernel": jnp.ones((3, 4))}
    checkpoints.save("best", 1, small)
    assert checkpoints.step("best") == 1
    assert same(checkpoints.restore("best", small), small)
    for like in ({"kernel": jnp.ones((3, 5))}, {"weights": jnp.ones((3, 4))}):
        with pytest.raises(CheckpointError, match="best checkpoint of step 1"):
            checkpoints.restore("best", like)
    checkpoints.close()


def counting_state():
    return new_state(small_run(gated=False))


def advance(state, **metrics):
    state = state._replace(step=state.step + 1)
    values = {"loss": 1.0, "grad_norm": 1.0, "wild_steps": 0, **metrics}
    return state, {name: jnp.asarray(value) for name, value in values.items()}


def no_crops(steps):
    yield from [()] * len(steps)


@pytest.mark.parametrize("first", [3.0, float("nan")])
def test_a_run_stops_early_and_keeps_its_best(tmp_path, first):
    losses = iter([first, 2.0, float("nan"), 2.6, 1.0])
    config = LoopConfig(steps=10, validate_every=1, checkpoint_every=1, patience=2)
    best, lines = train(
        tmp_path,
        config,
        counting_state(),
        advance,
        no_crops,
        lambda state: {"loss": next(losses)},
        identity={},
        audio_s_per_step=1.0,
    )
    assert int(best.step) == 2
    found = [line["valid"]["loss"] for line in lines if "valid" in line]
    np.testing.assert_array_equal(found, [first, 2.0, np.nan, 2.6])


def test_a_wild_run_stops_with_advice(tmp_path):
    with pytest.raises(DivergedError, match=r"above 1000 for 20 steps .*lower learning rate"):
        train(
            tmp_path,
            LoopConfig(steps=10, log_every=1),
            counting_state(),
            lambda state: advance(state, wild_steps=20, grad_norm=1e9),
            no_crops,
            lambda state: {"loss": 1.0},
            identity={},
            audio_s_per_step=1.0,
        )


def test_a_control_goes_on_from_the_gated_nets_parameters(gated, tmp_path):
    """It starts where the gated net ended, its gates stay as they are, and it is read back."""
    _, config, variables = gated
    control = GateControl.of("fixed", [np.linspace(0, 1, 6)] * 2)
    net = dataclasses.replace(config.net, gate_training=None, control=control)
    config = dataclasses.replace(config, net=net)
    _, after, lines = train_run(tmp_path, config, corpus(), variables=variables)
    assert "kept" not in lines[0]
    before, after = variables["params"], after["params"]
    assert not same(before["back"], after["back"])
    gate = before["block0"]["gate"]
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), gate, after["block0"]["gate"])
    # Weight decay alone may touch them.
    assert max(jax.tree.leaves(moved)) < 1e-3
    loaded, _, found = load_run(tmp_path)
    assert found == config
    assert loaded.control == control
    with pytest.raises(ValueError, match="different: start"):
        train_run(tmp_path, config, corpus())
