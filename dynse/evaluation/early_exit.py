"""The report of early exits: tables, pictures and sound of every exit and every policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynse.audio.stft import STFT
from dynse.data.bank import Corpus
from dynse.data.testsets import TestSet
from dynse.evaluation.exit_figures import METRICS, CostCurve, cost_figure, taken_figure
from dynse.evaluation.exit_policies import Decided
from dynse.evaluation.exit_tables import (
    ALONE,
    HELD,
    NONE_SKIPPED,
    Entry,
    exit_entries,
    exit_tables,
    policy_entries,
)
from dynse.evaluation.figures import net_styles, training_curves
from dynse.evaluation.nets import Enhanced
from dynse.evaluation.report import write_report
from dynse.evaluation.scores import RunRecord, machine
from dynse.evaluation.sections import WORDS as GENERAL_WORDS
from dynse.evaluation.sections import Example, Figure, Players, Report, Section, Text
from dynse.evaluation.tables import quality_table, snr_table, utterance_values

WORDS = {
    **{word: GENERAL_WORDS[word] for word in ("ESTOI, STOI", "MAC", "PESQ", "SI-SDR", "SNR")},
    "exit": "A place in the network where a result can be taken, and the rest left out.",
    "interval": GENERAL_WORDS["interval"],
    "line": "What is reached by taking one of two fixed exits in some utterances and the other "
    "in the rest: what a policy has to beat.",
    "policy": "The rule that chooses an exit in every frame of 16 ms.",
    "static": "A network without exits, as large as the part of the other one that an exit needs, "
    "and trained for this alone.",
}


@dataclasses.dataclass(frozen=True)
class EarlyExitReport:
    """The report of one experiment.

    Attributes:
        title: heading.
        corpus: what was trained on.
        test_set: what was scored.
        references: records of noisy and oracle.
        records: of all exits and policies.
        training: by net its lines of metrics.
        examples: by exit record some mixtures as they came out.
        pictures: by policy the same mixtures.
        policy_net: the net that the policies were run on; None where there is none.
        stft: the transform.
        steps: train steps of each net.
    """

    title: str
    corpus: Corpus
    test_set: TestSet
    references: Sequence[RunRecord]
    records: Sequence[RunRecord]
    training: Mapping[str, Sequence[Mapping[str, Any]]]
    examples: Mapping[str, Sequence[Enhanced]]
    pictures: Mapping[str, Sequence[Decided]]
    policy_net: str | None
    stft: STFT
    steps: int

    def summary(self) -> str:
        """The tables that are printed at the end."""
        tables = [quality_table(self.references, title="Without a net"), *exit_tables(self.records)]
        return "\n\n".join(f"{table.title}\n{table.markdown()}" for table in tables)

    def write(self, directory: Path) -> Path:
        """Write report.md and report.html; gives the path of the page."""
        sections: list[Section] = [
            Text("What is compared", _WHAT),
            quality_table(self.references, title="Without a net"),
            *exit_tables(self.records),
            Figure("Quality against cost: exits", self._exit_figure()),
        ]
        if self.policy_net:
            sections.append(
                Figure(
                    f"Quality against cost: policies on {self.policy_net}", self._policy_figure()
                )
            )
            sections += self._taken_figures()
        sections += [
            Players("Listen", self._players(), "All tracks of a mixture are equally loud."),
            snr_table(self.records, "pesq"),
            snr_table(self.records, "si_sdr_improvement"),
            Figure("Training", self._training_figure()),
        ]
        return write_report(directory, Report(self.title, self._intro(), sections, WORDS))

    def _intro(self) -> str:
        return (
            f"Corpus {self.corpus.name} ({self.corpus.fingerprint[:8]}), test set "
            f"{self.test_set.name} of {len(self.test_set)} mixtures "
            f"({self.test_set.sha256[:8]}), {self.steps} train steps a net, of those trained "
            "layer by layer a share of them each layer. "
            f"{len(self.corpus.skipped)} broken files were skipped. Machine: "
            f"{', '.join(f'{key} {value}' for key, value in machine().items())}."
        )

    def _exit_figure(self) -> bytes:
        curves = {
            net: _curve(list(exits.values()), dashed=net == ALONE)
            for net, exits in exit_entries(self.records).items()
        }
        return cost_figure(curves, levels=self._noisy())

    def _policy_figure(self) -> bytes:
        nets = exit_entries(self.records)
        shown = {f"{self.policy_net}, exits": self.policy_net, "each stage alone": ALONE}
        curves = {
            label: _curve(list(nets[net].values())) for label, net in shown.items() if net in nets
        }
        kinds: dict[str, list[Entry]] = {}
        for entry in policy_entries(self.records):
            config = entry.runs[0].config
            if config["states"] in (HELD, NONE_SKIPPED):
                kinds.setdefault(config["policy"], []).append(entry)
        for kind, entries in kinds.items():
            ordered = sorted(entries, key=lambda entry: entry.mmac_per_s)
            curves[kind] = _curve(ordered, dashed=True)
        return cost_figure(curves, levels=self._noisy())

    def _noisy(self) -> dict[str, dict[str, float]]:
        noisy = [record for record in self.references if record.net == "noisy"]
        means = {m: float(np.nanmean(list(utterance_values(noisy, m).values()))) for m in METRICS}
        return {"noisy": means}

    def _taken_figures(self) -> list[Figure]:
        exits = list(exit_entries(self.records)[self.policy_net])
        figures = []
        for found in zip(*self.pictures.values(), strict=True):
            mixture = found[0].mixture
            taken = {
                name: (one.enhanced, one.exit_index)
                for name, one in zip(self.pictures, found, strict=True)
            }
            title = f"{mixture.noise_class} at {mixture.snr_db:g} dB"
            figures.append(
                Figure(
                    f"Exits taken, {title}",
                    taken_figure(mixture.noisy, taken, exits, title=title, stft=self.stft),
                    "The white line is the exit taken in each frame, the background what came out.",
                )
            )
        return figures

    def _players(self) -> list[Example]:
        # Of one net all exits, of the others the deepest.
        nets = exit_entries(self.records)
        full = self.policy_net or next(iter(nets))
        shown = [
            f"{net}, {name}"
            for net, exits in nets.items()
            for name in (exits if net == full else list(exits)[-1:])
        ]
        shown = [name for name in shown if name in self.examples]
        examples = []
        for index, one in enumerate(self.examples[shown[0]]):
            mixture = one.mixture
            tracks = {"noisy": mixture.noisy}
            tracks |= {name: self.examples[name][index].enhanced for name in shown}
            tracks |= {name: own[index].enhanced for name, own in self.pictures.items()}
            tracks["clean"] = mixture.clean
            examples.append(Example(f"{mixture.noise_class}, {mixture.snr_db:g} dB", tracks))
        return examples

    def _training_figure(self) -> bytes:
        curves = {}
        for net, lines in self.training.items():
            found = [(line["step"], line["valid"]["loss"]) for line in lines if "valid" in line]
            steps, values = zip(*found, strict=True)
            curves[net] = {"validation loss": (steps, values)}
        return training_curves(curves, styles=net_styles(list(curves)))


def _curve(entries: Sequence[Entry], *, dashed: bool = False) -> CostCurve:
    values = {metric: [entry.interval(metric) for entry in entries] for metric in METRICS}
    return CostCurve([entry.mmac_per_s for entry in entries], values, dashed)


_WHAT = (
    "- joint: one net with exits behind several stages, trained by the sum of their losses.\n"
    "- layerwise: stage after stage, those before frozen; moving: not frozen, so that an earlier "
    "exit's head is no longer that of its stage.\n"
    "- none, duplicate, divide: an exit's head reads the stage itself; a second layer beside it; "
    "a part of its units that feeds nothing else.\n"
    "- alone: for each stage a net that ends there and was trained for this alone.\n"
    "- budget: two neighbouring exits alternate so that no second costs more; threshold: on to the "
    "next exit while the gain still changed; router: a small layer that has learned what each "
    "exit's errors and MACs cost; budgeted: the same where a second's MACs allow; oracle: is told "
    "every exit's error, an upper bound; changing budget: cheapest and dearest exit by turns, ten "
    "times a second.\n"
    "- noisy, oracle Wiener: the input, untouched; a gain per bin that is told the noise's mean "
    "spectrum."
)
