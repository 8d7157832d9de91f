"""Training on sequences: it learns, repeats itself, gives the best epoch, names what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.training.sequences import (
    SequenceTrainer,
    SequenceTraining,
    classification_loss,
    gain_loss,
)

CONFIG = SequenceTraining(epochs=6, batch_size=8, learning_rate=0.1, weight_decay=0.0)


def rows(count, seed):
    features = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    return jnp.asarray(features), jnp.asarray(features @ [1.0, -2.0, 0.5], jnp.float32)


def squared_error(params, rows, offset=0.0):
    features, targets = rows
    return jnp.square(features @ params["w"] + offset - targets).mean()


START = {"w": jnp.zeros(3)}
TRAIN, VALID = rows(64, 0), rows(20, 1)


def test_it_learns_and_repeats_itself():
    trainer = SequenceTrainer(squared_error, TRAIN, VALID, CONFIG)
    params, lines = trainer(START, seed=0)
    assert squared_error(params, VALID) < 0.05 * squared_error(START, VALID)
    assert [line["epoch"] for line in lines] == list(range(7))
    again, _ = trainer(START, seed=0)
    np.testing.assert_array_equal(params["w"], again["w"])
    other, _ = trainer(START, seed=1)
    assert (params["w"] != other["w"]).any()


def test_the_best_epoch_comes_back_and_training_on_never_ends_worse():
    wild = SequenceTraining(epochs=3, batch_size=8, learning_rate=30.0)
    trainer = SequenceTrainer(squared_error, TRAIN, VALID, wild)
    solved = {"w": jnp.array([1.0, -2.0, 0.5])}
    params, lines = trainer(solved, seed=0)
    np.testing.assert_array_equal(params["w"], solved["w"])
    assert min(line["valid_loss"] for line in lines) == lines[0]["valid_loss"]
    params, lines = trainer(START, seed=0)
    best = min(line["valid_loss"] for line in lines)
    assert float(squared_error(params, VALID)) == pytest.approx(best, rel=1e-5)


def test_context_is_traced():
    traces = []

    def loss(params, rows, offset):
        traces.append(0)
        return squared_error(params, rows, offset)

    trainer = SequenceTrainer(loss, TRAIN, VALID, CONFIG)
    first, _ = trainer(START, jnp.float32(0), seed=0)
    count = len(traces)
    second, _ = trainer(START, jnp.float32(3), seed=0)
    assert len(traces) == count
    assert (first["w"] != second["w"]).any()


def test_input_noise_is_a_ridge():
    """Noise of variance v on the features shrinks least squares like a penalty v |w|^2."""
    noisy = SequenceTraining(epochs=60, batch_size=32, learning_rate=0.05, input_noise=1.0)
    # Validation on many noisy rows: the best epoch is then that of the noisy problem.
    draw = np.random.default_rng(2).normal(size=(4000, 3)).astype(np.float32)
    clean = rows(4000, 3)
    valid = (clean[0] + draw, clean[1])
    params, _ = SequenceTrainer(squared_error, rows(2048, 0), valid, noisy)(START, seed=0)
    np.testing.assert_allclose(params["w"], [0.5, -1.0, 0.25], atol=0.06)


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="at least 8 sequences, got 5"):
        SequenceTrainer(squared_error, rows(5, 0), VALID, CONFIG)
    with pytest.raises(ValueError, match="must be positive"):
        SequenceTraining(epochs=0)
    trainer = SequenceTrainer(lambda p, r: jnp.log(p["w"].sum() - 1), TRAIN, VALID, CONFIG)
    with pytest.raises(FloatingPointError, match="validation loss of the start is nan"):
        trainer(START, seed=0)

    def cliff(params, rows):  # the first step leads beyond it
        return jnp.log(1 - 1e6 * jnp.square(params["w"]).sum()) - params["w"].sum()

    with pytest.raises(FloatingPointError, match="a lower learning_rate"):
        SequenceTrainer(cliff, TRAIN, VALID, CONFIG)(START, seed=0)


def test_classification_counts_the_last_valid_frame_alone():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 5, 3)).astype(np.float32)
    lengths, labels = np.array([1, 3, 5, 2]), np.array([0, 2, 1, 1])
    last = logits[np.arange(4), lengths - 1]
    expected = -np.mean(
        [x[label] - np.log(np.exp(x).sum()) for x, label in zip(last, labels, strict=True)]
    )
    value = classification_loss(jnp.asarray(logits), jnp.asarray(lengths), jnp.asarray(labels))
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_gains_count_where_frames_are_valid():
    rng = np.random.default_rng(0)
    gains, targets = rng.uniform(size=(2, 3, 4, 2)).astype(np.float32)
    lengths = np.array([4, 1, 2])
    expected = np.concatenate(
        [np.square(g - t)[:n] for g, t, n in zip(gains, targets, lengths, strict=True)]
    ).mean()
    loss = jax.jit(gain_loss)
    value = loss(jnp.asarray(gains), jnp.asarray(lengths), jnp.asarray(targets))
    assert float(value) == pytest.approx(expected, rel=1e-5)
