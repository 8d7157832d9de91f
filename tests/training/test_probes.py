"""Gates trained with probes in view: targets, gradients, and a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.small import corpus, run_config

from dynse.audio.activity import active_frames
from dynse.audio.stft import STFT
from dynse.data.bank import Corpus
from dynse.data.labels import frame_snr_db
from dynse.data.mixing import Batch
from dynse.models.network import Aux
from dynse.training.probes import READS, ProbeLoss, ProbeTraining, frame_targets, head_loss
from dynse.training.runs import load_run, train_run
from dynse.training.step import NoExtraLoss

CHANNELS = 6


def batch(seed=0, rows=2, samples=8000):
    """Swelling noise as speech, with an F0 in every other frame."""
    draw = np.random.default_rng(seed)
    swell = np.abs(np.sin(np.arange(samples) / 900)) ** 4
    clean = (0.1 * swell * draw.normal(size=(rows, samples))).astype(np.float32)
    noise = (0.02 * draw.normal(size=(rows, samples))).astype(np.float32)
    frames = active_frames(clean).shape[1]
    f0_hz = np.tile(np.where(np.arange(frames) % 2, 200.0, 0.0), (rows, 1))
    return Batch(*map(jnp.asarray, (clean + noise, clean, np.zeros(rows), f0_hz)))


def aux(seed, frames):
    gates = np.random.default_rng(seed).integers(0, 2, (2, frames, CHANNELS)).astype(np.float32)
    return Aux((jnp.asarray(gates[..., :4]), jnp.asarray(gates[..., 4:])), ())


def test_targets_are_the_labels_of_the_data():
    given = batch()
    targets = frame_targets(given)
    clean, noisy = np.asarray(given.clean), np.asarray(given.noisy)
    np.testing.assert_array_equal(targets.voice, active_frames(clean))
    for row in range(2):
        expected = frame_snr_db(clean[row], noisy[row] - clean[row])
        np.testing.assert_allclose(targets.snr[row] * 12, expected, atol=0.01)
    voiced = np.asarray(targets.voiced)
    np.testing.assert_array_equal(voiced, active_frames(clean) & (np.asarray(given.f0_hz) > 0))
    assert voiced.any()
    octaves = np.asarray(targets.f0)[voiced] * 0.5
    np.testing.assert_allclose(octaves, np.log2(200) - 7.5, rtol=1e-5)


def test_the_loss_is_the_mean_of_three():
    targets = frame_targets(batch())
    frames = targets.voice.shape[1]
    draw = np.random.default_rng(1)
    gates = draw.integers(0, 2, (2, frames, CHANNELS)).astype(np.float32)
    weights, bias = draw.normal(size=(CHANNELS, 3)), draw.normal(size=3)
    logit, f0, snr = np.moveaxis(gates @ weights + bias, -1, 0)
    voice, voiced = np.asarray(targets.voice), np.asarray(targets.voiced)
    entropy = np.log1p(np.exp(-np.where(voice == 1, logit, -logit))).mean()
    pitch = np.square(f0 - targets.f0)[voiced].mean()
    expected = (entropy + pitch + np.square(snr - targets.snr).mean()) / 3
    found = head_loss((jnp.asarray(weights), jnp.asarray(bias)), jnp.asarray(gates), targets)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_head_learns_and_the_gates_get_its_gradient():
    given = batch()
    loss = ProbeLoss(ProbeTraining(weight=0.5, learning_rate=0.05), CHANNELS, NoExtraLoss())
    told = aux(2, frame_targets(given).voice.shape[1])
    # One channel says where there is voice.
    told = Aux((told.gates[0].at[..., 0].set(frame_targets(given).voice), told.gates[1]), ())
    step = jax.jit(lambda state, told: loss(state, told, given, jnp.int32(0)))
    state = loss.init()
    first, state, metrics = step(state, told)
    assert float(first) == pytest.approx(0.5 * float(metrics["probes"]))
    at_zero = jax.grad(lambda gates: step(loss.init(), Aux(gates, ()))[0])(told.gates)
    assert not any(map(jnp.any, at_zero))  # a head of zeros asks for nothing
    for _ in range(200):
        last, state, _ = step(state, told)
    assert float(last) < 0.6 * float(first)
    assert int(jnp.abs(state.weights[:, 0]).argmax()) == 0
    gradient = jax.grad(lambda gates: step(state, Aux(gates, ()))[0])(told.gates)
    assert all(map(jnp.any, gradient))


def test_a_run_brings_its_pitch_and_is_read_back(tmp_path):
    small = corpus()
    speech = {
        split: dataclasses.replace(
            bank, tracks={"f0_hz": np.full(len(bank.samples) // 80, 150, np.float32)}
        )
        for split, bank in small.speech.items()
    }
    known = Corpus(small.name, small.fingerprint, speech, small.noise)
    config = run_config()
    net = dataclasses.replace(config.net, probe_training=ProbeTraining())
    with pytest.raises(ValueError, match="expected the 17 frames of the 512/256 STFT"):
        train_run(tmp_path / "other", dataclasses.replace(config, net=net), known)
    config = dataclasses.replace(config, net=net, stft=STFT())
    _, variables, lines = train_run(tmp_path / "told", config, known)
    assert "probes" in lines[0]
    _, again, found = load_run(tmp_path / "told")
    assert found == config
    same = jax.tree.map(np.array_equal, variables, again)
    assert all(jax.tree.leaves(same))


def test_gates_and_the_last_hidden_layer_may_be_read_together():
    given, net = batch(), run_config().net
    frames = frame_targets(given).voice.shape[1]
    seen = aux(3, frames)._replace(hidden=jnp.ones((2, frames, 5)))
    sizes = {}
    for reads in READS:
        training = ProbeTraining(reads=reads)
        loss = ProbeLoss(training, {"gates": 6, "hidden": 5, "both": 11}[reads], NoExtraLoss())
        sizes[reads] = dataclasses.replace(net, probe_training=training).extra_loss(10).channels
        jax.eval_shape(loss, loss.init(), seen, given, jnp.int32(0))
    assert sizes == {"gates": 2 * net.width, "hidden": net.width, "both": 3 * net.width}


def test_without_gates_that_learn_the_last_hidden_layer_is_read():
    training = ProbeTraining(reads="hidden")
    static = dataclasses.replace(run_config(gated=False).net, probe_training=training)
    loss = static.extra_loss(10)
    assert loss.channels == static.width
    model, given = static.build(257), batch()
    frames = jnp.abs(STFT().forward(given.noisy))

    def extra(params, batch_stats, state):
        variables = {"params": params, "batch_stats": batch_stats}
        _, _, aux = model.apply(variables, frames, train=True, mutable=["batch_stats"])[0]
        return loss(state, aux, given, jnp.int32(0))[:2]

    variables = model.init(jax.random.key(0), frames[:, :1])
    gradient = jax.jit(jax.grad(extra, has_aux=True))
    to_net, state = gradient(variables["params"], variables["batch_stats"], loss.init())
    assert not any(map(jnp.any, jax.tree.leaves(to_net)))  # a head of zeros asks for nothing
    to_net, _ = gradient(variables["params"], variables["batch_stats"], state)
    reached = {name: any(map(jnp.any, jax.tree.leaves(part))) for name, part in to_net.items()}
    assert reached == {"front": True, "block0": True, "block1": True, "back": False}


def test_wrong_uses_are_named():
    loss = ProbeLoss(ProbeTraining(), CHANNELS, NoExtraLoss())
    without = batch()._replace(f0_hz=None)
    with pytest.raises(ValueError, match="load the speech with its pitch"):
        loss(loss.init(), aux(0, 5), without, jnp.int32(0))
    with pytest.raises(ValueError, match="must be positive"):
        ProbeTraining(weight=0)
    with pytest.raises(ValueError, match="one of gates, hidden, both"):
        ProbeTraining(reads="scores")
    with pytest.raises(ValueError, match="probes need gates"):
        dataclasses.replace(run_config(gated=False).net, probe_training=ProbeTraining())
