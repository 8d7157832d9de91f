"""A small recurrent net on a task: trained in float, quantised, judged in integers, fine-tuned.

    params = train_float(task, ...)            float net, GRU and a dense layer on top
    net    = quantize(task, params)            all widths at once
    scores = integer_scores(task, net, genome, rows)       one score a sequence, higher is better
    params = finetuner(task, net, ...)(params, genome, ...)    trained on for one genome

The genome that is searched has the 17 genes of the GRU; the layer on top stays at 8 bits. A task
is what its rows are, how a batch of outputs is scored and what is lost; `classification_task` and
`enhancement_task` make one from data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from dynse.data.gain_sequences import BANDS, GainSplit, GainTask, MixtureAudio
from dynse.data.sequences import SequenceSplit, SequenceTask
from dynse.evaluation.band_gains import gain_si_sdr
from dynse.models.gru_classifier import GRUClassifier, last_valid
from dynse.quantization import (
    DenseLayer,
    GRULayer,
    IntegerNet,
    apply_fake,
    apply_integer,
    build,
    calibrate,
    dequantize_output,
    init_state,
    quantize_input,
)
from dynse.training.sequences import (
    SequenceTrainer,
    SequenceTraining,
    classification_loss,
    gain_loss,
)

HEAD_BITS = 8
LOWEST_DB = -30.0
CALIBRATION_SEQUENCES = 256
SEARCH_SEQUENCES = 400
# Of five groups (or rows) of the training split one is for the search.
SEARCH_EVERY, SEARCH_FROM = 5, 2
Rows = tuple[Any, ...]  # features (N, T, D), lengths (N,), and what the task needs beside


@dataclasses.dataclass(frozen=True)
class BitTask:
    """What a genome is judged by.

    Attributes:
        name: in tables.
        score_name: with its unit; higher is better.
        margins: (mean, low): a smaller net is comparable to the 8-bit one where its scores are
            at most `mean` lower on average, and the interval of that at most `low`.
        outputs: of the net, K.
        activation: of its last layer, "none" or "sigmoid".
        train: rows to train on and to calibrate with.
        search: rows that the search looks at; the float net was not trained on them.
        valid: rows that stop the training and that choose among the nets found.
        test: rows that none of these sees.
        groups: of "valid" and "test", (N,) each: rows of one group are drawn together in an
            interval; None where each row is on its own.
        fingerprint: hash of the data.
        loss: (outputs (B, T, K), rows) -> mean loss ().
        distance: (outputs (B, T, K), outputs of the float net, rows) -> mean squared difference
            of what counts in them ().
        score: (outputs (B, T, K), rows) -> scores (B,).
    """

    name: str
    score_name: str
    margins: tuple[float, float]
    outputs: int
    activation: str
    train: Rows
    search: Rows
    valid: Rows
    test: Rows
    groups: Mapping[str, tuple[str, ...] | None]
    fingerprint: str
    loss: Callable[[jax.Array, Rows], jax.Array]
    distance: Callable[[jax.Array, jax.Array, Rows], jax.Array]
    score: Callable[[jax.Array, Rows], jax.Array]

    @property
    def layers(self) -> tuple[GRULayer, DenseLayer]:
        """Of the integer net."""
        return GRULayer("gru"), DenseLayer("fc", self.activation)


def classification_task(task: SequenceTask, *, grouped: bool = False) -> BitTask:
    """Score: 100 where the class is right, else 0, so that means are accuracies in %.

    A fifth of the training sequences is for the search alone: on those that the net has learnt
    small nets look as good as large ones. The validation split stays fresh to choose with: were
    it searched on, the smallest of thousands of nets that seems comparable would be a lucky one.

    Args:
        task: the data.
        grouped: sequences of one group (segments of one recording) are not independent.

    Raises:
        ValueError: where the training split is too small to be divided.
    """

    def groups(split: SequenceSplit) -> tuple[str, ...] | None:
        return tuple(map(str, split.groups)) if grouped else None

    def rows(split: SequenceSplit) -> Rows:
        return tuple(jnp.asarray(a) for a in (split.features, split.lengths, split.labels))

    def distance(logits: jax.Array, teacher: jax.Array, rows: Rows) -> jax.Array:
        # The same number added to all logits of a sequence changes nothing.
        difference = last_valid(logits - teacher, rows[1])
        return jnp.square(difference - difference.mean(-1, keepdims=True)).mean()

    def score(logits: jax.Array, rows: Rows) -> jax.Array:
        return 100.0 * (last_valid(logits, rows[1]).argmax(-1) == rows[2])

    held = _held_out(task.train.groups if grouped else task.train.ids)
    train, search = (tuple(leaf[part] for leaf in rows(task.train)) for part in (~held, held))
    return BitTask(
        name=task.name,
        score_name="accuracy in %",
        margins=(0.5, 2.0),
        outputs=len(task.classes),
        activation="none",
        train=train,
        search=_spread(search, SEARCH_SEQUENCES),
        valid=rows(task.valid),
        test=rows(task.test),
        groups={split: groups(getattr(task, split)) for split in ("valid", "test")},
        fingerprint=task.fingerprint,
        loss=lambda logits, rows: classification_loss(logits, rows[1], rows[2]),
        distance=distance,
        score=score,
    )


def _held_out(groups: np.ndarray) -> np.ndarray:
    """Which rows (N,) are for the search: all of every fifth group, in order of appearance."""
    held = list(dict.fromkeys(groups.tolist()))[SEARCH_FROM::SEARCH_EVERY]
    if not held:
        raise ValueError(
            f"expected more than {SEARCH_FROM} groups of training sequences, to hold some out for "
            f"the search, got {len(set(groups.tolist()))}"
        )
    return np.isin(groups, held)


def enhancement_task(task: GainTask) -> BitTask:
    """Score: SI-SDR in dB of the mixtures after the net's gains per band.

    The search looks at every fourth mixture of the validation split, the others choose: a distance
    over all frames of some mixtures says enough, a tenth of a dB needs many.
    What counts as comparable is ours: 0.1 dB less on average, 0.3 dB at the interval's low end.
    """

    def rows(split: GainSplit, *audio: MixtureAudio) -> Rows:
        arrays = (split.features, split.lengths, split.targets)
        return (*(jnp.asarray(a) for a in arrays), *audio)

    valid = rows(task.valid, task.valid_audio)
    chooses = np.arange(len(task.valid.lengths)) % 4 > 0
    return BitTask(
        name=task.name,
        score_name="SI-SDR in dB",
        margins=(0.1, 0.3),
        outputs=BANDS,
        activation="sigmoid",
        train=rows(task.train),
        search=jax.tree.map(lambda leaf: leaf[~chooses], valid),
        valid=jax.tree.map(lambda leaf: leaf[chooses], valid),
        test=rows(task.test, task.test_audio),
        groups={
            "valid": tuple(map(str, task.valid.groups[chooses])),
            "test": tuple(map(str, task.test.groups)),
        },
        fingerprint=task.fingerprint,
        loss=lambda gains, rows: gain_loss(gains, rows[1], rows[2]),
        distance=lambda gains, teacher, rows: gain_loss(gains, rows[1], teacher),
        # Gains that silence everything have no SI-SDR: the lowest score there is.
        score=lambda gains, rows: jnp.fmax(gain_si_sdr(gains, rows[3]), LOWEST_DB),
    )


def float_net(task: BitTask, hidden: int) -> GRUClassifier:
    """The net of a task, `hidden` units."""
    return GRUClassifier(features=hidden, outputs=task.outputs, activation=task.activation)


def train_float(
    task: BitTask,
    hidden: int,
    config: SequenceTraining,
    *,
    seed: int,
    console: Console | None = None,
) -> tuple[Any, list[dict[str, float]]]:
    """Parameters of the best epoch and one line per epoch."""
    model = float_net(task, hidden)
    params = jax.jit(model.init)(jax.random.key(seed), task.train[0][:1])["params"]

    def loss(params: Any, rows: Rows) -> jax.Array:
        return task.loss(model.apply({"params": params}, rows[0])[1], rows)

    train = SequenceTrainer(loss, task.train, task.valid, config)
    return train(params, seed=seed, title=f"{task.name}, float", console=console)


def float_outputs(task: BitTask, hidden: int, params: Any, rows: Rows) -> jax.Array:
    """Outputs (N, T, K) of the float net."""
    return float_net(task, hidden).apply({"params": params}, rows[0])[1]


def float_scores(task: BitTask, hidden: int, params: Any, rows: Rows) -> jax.Array:
    """Scores (N,) of the float net."""
    return task.score(float_outputs(task, hidden, params, rows), rows)


def quantize(task: BitTask, params: Any, *, method: str, weights: str) -> IntegerNet:
    """The integer net at all widths, calibrated on sequences of the training split.

    Args:
        task: what to calibrate with.
        params: of the float net.
        method: of the ranges of activations, see `dynse.quantization.calibrate`.
        weights: of the scales of weights, see `dynse.quantization.build`.
    """
    features, lengths = map(np.asarray, _spread(task.train[:2], CALIBRATION_SEQUENCES))
    valid = np.arange(features.shape[1]) < lengths[:, None]
    ranges = calibrate(task.layers, params, [(features, valid)], method=method)
    return build(task.layers, params, ranges, weights=weights)


def _spread(rows: Rows, most: int) -> Rows:
    """At most so many rows, evenly spread: a split is in the order of classes, voices or SNRs."""
    count = len(rows[1])
    chosen = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    return jax.tree.map(lambda leaf: leaf[chosen], rows)


def integer_outputs(task: BitTask, net: IntegerNet, genome: jax.Array, rows: Rows) -> jax.Array:
    """Outputs (N, T, K) of the integer net with the GRU at these widths.

    Args:
        task: what the rows are of.
        net: from `quantize`.
        genome: (17,) int32, may be traced.
        rows: of the task.
    """
    genome = full_genome(genome)
    state = init_state(net, genome, rows[0].shape[0])
    _, q = apply_integer(net, genome, state, quantize_input(net, rows[0]))
    return dequantize_output(net, genome, q)


def full_genome(genome: jax.Array) -> jax.Array:
    """The GRU's genes (17,) and the fixed one of the layer on top."""
    return jnp.concatenate([genome, jnp.array([HEAD_BITS], genome.dtype)])


