"""From a float net to scores in integers and fine-tuning, on a tiny task."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.data.gain_sequences import GainSplit, GainTask, MixtureAudio
from dynse.data.sequences import Clip, make_task
from dynse.quantization import (
    apply_integer,
    dequantize_output,
    init_state,
    quantize_input,
    requantize,
)
from dynse.training import bit_tasks
from dynse.training.bit_tasks import (
    classification_task,
    enhancement_task,
    finetuner,
    float_outputs,
    float_scores,
    integer_outputs,
    integer_scores,
    quantize,
    search_error,
    train_float,
)
from dynse.training.sequences import SequenceTraining

HIDDEN = 6


def clips(split, count):
    """Which of two features was high first: the order alone tells."""
    rng = np.random.default_rng(len(split))
    made = []
    for index in range(count):
        label = index % 2
        frames = 0.3 * rng.normal(size=(int(rng.integers(4, 7)), 2)).astype(np.float32)
        frames[0, label] += 2
        frames[2, 1 - label] += 2
        made.append(Clip(frames, label, "g", f"{split}-{index}"))
    return made


@pytest.fixture(scope="module")
def task():
    sizes = {"train": 128, "valid": 40, "test": 60}
    made = {split: clips(split, count) for split, count in sizes.items()}
    return classification_task(make_task("order", ("a", "b"), made))


@pytest.fixture(scope="module")
def params(task):
    config = SequenceTraining(epochs=15, batch_size=16, learning_rate=0.03)
    return train_float(task, HIDDEN, config, seed=0)[0]


@pytest.fixture(scope="module")
def score(task):
    return jax.jit(lambda net, bits, rows: integer_scores(task, net, bits, rows))


def test_the_search_has_sequences_of_its_own():
    """A fifth of the groups, whole: the float net is trained on none of them."""
    made = {split: clips(split, 40) for split in ("train", "valid", "test")}
    made["train"] = [clip._replace(group=f"voice{i // 4}") for i, clip in enumerate(made["train"])]
    data = make_task("order", ("a", "b"), made)
    features = data.train.features

    def indices(rows):
        return [int(np.flatnonzero((features == row).all((1, 2)))[0]) for row in rows[0]]

    grouped = classification_task(data, grouped=True)
    assert indices(grouped.search) == [8, 9, 10, 11, 28, 29, 30, 31]  # voices 2 and 7
    assert sorted(indices(grouped.search) + indices(grouped.train)) == list(range(40))
    assert indices(classification_task(data).search) == list(range(2, 40, 5))
    few = {**made, "train": [clip._replace(group="one") for clip in made["train"]]}
    with pytest.raises(ValueError, match="more than 2 groups of training sequences"):
        classification_task(make_task("order", ("a", "b"), few), grouped=True)


def test_calibration_sees_the_whole_split(monkeypatch, task):
    """The split is in the order of its classes: the first sequences are of one class alone."""
    ordered = np.argsort(task.train[2], kind="stable")
    sorted_task = dataclasses.replace(task, train=tuple(leaf[ordered] for leaf in task.train))
    seen = {}

    def calibrate(layers, params, batches, *, method):
        seen["features"] = batches[0][0]

    monkeypatch.setattr(bit_tasks, "CALIBRATION_SEQUENCES", 8)
    monkeypatch.setattr(bit_tasks, "calibrate", calibrate)
    monkeypatch.setattr(bit_tasks, "build", lambda *args, **options: None)
    quantize(sorted_task, {}, method="minmax", weights="minmax")
    # The label is which feature starts high.
    labels = seen["features"][:, 0].argmax(-1)
    assert sorted(labels) == [0] * 4 + [1] * 4


def test_eight_bits_score_as_float_and_two_bits_do_not(task, params, score):
    net = quantize(task, params, method="minmax", weights="minmax")
    in_float = float_scores(task, HIDDEN, params, task.test)
    assert set(np.unique(in_float)) <= {0, 100}
    assert float(in_float.mean()) > 90
    eight = score(net, jnp.full(17, 8), task.test)
    assert abs(float(eight.mean() - in_float.mean())) <= 5
    assert float(score(net, jnp.full(17, 2), task.test).mean()) < 80


def test_fine_tuning_lowers_the_loss_of_its_genome(task, params):
    net = quantize(task, params, method="minmax", weights="minmax")
    config = SequenceTraining(epochs=4, batch_size=32, learning_rate=5e-3)
    genome = jnp.full(17, 3)
    tuned, lines = finetuner(task, net, config)(params, genome, seed=0)
    assert min(line["valid_loss"] for line in lines) < lines[0]["valid_loss"]
    # The integer net of the tuned parameters loses what the fake one did in training.
    rows, best = task.valid, min(line["valid_loss"] for line in lines)
    wide = jnp.append(genome, 8)
    state = init_state(net, wide, len(rows[1]))
    tuned_net = requantize(net, tuned)
    _, q = apply_integer(tuned_net, wide, state, quantize_input(net, rows[0]))
    assert float(task.loss(dequantize_output(net, wide, q), rows)) == pytest.approx(best, rel=1e-4)


def test_what_a_search_minimises(task, params):
    """The loss, minus the score, or how far the last outputs lie from the float net's."""
    net = quantize(task, params, method="minmax", weights="minmax")
    rows = task.search
    teacher = np.asarray(float_outputs(task, HIDDEN, params, rows))
    genome = jnp.full(17, 4)
    found = {
        kind: float(search_error(task, net, genome, rows, teacher, kind))
        for kind in ("distance", "loss", "score")
    }
    outputs = np.asarray(integer_outputs(task, net, genome, rows))
    squares, right = [], []
    for row, length in enumerate(np.asarray(rows[1])):
        one, other = outputs[row, length - 1], teacher[row, length - 1]
        difference = (one[0] - one[1]) - (other[0] - other[1])
        squares.append((difference / 2) ** 2)  # of two logits each lies half of it off the mean
        right.append(one.argmax() == rows[2][row])
    np.testing.assert_allclose(found["distance"], np.mean(squares), rtol=1e-5)
    np.testing.assert_allclose(found["score"], -100 * np.mean(right), rtol=1e-6)
    np.testing.assert_allclose(found["loss"], task.loss(jnp.asarray(outputs), rows), rtol=1e-6)
    shifted = task.distance(jnp.asarray(teacher) + 3.0, teacher, rows)
    assert float(shifted) < 1e-9  # softmax does not see it


