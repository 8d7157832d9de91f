"""Score gated nets beside their opponents, and make the report of dynamic channel pruning.

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
from dynse.evaluation.cost import FRAMES_PER_S, CostTotals, cost_table, cost_totals, layer_table
from dynse.evaluation.figures import (
    kept_against_snr,
    net_styles,
    quality_against_cost,
    training_curves,
)
from dynse.evaluation.gates import gate_intervals, gate_table
from dynse.evaluation.metric_process import MetricPool
from dynse.evaluation.metrics import Utterance, score_utterances
from dynse.evaluation.nets import Control, Enhanced, as_utterance, enhance_mixtures, gate_values
from dynse.evaluation.report import write_report
from dynse.evaluation.scores import (
    RunRecord,
    UtteranceScore,
    commit,
    load_record,
    machine,
    save_record,
)
from dynse.evaluation.sections import Example, Figure, Players, Report, Section, Text
from dynse.evaluation.spectrograms import gate_figure
from dynse.evaluation.statistics import Interval, mean_interval
from dynse.evaluation.tables import (
    difference_table,
    quality_table,
    snr_table,
    utterance_values,
    values_by_snr,
)
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
            _scored(name, items(), corpus, test_set, records_dir, pool, config={}, seed=None)
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
    """
    enhanced = list(enhance_mixtures(model, variables, corpus, test_set, stft=stft))
    layers = model.cost()
    gates: Mapping[str, Interval] = {}
    kept: Sequence[float] = ()
    by_control: dict[str, Control] = {}
    if enhanced[0].gates:
        statistics = gather_statistics([one.statistics for one in enhanced])
        gates = gate_intervals(statistics)
        kept = statistics.kept_per_block
        if controls:
            valid = enhance_mixtures(model, variables, corpus, valid_set, stft=stft)
            rates = gather_statistics([one.statistics for one in valid]).rates
            by_control = _controls(rates)
    cost = cost_totals(layers, kept, bytes_per_param=bytes_per_param)

    def items(outputs: Iterable[Enhanced]) -> Iterable[Utterance]:
        for one in outputs:
            values = gate_values(model, one.statistics, one.gates, FRAMES_PER_S)
            yield as_utterance(one.mixture, one.enhanced, values)

    shared = {"corpus": corpus, "test_set": test_set, "records_dir": records_dir, "pool": pool}
    record = _scored(
        name,
        items(enhanced),
        **shared,
        config=config,
        seed=seed,
        cost=dataclasses.asdict(cost),
        extra={"gates": {key: dataclasses.asdict(value) for key, value in gates.items()}},
    )
    controlled = {
        f"{name}, {kind}": _scored(
            f"{name}, {kind}",
            items(enhance_mixtures(model, variables, corpus, test_set, stft=stft, control=control)),
            **shared,
            config=config,
            seed=seed,
        )
        for kind, control in by_control.items()
    }
    chosen = tuple(enhanced[index] for index in _example_indices(enhanced))
    return NetResult(record, controlled, cost, layers, gates, chosen, training)


def _controls(rates: Sequence[np.ndarray]) -> dict[str, Control]:
    fixed = fixed_gates(rates)
    rates = [jnp.asarray(rate, jnp.float32) for rate in rates]
    return {
        "fixed": lambda key, gates: fixed,
        "random": lambda key, gates: random_gates(key, rates, *gates[0].shape[:2]),
        "shuffled": lambda key, gates: shuffled_gates(key, gates),
    }


