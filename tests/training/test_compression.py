"""What compression asks of a run: the loss that validations score, and runs under masks."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.small import bank, corpus, run_config

from dynse.audio.stft import STFT
from dynse.data.augmentation import Augmentation
from dynse.data.mixing import MixingConfig, load_source
from dynse.models.waveform import signal_path
from dynse.pruning import (
    apply_masks,
    groups_by_rank,
    masks_by_thresholds,
    named_tensors,
    ratio_thresholds,
    sparse_group_lasso,
    with_masks,
    with_penalty,
)
from dynse.training.compression import finetuning, mean_loss, validation_batches, validation_loss
from dynse.training.nets import FDNNConfig, GCRNConfig, LSTMConfig, TCNNConfig
from dynse.training.runs import (
    RunConfig,
    load_run,
    new_state,
    train_crops,
    train_run,
    train_step,
)
from dynse.training.runs import run_config as from_json
from dynse.training.step import AMSGradConfig

NETS = {
    "fdnn": FDNNConfig((12, 10)),
    "lstm": LSTMConfig((6,)),
    "tcnn": TCNNConfig((2, 3), inner=4, stacks=1, blocks=1),
    "gcrn": GCRNConfig((2, 4)),
}


def published(name, **changes):
    """A run of one of the four nets, as small as `run_config`'s."""
    config = RunConfig(
        net=NETS[name],
        stft=STFT(32, 32, 16, "hamming"),
        mixing=MixingConfig(batch_size=2, crop_s=0.1, rms=1.0),
        optimizer=AMSGradConfig(decays=2),
        loop=run_config(steps=4).loop,
        valid_batches=2,
        loss="target",
        seed=3,
    )
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("tcnn", "gcrn") else [])
        for name in NETS
    ],
)
def test_every_net_trains_by_its_own_target(name):
    config = published(name)
    step, state = train_step(config), new_state(config)
    before = jax.tree.map(np.asarray, state.params)
    for crops in train_crops(config, load_source(bank(0)), load_source(bank(2))).each(range(2)):
        state, metrics = step(state, *crops)
    assert np.isfinite(metrics["loss"])
    assert metrics["grad_norm"] > 0
    moved = jax.tree.map(lambda a, b: (np.asarray(a) != b).any(), state.params, before)
    assert sum(jax.tree.leaves(moved)) > 0.9 * len(jax.tree.leaves(moved))


def test_the_loss_is_the_mean_square_to_the_target_and_that_of_the_validation(tmp_path):
    config = published("lstm")
    batches = validation_batches(config, corpus())
    model, variables, lines = train_run(tmp_path, config, corpus())
    squares = []
    for batch in batches:
        rms = np.sqrt(np.square(batch.noisy).mean(-1))
        np.testing.assert_allclose(rms, 1, atol=1e-5)
        noisy, clean = (np.asarray(config.stft.forward(x)) for x in (batch.noisy, batch.clean))
        output = model.apply(variables, np.abs(noisy))[1]
        squares.append(np.square(output - np.abs(clean)).mean())
    loss = mean_loss(validation_loss(config), batches)
    assert float(jax.jit(loss)(variables)) == pytest.approx(np.mean(squares), rel=1e-5)
    found = [line["valid"]["loss"] for line in lines if "valid" in line]
    assert min(found) == pytest.approx(np.mean(squares), rel=1e-5)
    loaded = load_run(tmp_path)[2]
    assert loaded == config
    assert from_json(dataclasses.asdict(config)) == config


def test_a_validation_is_of_what_was_recorded_and_not_of_its_variations():
    config = published("fdnn")
    mixing = dataclasses.replace(config.mixing, augmentation=Augmentation(room=1.0))
    varied = dataclasses.replace(config, mixing=mixing)
    assert from_json(json.loads(json.dumps(dataclasses.asdict(varied)))) == varied
    for one, other in zip(
        validation_batches(config, corpus()), validation_batches(varied, corpus()), strict=True
    ):
        np.testing.assert_array_equal(one.noisy, other.noisy)


def test_the_loss_of_a_gain_net_is_that_of_its_training():
    """The same path for nets that name none: the loss of the enhanced waveform."""
    config = run_config(gated=False)
    (batch,) = validation_batches(config, corpus())
    variables = {"params": new_state(config).params, "batch_stats": new_state(config).batch_stats}
    model = config.net.build(config.stft.bins)
    assert signal_path(model).model is model
    found = float(jax.jit(validation_loss(config))(variables, batch))
    assert found > 0
    other = dataclasses.replace(config, waveform_weight=0.03)
    assert float(jax.jit(validation_loss(other))(variables, batch)) != found


