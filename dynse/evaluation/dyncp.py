"""The report of dynamic channel pruning: tables, pictures and sound of the nets and controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynse.audio.stft import STFT
from dynse.data.bank import Corpus
from dynse.data.testsets import TestSet
from dynse.evaluation.cost import cost_table, layer_table
from dynse.evaluation.figures import (
    kept_against_snr,
    net_styles,
    quality_against_cost,
    training_curves,
)
from dynse.evaluation.gates import gate_table
from dynse.evaluation.report import write_report
from dynse.evaluation.scores import RunRecord, machine
from dynse.evaluation.scoring import NetResult
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
        steps: train steps of each net; None where they are not known.
    """

    title: str
    corpus: Corpus
    test_set: TestSet
    references: Sequence[RunRecord]
    results: Mapping[str, NetResult]
    target: float | None
    stft: STFT
    steps: int | None

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
        ]
        if training := self._curves():
            sections.append(Figure("Training", training_curves(training, styles=styles)))
        for name, result in self.results.items():
            sections.append(
                layer_table(result.layers, result.cost.kept, title=f"Cost of each layer: {name}")
            )
        return write_report(directory, Report(self.title, self._intro(), sections))

    def _costs(self, dense: str) -> Any:
        return cost_table({n: r.cost for n, r in self.results.items()}, dense=dense)

    def _intro(self) -> str:
        steps = "" if self.steps is None else f", {self.steps} train steps a net"
        return (
            f"Corpus {self.corpus.name} ({self.corpus.fingerprint[:8]}), test set "
            f"{self.test_set.name} of {len(self.test_set)} mixtures "
            f"({self.test_set.sha256[:8]}){steps}. "
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
