"""From a float net to scores in integers and fine-tuning, on a tiny task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.data.sequences import Clip, make_task
from dynse.quantization import requantize
from dynse.training.bit_tasks import (
    classification_task,
    finetuner,
    float_scores,
    integer_scores,
    quantize,
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


def test_eight_bits_score_as_float_and_two_bits_do_not(task, params, score):
    net = quantize(task, params, method="minmax", weights="minmax")
    in_float = float_scores(task, HIDDEN, params, task.test)
    assert set(np.unique(in_float)) <= {0, 100}
    assert float(in_float.mean()) > 90
    eight = score(net, jnp.full(17, 8), task.test)
    assert abs(float(eight.mean() - in_float.mean())) <= 5
    assert float(score(net, jnp.full(17, 2), task.test).mean()) < 80


def test_fine_tuning_lowers_the_loss_of_its_genome(task, params, score):
    net = quantize(task, params, method="minmax", weights="minmax")
    config = SequenceTraining(epochs=4, batch_size=32, learning_rate=5e-3)
    genome = jnp.full(17, 3)
    tuned, lines = finetuner(task, net, config)(params, genome, seed=0)
    assert min(line["valid_loss"] for line in lines) < lines[0]["valid_loss"]
    before = float(score(net, genome, task.valid).mean())
    after = float(score(requantize(net, tuned), genome, task.valid).mean())
    assert after >= before