def test_a_net_without_a_target_cannot_train_towards_it():
    config = run_config(gated=False, loss="target")
    crops = train_crops(config, load_source(bank(0)), load_source(bank(2)))(0)
    with pytest.raises(AttributeError, match="target"):
        train_step(config)(new_state(config), *crops)


def halved(params, groups):
    """Masks without half of each tensor's groups."""
    thresholds = {}
    for path, axes in groups.items():
        sizes = np.abs(named_tensors(params)[path]).sum(axes)
        thresholds[path] = ratio_thresholds(sizes, [50])[0]
    return masks_by_thresholds(params, groups, thresholds)


@pytest.mark.slow
def test_masks_and_penalty_hold_through_a_run_and_its_checkpoints(tmp_path):
    """Pruned weights stay at 0, all others move; a finished run is read and not made again."""
    config = published("gcrn")
    params = jax.tree.map(np.asarray, new_state(config).params)
    stats = jax.tree.map(np.asarray, new_state(config).batch_stats)
    groups = groups_by_rank(params)
    masks = halved(params, groups)
    start = {"params": apply_masks(params, masks), "batch_stats": stats}

    def around(optimizer):
        def penalty(params, weights):
            return sparse_group_lasso(params, groups, *weights)

        return with_masks(with_penalty(optimizer, penalty, (0.1, 0.01)), masks)

    def run(folder, steps=4, **changes):
        options = {"variables": start, "around": around, "told": {"lambdas": [0.1, 0.01]}}
        loop = dataclasses.replace(config.loop, steps=steps)
        settings = dataclasses.replace(config, loop=loop)
        return train_run(tmp_path / folder, settings, corpus(), **{**options, **changes})[1]

    whole = run("whole")
    for path, mask in named_tensors(masks).items():
        weights = named_tensors(whole["params"])[path]
        assert (np.asarray(weights)[~np.asarray(mask)] == 0).all(), path
        assert (np.asarray(weights) != named_tensors(start["params"])[path]).any(), path
    # The masks are still there: the train step gives its buffers away, not the caller's.
    assert np.asarray(jax.tree.leaves(masks)[0]).any()
    again = run("whole")
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    plain = run("plain", around=lambda optimizer: with_masks(optimizer, masks))["params"]
    assert any(
        (np.asarray(a) != b).any()
        for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(whole["params"]), strict=True)
    )
    other = run("other", phase=1)["params"]
    assert any(
        (np.asarray(a) != b).any()
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(whole["params"]), strict=True)
    )
    with pytest.raises(ValueError, match=r"another configuration \(different: lambdas"):
        run("whole", told={"lambdas": [0.2, 0.01]})


def test_finetuning_is_shorter_with_an_optimizer_of_its_own():
    for config in (published("fdnn"), run_config(steps=30)):
        shorter = finetuning(config, 10, AMSGradConfig(decays=5))
        assert (shorter.loop.steps, shorter.optimizer) == (10, AMSGradConfig(decays=5))
        assert (shorter.net, shorter.mixing) == (config.net, config.mixing)


def test_amsgrad_falls_in_steps():
    """x 0.5 after every second of 6 steps; against the formula, with the largest second moment."""
    optimizer = AMSGradConfig(learning_rate=0.1, decay=0.5, decays=3, clip_norm=1e9).build(6)
    state = optimizer.init(jnp.zeros(()))
    m = v = largest = 0.0
    plain = 0.0
    for step, slope in enumerate((1.0, 10.0, 1.0, -2.0, 1.0, 1.0)):
        update, state = optimizer.update(jnp.float32(slope), state)
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        # Optax takes the maximum behind the correction of the bias (PyTorch before it).
        corrected = v / (1 - 0.999 ** (step + 1))
        largest = max(largest, corrected)
        first = m / (1 - 0.9 ** (step + 1))
        rate = 0.1 * 0.5 ** (step // 2)
        assert float(update) == pytest.approx(-rate * first / np.sqrt(largest), rel=1e-4)
        plain = max(plain, abs(rate * first / np.sqrt(corrected) + float(update)))
    assert plain > 1e-3  # Adam is another one
