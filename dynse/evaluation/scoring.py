"""Score nets on a test set, gated ones beside their controls.

Every net is scored on one test set and leaves a JSON record. A gated net is scored again under
three controls: its most-used channels always open ("fixed"), each channel at its own rate at
random ("random"), and its own gates with the frames of each utterance in another order
("shuffled"). The rates come from the validation split.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from dynse.audio.stft import STFT
from dynse.data.bank import Corpus
from dynse.data.testsets import TestSet, render
from dynse.evaluation.baselines import BASELINES
from dynse.evaluation.cost import FRAMES_PER_S, CostTotals, cost_totals
from dynse.evaluation.gates import gate_intervals
from dynse.evaluation.metric_process import MetricPool
from dynse.evaluation.metrics import Utterance, score_utterances
from dynse.evaluation.nets import Control, Enhanced, as_utterance, enhance_mixtures, gate_values
from dynse.evaluation.scores import (
    RunRecord,
    UtteranceScore,
    commit,
    load_record,
    machine,
    save_record,
)
from dynse.evaluation.statistics import Interval
from dynse.evaluation.training_tables import training_summary
from dynse.gating.controls import fixed_gates, random_gates, shuffled_gates
from dynse.gating.statistics import gather_statistics

EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class NetResult:
    """A scored net.

    Attributes:
        record: its scores.
        controls: scores of its controls by name; empty without gates.
        cost: totals at the kept fractions of the test set.
        layers: its layers' costs.
        gates: figures of its gates with intervals; empty without.
        examples: some mixtures as it enhanced them.
        training: its lines of metrics.
    """

    record: RunRecord
    controls: Mapping[str, RunRecord]
    cost: CostTotals
    layers: Sequence[Any]
    gates: Mapping[str, Interval]
    examples: tuple[Enhanced, ...]
    training: Sequence[Mapping[str, Any]]


def score_references(
    corpus: Corpus, test_set: TestSet, records_dir: Path, pool: MetricPool
) -> list[RunRecord]:
    """Records of what needs no training: the noisy input and the oracle Wiener gains."""
    records = []
    for name, estimate in BASELINES.items():

        def items(estimate: Any = estimate) -> Iterable[Utterance]:
            for spec in test_set:
                mixture = render(spec, corpus)
                yield as_utterance(mixture, estimate(mixture.noisy, mixture.noise))

        records.append(
            scored_record(name, items(), corpus, test_set, records_dir, pool, config={}, seed=None)
        )
    return records


def score_net(
    name: str,
    model: Any,
    variables: Any,
    corpus: Corpus,
    test_set: TestSet,
    valid_set: TestSet,
    *,
    stft: STFT,
    records_dir: Path,
    pool: MetricPool,
    config: Mapping[str, Any],
    seed: int,
    training: Sequence[Mapping[str, Any]] = (),
    controls: bool = True,
    bytes_per_param: float = 4,
    rms: float | None = None,
) -> NetResult:
    """Score a net and, where it has gates, its controls.

    Args:
        name: in tables, and of its record.
        model: the network.
        variables: its variables.
        corpus: of the test sets.
        test_set: the mixtures to score.
        valid_set: mixtures of the validation split, for the rates of the controls.
        stft: the network's transform.
        records_dir: where the records go; a record that is there is not made again.
        pool: processes for the metrics.
        config: kept in the record.
        seed: of the training.
        training: lines of metrics.
        controls: score the controls of a gated net as well.
        bytes_per_param: mean over the parameters; 4 for float32.
        rms: scale each mixture to this RMS before the network, and back after it; None does not.
    """
    of_net = {"stft": stft, "rms": rms}
    enhanced = list(enhance_mixtures(model, variables, corpus, test_set, **of_net))
    layers = model.cost()
    gates: Mapping[str, Interval] = {}
    kept: Sequence[float] = ()
    by_control: dict[str, Control] = {}
    if enhanced[0].gates:
        statistics = gather_statistics([one.statistics for one in enhanced])
        gates = gate_intervals(statistics)
        kept = statistics.kept_per_block
        if controls:
            rates = open_rates(model, variables, corpus, valid_set, **of_net)
            by_control = _controls(rates)
    cost = cost_totals(layers, kept, bytes_per_param=bytes_per_param)

    def items(outputs: Iterable[Enhanced]) -> Iterable[Utterance]:
        for one in outputs:
            values = gate_values(model, one.statistics, one.gates, FRAMES_PER_S)
            yield as_utterance(one.mixture, one.enhanced, values)

    shared = {"corpus": corpus, "test_set": test_set, "records_dir": records_dir, "pool": pool}
    record = scored_record(
        name,
        items(enhanced),
        **shared,
        config=config,
        seed=seed,
        cost=dataclasses.asdict(cost),
        extra={
            "gates": {key: dataclasses.asdict(value) for key, value in gates.items()},
            "training": training_summary(training),
        },
    )
    controlled = {
        f"{name}, {kind}": scored_record(
            f"{name}, {kind}",
            items(enhance_mixtures(model, variables, corpus, test_set, control=control, **of_net)),
            **shared,
            config=config,
            seed=seed,
        )
        for kind, control in by_control.items()
    }
    chosen = tuple(enhanced[index] for index in _example_indices(enhanced))
    return NetResult(record, controlled, cost, layers, gates, chosen, training)


def open_rates(
    model: Any,
    variables: Any,
    corpus: Corpus,
    test_set: TestSet,
    *,
    stft: STFT,
    rms: float | None = None,
) -> list[np.ndarray]:
    """By block (C,): the fraction of a test set's frames in which each channel is open."""
    enhanced = enhance_mixtures(model, variables, corpus, test_set, stft=stft, rms=rms)
    return gather_statistics([one.statistics for one in enhanced]).rates