def integer_scores(task: BitTask, net: IntegerNet, genome: jax.Array, rows: Rows) -> jax.Array:
    """Scores (N,) of the integer net, see `integer_outputs`."""
    return task.score(integer_outputs(task, net, genome, rows), rows)


def search_error(
    task: BitTask,
    net: IntegerNet,
    genome: jax.Array,
    rows: Rows,
    teacher: jax.Array,
    kind: str,
) -> jax.Array:
    """What a search minimises beside the size, ().

    Args:
        task: the task.
        net: from `quantize`.
        genome: (17,) int32, may be traced.
        rows: usually `task.search`.
        teacher: the float net's outputs for these rows, see `float_outputs`.
        kind: "score", minus the mean score (the paper); "loss", that of the training; or
            "distance" to the float net's outputs, ours. Of thousands of nets the best by score or
            loss on some hundred sequences is a lucky one, and often a small one, so that nothing
            larger is left on the front; the distance has no labels to be lucky with.
    """
    outputs = integer_outputs(task, net, genome, rows)
    if kind == "distance":
        return task.distance(outputs, teacher, rows)
    return task.loss(outputs, rows) if kind == "loss" else -task.score(outputs, rows).mean()


def finetuner(task: BitTask, net: IntegerNet, config: SequenceTraining) -> SequenceTrainer:
    """Trains on for any widths, on the net's fixed grids: `finetuner(...)(params, genome, seed=)`.

    `genome` is (17,) int32. Where no epoch has a lower validation loss, the parameters come back
    as they were. `dynse.quantization.requantize` makes the integer net of what comes out.
    """

    def loss(params: Any, rows: Rows, genome: jax.Array) -> jax.Array:
        genome = full_genome(genome)
        state = init_state(net, genome, rows[0].shape[0])
        return task.loss(apply_fake(net, params, genome, state, rows[0])[1], rows)

    return SequenceTrainer(loss, task.train, task.valid, config)
