"""Tables from finished runs: quality per net, per SNR, paired differences; Markdown and CSV.

Each entry is a mean with its 95 % bootstrap interval over utterances. Runs of one net with
different seeds are averaged per utterance first, so that the interval speaks of utterances and the
number of seeds stands in its own column. What could not be measured is named below the table.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from dynse.evaluation.scores import RunRecord
from dynse.evaluation.statistics import mean_interval, paired_difference

# Name in tables and digits after the point; others are shown by their key, with three digits.
METRIC_NAMES: Mapping[str, tuple[str, int]] = {
    "pesq": ("PESQ", 2),
    "stoi": ("STOI", 3),
    "estoi": ("ESTOI", 3),
    "si_sdr": ("SI-SDR dB", 1),
    "si_sdr_improvement": ("SI-SDR gain dB", 1),
    "kept": ("kept", 3),
}
QUALITY = ("pesq", "stoi", "estoi", "si_sdr", "si_sdr_improvement")
SYNTHETIC_PESQ = (
    "† PESQ was made for recorded speech: on synthetic speech it is printed, but is no criterion."
)


@dataclasses.dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        title: heading.
        header: names of the columns.
        rows: as many cells each.
        notes: sentences below the table.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"expected {len(self.header)} cells, got {len(row)}: {row}")

    def markdown(self) -> str:
        """Notes included, title not."""

        def line(cells: Sequence[str]) -> str:
            escaped = (plain_markdown(cell).replace("|", "\\|") for cell in cells)
            return "| " + " | ".join(escaped) + " |"

        rule = "| --- |" + " ---: |" * (len(self.header) - 1)
        lines = [line(self.header), rule, *map(line, self.rows)]
        return "\n".join([*lines, *(f"\n{plain_markdown(note)}" for note in self.notes)]) + "\n"

    def csv(self) -> str:
        """Header and rows, without notes."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()


def plain_markdown(text: str) -> str:
    """One line of Markdown that shows the text and no HTML."""
    return text.replace("<", "&lt;").replace("\n", " ")