def _scored(
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
    """Score, or take the record that an earlier start has left for the same thing."""
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


@dataclasses.dataclass(frozen=True)
class DynCPReport:
    """The report of one experiment.

    Attributes:
        title: heading.
        corpus: what was trained on.
        test_set: what was scored.
        references: records of noisy and oracle.
        results: by net, the dense one first.
        target: fraction to keep that the gates were trained for.
        stft: the transform.
        steps: train steps of each net.
    """

    title: str
    corpus: Corpus
    test_set: TestSet
    references: Sequence[RunRecord]
    results: Mapping[str, NetResult]
    target: float | None
    stft: STFT
    steps: int

    @property
    def records(self) -> list[RunRecord]:
        """All records: references, nets, controls."""
        nets = [result.record for result in self.results.values()]
        controls = [r for result in self.results.values() for r in result.controls.values()]
        return [*self.references, *nets, *controls]

    def summary(self) -> str:
        """The tables that are printed at the end."""
        first = next(iter(self.results))
        tables = [
            quality_table(self.records),
            difference_table(self.records, first),
            self._costs(first),
        ]
        return "\n\n".join(f"{table.title}\n{table.markdown()}" for table in tables)

    def write(self, directory: Path) -> Path:
        """Write report.md and report.html; gives the path of the page."""
        first = next(iter(self.results))
        records = self.records
        styles = net_styles([record.net for record in records])
        gated = {name: result for name, result in self.results.items() if result.gates}
        sections: list[Section] = [
            Text("What is compared", self._what()),
            quality_table(records),
            difference_table(records, first),
            self._costs(first),
            Players("Listen", self._examples(), "All tracks of a mixture are equally loud."),
        ]
        for name, result in gated.items():
            one = result.examples[min(1, len(result.examples) - 1)]
            mixture = one.mixture
            sections.append(
                Figure(
                    f"Gates of {name}",
                    gate_figure(
                        mixture.noisy,
                        one.enhanced,
                        one.gates,
                        title=f"{name}, {mixture.noise_class} at {mixture.snr_db:g} dB",
                        stft=self.stft,
                    ),
                    "White: the channel was computed in this frame; black: skipped.",
                )
            )
        if gated:
            sections.append(gate_table({name: result.gates for name, result in gated.items()}))
            curves = {
                name: {
                    snr: mean_interval(values)
                    for snr, values in values_by_snr([result.record], "kept").items()
                }
                for name, result in gated.items()
            }
            sections.append(
                Figure(
                    "Kept against SNR", kept_against_snr(curves, target=self.target, styles=styles)
                )
            )
        sections += [
            Figure("Quality against cost", quality_against_cost(self._points(), styles=styles)),
            snr_table(records, "si_sdr_improvement"),
            snr_table(records, "pesq"),
            Figure("Training", training_curves(self._curves(), styles=styles)),
        ]
        for name, result in self.results.items():
            sections.append(
                layer_table(result.layers, result.cost.kept, title=f"Cost of each layer: {name}")
            )
        return write_report(directory, Report(self.title, self._intro(), sections))

    def _costs(self, dense: str) -> Any:
        return cost_table({n: r.cost for n, r in self.results.items()}, dense=dense)

    def _intro(self) -> str:
        return (
            f"Corpus {self.corpus.name} ({self.corpus.fingerprint[:8]}), test set "
            f"{self.test_set.name} of {len(self.test_set)} mixtures "
            f"({self.test_set.sha256[:8]}), {self.steps} train steps a net. "
            f"{len(self.corpus.skipped)} broken files were skipped. Machine: "
            f"{', '.join(f'{key} {value}' for key, value in machine().items())}."
        )

    def _what(self) -> str:
        return (
            "- noisy: the input, untouched; oracle Wiener: a gain per bin that is told the true "
            "noise's mean spectrum.\n"
            "- dense: the network without gates; narrow: a smaller one, as cheap as DynCP.\n"
            "- dyncp: the dense network whose channels are switched per frame.\n"
            "- fixed, random, shuffled: DynCP with its most-used channels always on, with "
            "channels on at random at their own rates, and with its own gates in another order "
            "in time. If these do as well, the gates tell nothing about the signal."
        )

    def _examples(self) -> list[Example]:
        results = list(self.results.items())
        examples = []
        for index, one in enumerate(results[0][1].examples):
            mixture = one.mixture
            tracks = {"noisy": mixture.noisy}
            tracks |= {name: result.examples[index].enhanced for name, result in results}
            tracks["clean"] = mixture.clean
            examples.append(Example(f"{mixture.noise_class}, {mixture.snr_db:g} dB", tracks))
        return examples

    def _points(self) -> dict[str, tuple[float, dict[str, Interval]]]:
        points = {}
        for record in self.records:
            costs = list(utterance_values([record], "active_macs_per_s").values())
            macs = 0.0 if np.isnan(costs).all() else float(np.nanmean(costs))
            points[record.net] = (
                macs,
                {
                    metric: mean_interval(list(utterance_values([record], metric).values()))
                    for metric in ("pesq", "si_sdr_improvement")
                },
            )
        return points

    def _curves(self) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
        curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
        for name, result in self.results.items():
            for quantity in ("loss", "kept"):
                found = [
                    (line["step"], line[quantity]) for line in result.training if quantity in line
                ]
                if found:
                    steps, values = zip(*found, strict=True)
                    curves.setdefault(name, {})[quantity] = (list(steps), list(values))
        return curves