def test_the_mixtures_that_choose_are_not_searched_on():
    """Every fourth mixture of the validation split is for the search, with its audio."""
    count = 8
    numbers = np.arange(count, dtype=np.float32)
    split = GainSplit(
        np.tile(numbers[:, None, None], (1, 3, 32)),
        np.full(count, 3, np.int32),
        np.zeros((count, 3, 32), np.float32),
        np.array([f"speaker {n % 3}" for n in range(count)]),
        np.array([f"mixture {n}" for n in range(count)]),
    )
    spectrum = jnp.tile(numbers[:, None, None], (1, 3, 257)).astype(jnp.complex64)
    audio = MixtureAudio(spectrum, jnp.zeros((count, 768)), jnp.full(count, 768))
    flat = np.zeros(32, np.float32)
    task = enhancement_task(GainTask("gains", split, split, split, audio, audio, flat, flat + 1))
    for rows, expected in ((task.search, [0, 4]), (task.valid, [1, 2, 3, 5, 6, 7])):
        assert rows[0][:, 0, 0].tolist() == expected
        assert rows[3].spectrum[:, 0, 0].real.tolist() == expected
    assert task.groups["valid"] == tuple(f"speaker {n % 3}" for n in (1, 2, 3, 5, 6, 7))
    assert len(task.test[1]) == count