def by_net(records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs of each net, in the order in which the nets appear.

    Raises:
        ValueError: without records, or where they were scored on different test sets.
    """
    if not records:
        raise ValueError("expected at least one run record, got none")
    sets = {(record.corpus, record.test_set, record.test_set_hash) for record in records}
    if len(sets) > 1:
        named = "; ".join(sorted(f"{c} {t} ({h[:8]})" for c, t, h in sets))
        raise ValueError(f"records of one table must share their test set, got {named}")
    nets: dict[str, list[RunRecord]] = {}
    for record in records:
        nets.setdefault(record.net, []).append(record)
    return nets


def utterance_values(runs: Sequence[RunRecord], metric: str) -> dict[str, float]:
    """A metric of each utterance, averaged over the runs that measured it; NaN where none did."""
    collected: dict[str, list[float]] = {}
    for run in runs:
        for score in run.utterances:
            measured = collected.setdefault(score.id, [])
            value = score.values.get(metric, np.nan)
            if not np.isnan(value):
                measured.append(value)
    return {name: float(np.mean(v)) if v else np.nan for name, v in collected.items()}


def shared_seeds(*nets: Sequence[RunRecord]) -> tuple[list[RunRecord], ...]:
    """The runs of each net whose seeds all have; all of them where they share none."""
    shared = set.intersection(*({run.seed for run in runs} for runs in nets))
    return tuple([run for run in runs if run.seed in shared or not shared] for runs in nets)


def quality_table(
    records: Sequence[RunRecord],
    *,
    metrics: Sequence[str] = QUALITY,
    group_by: str | None = None,
    title: str = "Quality",
) -> Table:
    """One row a net: its seeds and the mean of each metric with its interval.

    Args:
        records: runs on one test set.
        metrics: keys of the scores.
        group_by: attribute of the utterances (e.g. "speaker") whose groups are resampled as a
            whole; None resamples utterances.
        title: of the table.
    """
    rows = []
    for net, runs in by_net(records).items():
        cells = []
        for metric in metrics:
            values = utterance_values(runs, metric)
            interval = mean_interval(list(values.values()), groups=_groups(runs, values, group_by))
            cells.append(interval.text(metric_digits(metric)))
        rows.append((net, str(len(runs)), *cells))
    header = ("net", "seeds", *_headings(records, metrics))
    return Table(title, header, tuple(rows), table_notes(records, metrics, group_by))


def snr_table(records: Sequence[RunRecord], metric: str, *, title: str | None = None) -> Table:
    """One row a net, one column an SNR (attribute `snr_db` of the utterances)."""
    nets = by_net(records)
    by_snr = {net: values_by_snr(runs, metric) for net, runs in nets.items()}
    snrs = sorted({snr for values in by_snr.values() for snr in values})
    rows = [
        (
            net,
            *(mean_interval(values.get(snr, [])).text(metric_digits(metric)) for snr in snrs),
        )
        for net, values in by_snr.items()
    ]
    header = ("net", *(f"{snr:g} dB" for snr in snrs))
    title = title or f"{metric_name(metric)} by input SNR"
    return Table(title, header, tuple(rows), table_notes(records, [metric]))


def values_by_snr(runs: Sequence[RunRecord], metric: str) -> dict[float, list[float]]:
    """A metric of one net's utterances, sorted into the SNRs they were mixed at."""
    snrs = _attribute(runs, "snr_db")
    found: dict[float, list[float]] = {}
    for name, value in utterance_values(runs, metric).items():
        found.setdefault(float(snrs[name]), []).append(value)
    return dict(sorted(found.items()))


def difference_table(
    records: Sequence[RunRecord],
    reference: str,
    *,
    metrics: Sequence[str] = QUALITY[:4],
    group_by: str | None = None,
    title: str | None = None,
) -> Table:
    """One row a net other than the reference: mean paired differences with their intervals.

    Compared are the seeds that both have.

    Raises:
        ValueError: where the reference is not among the nets.
    """
    nets = by_net(records)
    if reference not in nets:
        raise ValueError(f"reference must be one of {', '.join(nets)}; got {reference!r}")
    rows = []
    for net, runs in nets.items():
        if net == reference:
            continue
        cells, pairs = [], []
        own, others = shared_seeds(runs, nets[reference])
        for metric in metrics:
            values = utterance_values(own, metric)
            other = utterance_values(others, metric)
            shared = [name for name in values if name in other]
            interval = paired_difference(
                [values[name] for name in shared],
                [other[name] for name in shared],
                groups=_groups(runs, shared, group_by),
            )
            pairs.append(interval.count)
            # One more digit than a mean: a difference is read against zero.
            cells.append(interval.text(metric_digits(metric) + 1, signed=True))
        fewest, most = min(pairs), max(pairs)
        counted = str(most) if fewest == most else f"{fewest} to {most}"
        rows.append((net, str(len(own)), counted, *cells))
    header = ("net", "seeds", "pairs", *_headings(records, metrics))
    title = title or f"Difference to {reference}, paired by utterance"
    return Table(title, header, tuple(rows), table_notes(records, metrics, group_by))


def metric_name(metric: str) -> str:
    """What a metric is called in tables and figures."""
    return METRIC_NAMES.get(metric, (metric, 3))[0]


def _headings(records: Sequence[RunRecord], metrics: Sequence[str]) -> list[str]:
    marked = records[0].corpus == "synthetic"
    return [metric_name(m) + (" †" if marked and m == "pesq" else "") for m in metrics]


def metric_digits(metric: str) -> int:
    """Digits after the point that its mean is shown with; a difference has one more."""
    return METRIC_NAMES.get(metric, (metric, 3))[1]


def _attribute(runs: Sequence[RunRecord], name: str) -> dict[str, object]:
    found = {}
    for run in runs:
        for score in run.utterances:
            if name not in score.attributes:
                raise ValueError(f"utterance {score.id} of {run.net} has no attribute {name!r}")
            found[score.id] = score.attributes[name]
    return found


def _groups(
    runs: Sequence[RunRecord], names: Sequence[str] | Mapping[str, float], group_by: str | None
) -> list[object] | None:
    if group_by is None:
        return None
    attribute = _attribute(runs, group_by)
    return [attribute[name] for name in names]


def table_notes(
    records: Sequence[RunRecord], metrics: Sequence[str], group_by: str | None = None
) -> tuple[str, ...]:
    """What stands below a table: where its figures come from, and what could not be measured.

    Args:
        records: that the table shows.
        metrics: that it shows.
        group_by: as for `quality_table`.
    """
    first = records[0]
    resampled = "utterances" if group_by is None else f"groups ({group_by})"
    notes = [
        f"{first.corpus}, {first.test_set} ({first.test_set_hash[:12]}), "
        f"{len(first.utterances)} utterances; mean and 95 % bootstrap interval over {resampled}."
    ]
    if "pesq" in metrics and first.corpus == "synthetic":
        notes.append(SYNTHETIC_PESQ)
    for net, runs in by_net(records).items():
        # Metrics that failed alike, as all do on a silent signal, share a sentence.
        alike: dict[tuple[tuple[str, int], ...], list[str]] = {}
        for metric in metrics:
            reasons = Counter(
                score.failures[metric]
                for run in runs
                for score in run.utterances
                if metric in score.failures
            )
            if reasons:
                alike.setdefault(tuple(reasons.most_common()), []).append(metric_name(metric))
        total = sum(len(run.utterances) for run in runs)
        for reasons, named in alike.items():
            why = ", ".join(f"{reason} ({count})" for reason, count in reasons)
            missing = sum(count for _, count in reasons)
            notes.append(
                f"{', '.join(named)} of {net}: missing for {missing} of {total} utterances: {why}."
            )
    return tuple(notes)