def _controls(rates: Sequence[np.ndarray]) -> dict[str, Control]:
    fixed = fixed_gates(rates)
    rates = [jnp.asarray(rate, jnp.float32) for rate in rates]
    return {
        "fixed": lambda key, gates: fixed,
        "random": lambda key, gates: random_gates(key, rates, *gates[0].shape[:2]),
        "shuffled": lambda key, gates: shuffled_gates(key, gates),
    }


def scored_record(
    name: str,
    items: Iterable[Utterance],
    corpus: Corpus,
    test_set: TestSet,
    records_dir: Path,
    pool: MetricPool,
    *,
    config: Mapping[str, Any],
    seed: int | None,
    cost: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Score, or take the record that an earlier start has left for the same thing.

    Args:
        name: in tables, and of the record's file.
        items: what is scored; not touched where the record is there.
        corpus: of the test set.
        test_set: the mixtures.
        records_dir: where the record goes.
        pool: processes for the metrics.
        config: all that decides the scores, but for the corpus and the test set.
        seed: of the training.
        cost: kept in the record.
        extra: kept in the record.
    """
    path = records_dir / f"{name.replace(', ', '-').replace(' ', '-')}.json"
    config = json.loads(json.dumps(config))
    if path.exists():
        found = load_record(path)
        if found.test_set_hash == test_set.sha256 and found.config == config:
            return found
    scores: list[UtteranceScore] = score_utterances(
        items, pool=pool, total=len(test_set), description=f"scoring {name}"
    )
    record = RunRecord(
        net=name,
        corpus=corpus.name,
        corpus_fingerprint=corpus.fingerprint,
        test_set=test_set.name,
        test_set_hash=test_set.sha256,
        utterances=tuple(scores),
        config=config,
        seed=seed,
        cost=cost or {},
        extra=extra or {},
        machine=machine(),
        commit=commit(),
    )
    save_record(path, record)
    return record


def _example_indices(enhanced: Sequence[Enhanced]) -> list[int]:
    """The first mixture at a low, a middle and a high SNR, of different noise classes."""
    snrs = sorted({one.mixture.snr_db for one in enhanced})
    wanted = [snrs[0], snrs[len(snrs) // 2], snrs[-1]][:EXAMPLES]
    chosen: list[int] = []
    classes: set[str] = set()
    for snr in wanted:
        candidates = [i for i, one in enumerate(enhanced) if one.mixture.snr_db == snr]
        fresh = [i for i in candidates if enhanced[i].mixture.noise_class not in classes]
        index = (fresh or candidates)[0]
        chosen.append(index)
        classes.add(enhanced[index].mixture.noise_class)
    return chosen
