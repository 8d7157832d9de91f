"""The train step: a pure function of state and audio, and what it watches for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.small import GATE, bank, run_config

from dynse.audio.activity import active_frames
from dynse.data.mixing import Batch, load_source
from dynse.models.network import Aux
from dynse.training.gates import GateLoss, GateTraining
from dynse.training.nets import ConvFSENetConfig
from dynse.training.runs import new_state, train_crops, train_step
from dynse.training.step import DIVERGED_STEPS, Teacher

CROPS = train_crops(run_config(), load_source(bank(0)), load_source(bank(2)))


@pytest.fixture(scope="module")
def step():
    return train_step(run_config())


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def test_the_same_state_gives_the_same_bits_and_another_step_another_batch(step):
    one, metrics = step(new_state(run_config()), *CROPS(0))
    two, _ = step(new_state(run_config()), *CROPS(0))
    for left, right in zip(leaves(one), leaves(two), strict=True):
        np.testing.assert_array_equal(left, right)
    later = new_state(run_config())._replace(step=jnp.int32(1))
    assert step(later, *CROPS(1))[1]["loss"] != metrics["loss"]
    # Either alone is of the step's own: the crops, and how they are mixed.
    assert step(new_state(run_config()), *CROPS(1))[1]["loss"] != metrics["loss"]
    later = new_state(run_config())._replace(step=jnp.int32(1))
    assert step(later, *CROPS(0))[1]["loss"] != metrics["loss"]


def test_training_lowers_the_loss_and_moves_every_parameter_but_the_folded_biases(step):
    state = new_state(run_config())
    before = jax.tree.map(np.asarray, state.params)
    for crops in CROPS.each(range(4)):
        state, metrics = step(state, *crops)
    assert int(state.step) == 4
    assert np.isfinite(metrics["loss"])
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), state.params, before)
    still = [
        jax.tree_util.keystr(path)
        for path, value in jax.tree_util.tree_leaves_with_path(moved)
        if not value
    ]
    assert still == []


def test_the_state_is_donated(step):
    state = new_state(run_config())
    kernel = state.params["front"]["kernel"]
    step(state, *CROPS(0))
    assert kernel.is_deleted()


def test_matmuls_in_bfloat16_but_not_the_gates():
    """What the device is asked for; a CPU multiplies in float32 anyway."""

    def asked(matmul):
        config = dataclasses.replace(run_config(), matmul=matmul)
        text = train_step(config).lower(new_state(config), *CROPS(0)).as_text()
        dots = [line for line in text.splitlines() if "dot_general" in line]
        return len(dots), sum("algorithm = <lhs_precision_type = bf16" in one for one in dots)

    dots, in_bfloat16 = asked("bfloat16")
    # Of each gate's two matmuls, those of the gradient too: into the kernels, and back.
    assert 0 < dots - in_bfloat16 <= 6 * len(_aux(0.0).gates) * 2
    assert in_bfloat16 > dots / 2
    assert asked("float32") == (dots, 0)


def test_a_teacher_takes_the_place_of_the_clean_signal():
    config = run_config(gated=False)
    pupil, other = new_state(config), new_state(dataclasses.replace(config, seed=9))
    variables = {"params": other.params, "batch_stats": other.batch_stats}
    model = config.net.build(config.stft.bins)
    steps = {
        weight: train_step(config, teacher=Teacher(model, variables, weight)) for weight in (0.5, 1)
    }

    def stepped(step, state):
        return step(jax.tree.map(jnp.copy, state), *CROPS(0))  # it takes its buffers

    (alone, without) = stepped(train_step(config), pupil)
    (half, metrics), (whole, _) = (stepped(step, pupil) for step in steps.values())
    # The losses are named apart, and it is their mixture that the net goes along.
    assert float(metrics["loss"]) == pytest.approx(float(without["loss"]), rel=1e-6)
    assert abs(metrics["taught"] - metrics["loss"]) > 0.01 * metrics["loss"]
    moved = [one.params["front"]["kernel"] for one in (alone, half, whole)]
    assert not any(np.array_equal(moved[a], moved[b]) for a, b in ((0, 1), (1, 2), (0, 2)))
    # It is its teacher but for the statistics of the batch: next to nothing is left to learn.
    as_teacher = stepped(steps[1], pupil._replace(params=other.params))[1]
    assert float(as_teacher["taught"]) < 0.5 * float(metrics["taught"])
    with pytest.raises(ValueError, match=r"weight must lie in 0 to 1, got 1\.5"):
        train_step(config, teacher=Teacher(model, variables, 1.5))


def test_wild_gradients_are_counted_and_the_count_stays(step):
    state = new_state(run_config())
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
    state = state._replace(params=broken)
    for crops in CROPS.each(range(2)):
        state, metrics = step(state, *crops)
    assert int(metrics["wild_steps"]) == 2
    # A tame step resets the count, unless it has reached its limit.
    tame = new_state(run_config())._replace(wild_steps=jnp.int32(DIVERGED_STEPS - 1))
    assert int(step(tame, *CROPS(0))[1]["wild_steps"]) == 0
    lost = new_state(run_config())._replace(wild_steps=jnp.int32(DIVERGED_STEPS))
    assert int(step(lost, *CROPS(0))[1]["wild_steps"]) > DIVERGED_STEPS


def test_the_gates_loss_pulls_towards_the_budget_after_its_ramp():
    config = run_config(steps=100)
    loss = config.net.extra_loss(config.loop.steps)
    aux = _aux(0.0)
    at_start, _, metrics = loss(loss.init(), aux, None, jnp.int32(0))
    at_end, _, later = loss(loss.init(), aux, None, jnp.int32(99))
    assert float(metrics["kept"]) == 0
    assert float(metrics["budget_weight"]) == 0
    assert float(later["budget_weight"]) == pytest.approx(2.0)
    # At the end only the budget is left, at the start only the mutual information.
    assert float(at_end) == pytest.approx(2.0 * 0.25**2)
    assert float(at_start) <= 0


def test_pauses_have_a_budget_of_their_own():
    clean = np.zeros((1, 4 * 256), np.float32)
    clean[0, 512:] = 0.3 * np.random.default_rng(0).normal(size=512)
    active = np.asarray(active_frames(clean))[0]
    assert 0 < active.sum() < len(active)
    open_ = np.where(active, 0.0, 1.0)[None, :, None] * np.ones(4)  # in pauses alone
    aux = Aux((jnp.asarray(open_, jnp.float32),), (jnp.asarray(open_ - 0.5, jnp.float32),))
    batch = Batch(jnp.asarray(clean), jnp.asarray(clean), jnp.zeros(1))

    def extra(**changes):
        training = GateTraining(target=0.25, ramp=0.0, **changes)
        loss = GateLoss(training, 10)
        return float(loss(loss.init(), aux, batch, jnp.int32(5))[0])

    assert extra() == pytest.approx(2 * ((~active).mean() - 0.25) ** 2)
    assert extra(pause_target=0.1) - extra() == pytest.approx(2 * 0.9**2)
    assert extra(pause_target=1.0) == pytest.approx(extra())
    short = batch._replace(clean=batch.clean[:, :512])
    loss = GateLoss(GateTraining(pause_target=0.1), 10)
    with pytest.raises(ValueError, match="expected the 3 frames of the 512/256 STFT, got 5"):
        loss(loss.init(), aux, short, jnp.int32(5))


def test_the_target_falls_from_one():
    loss = GateLoss(GateTraining(target=0.25, ramp=0.0, anneal=0.5), 100)
    aux = _aux(1.0)
    # Step 1: a ramp of no length begins there.
    losses = [float(loss(loss.init(), aux, None, jnp.int32(step))[0]) for step in (1, 25, 50, 99)]
    expected = [0.015, 0.375, 0.75, 0.75]
    np.testing.assert_allclose(losses, [2 * distance**2 for distance in expected], atol=1e-6)
    with pytest.raises(ValueError, match="anneal must end"):
        GateTraining(anneal=0.8)
    with pytest.raises(ValueError, match="pause_target must lie"):
        GateTraining(pause_target=12.5)


def test_the_target_of_pauses_falls_as_well():
    training = GateTraining(target=0.25, pause_target=0.25, ramp=0.0, anneal=0.5)
    loss, silent = GateLoss(training, 100), jnp.zeros((2, 4 * 256))
    batch = Batch(silent, silent, jnp.zeros(2))
    # All is pause: both budgets ask for the same.
    values = [float(loss(loss.init(), _aux(1.0), batch, jnp.int32(n))[0]) for n in (25, 50)]
    np.testing.assert_allclose(values, [2 * 2 * 0.375**2, 2 * 2 * 0.75**2], rtol=1e-5)


def test_noise_fades_and_gates_harden():
    loss = GateLoss(GateTraining(score_noise=2.0, fade=(0.5, 0.75), soft=(0.2, 0.6)), 100)
    found = [loss.forward_options(jnp.int32(step)) for step in (0, 20, 40, 60, 70, 99)]
    np.testing.assert_allclose([one["softness"] for one in found], [1, 1, 0.5, 0, 0, 0], atol=1e-6)
    noise = [one["noise"] for one in found]
    np.testing.assert_allclose(noise, [2, 2, 2, 1.2, 0.4, 0], atol=1e-5)
    assert GateLoss(GateTraining(), 100).forward_options(jnp.int32(0)) == {}
    with pytest.raises(ValueError, match="soft must rise"):
        GateTraining(soft=(0.6, 0.2))


def test_the_dual_ascent_waits_for_the_ramp():
    config = run_config(steps=100)
    loss = config.net.extra_loss(config.loop.steps)
    aux = _aux(1.0)
    _, early, _ = loss(loss.init(), aux, None, jnp.int32(3))
    _, late, _ = loss(loss.init(), aux, None, jnp.int32(60))
    assert float(early.weight) == pytest.approx(2.0)
    assert float(late.weight) > 2.0


def test_gates_and_their_training_belong_together():
    with pytest.raises(ValueError, match="belong together"):
        ConvFSENetConfig(gate=GATE)


def _aux(value):
    gates = (jnp.full((2, 5, 8), value),)
    return Aux(gates, (jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8))),))
