"""The record of what was read from one network's gates, and the tables made from such records."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynse.atomic import write_whole
from dynse.evaluation.statistics import Interval
from dynse.evaluation.tables import Table

KIND = "gate probes"
_NOTE = (
    "On test mixtures. [95 % interval over sources of noise, or speakers, of one net]; of several "
    "seeds the mean (lowest to highest)."
)


@dataclasses.dataclass(frozen=True)
class ProbeRecord:
    """One network's probes.

    Attributes:
        net: name of the network.
        seed: of its training.
        scores: task -> predictor -> score -> interval, on test rows.
        paths: task -> (channels, test score) of the gates.
        enough: task -> channels that reach 99 % of what all bring.
        additions: task -> additions a frame with all channels and with enough.
        extra: task -> condition -> the first score of the gates (`conditions`).
        verification: feature and kind of pairs -> (equal error rate, target pairs).
        active_macs: of the network, per frame on the test mixtures.
        counts: what was probed: mixtures and recordings by split, classes.
        config: the network's run and the probes' own, as JSON.
        corpus_fingerprint: hash of the corpus.
        machine: what `machine()` says.
        commit: what `commit()` says.
        created: UTC time, ISO 8601.
    """

    net: str
    seed: int
    scores: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    paths: Mapping[str, Sequence[tuple[int, float]]]
    enough: Mapping[str, int]
    additions: Mapping[str, tuple[float, float]]
    extra: Mapping[str, Mapping[str, Interval]]
    verification: Mapping[str, tuple[float, int]]
    active_macs: float
    counts: Mapping[str, Any]
    config: Mapping[str, Any]
    corpus_fingerprint: str
    machine: Mapping[str, Any]
    commit: str | None
    created: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )


def save_probe_record(path: Path, record: ProbeRecord) -> Path:
    """Write a record whole."""
    content = _without_nan({"kind": KIND, **dataclasses.asdict(record)})
    return write_whole(path, json.dumps(content, indent=1) + "\n")


def load_probe_record(path: Path) -> ProbeRecord:
    """Read a record.

    Raises:
        ValueError: where the file is none; names it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if (kind := content.pop("kind")) != KIND:
            raise ValueError(f"expected kind {KIND!r}, got {kind!r}")
        content["scores"] = {
            task: {name: _intervals(found) for name, found in by_predictor.items()}
            for task, by_predictor in content["scores"].items()
        }
        content["extra"] = {task: _intervals(found) for task, found in content["extra"].items()}
        for name in ("additions", "verification"):
            content[name] = {key: tuple(value) for key, value in content[name].items()}
        content["paths"] = {
            task: [tuple(point) for point in path] for task, path in content["paths"].items()
        }
        return ProbeRecord(**content)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no record of gate probes: {error!r}") from error


def is_probe_record(path: Path) -> bool:
    """Whether a JSON file says that it is one."""
    return json.loads(Path(path).read_text(encoding="utf-8")).get("kind") == KIND


def _intervals(content: Mapping[str, Mapping[str, Any]]) -> dict[str, Interval]:
    def interval(found: Mapping[str, Any]) -> Interval:
        return Interval(**{k: np.nan if v is None else v for k, v in found.items()})

    return {name: interval(found) for name, found in content.items()}


def _without_nan(content: Any) -> Any:
    """None in place of NaN, which JSON has not."""
    if isinstance(content, Mapping):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and np.isnan(content) else content


def score_tables(records: Sequence[ProbeRecord]) -> list[Table]:
    """One table a task, one row a predictor: mean over the records of one net, and their range."""
    tables = []
    for task in dict.fromkeys(task for record in records for task in record.scores):
        every = [record.scores.get(task, {}) for record in records]
        names = list(dict.fromkeys(name for found in every for name in found))
        columns = list(
            dict.fromkeys(score for found in every for scores in found.values() for score in scores)
        )
        rows = []
        for net in dict.fromkeys(record.net for record in records):
            runs = [record for record in records if record.net == net and task in record.scores]
            for name in names:
                cells = [
                    _cell([run.scores[task].get(name, {}) for run in runs], c) for c in columns
                ]
                if any(cell != "-" for cell in cells):
                    rows.append((net, name, str(len(runs)), *cells))
            for name in dict.fromkeys(key for run in runs for key in run.extra.get(task, {})):
                first = [_cell([run.extra.get(task, {}) for run in runs], name)]
                rows.append(
                    (net, f"gates, {name}", str(len(runs)), *first, *["-"] * (len(columns) - 1))
                )
        header = ("net", "read from", "seeds", *columns)
        tables.append(Table(f"Read: {task}", header, tuple(rows), (_NOTE,)))
    return tables


def cost_table(records: Sequence[ProbeRecord]) -> Table:
    """One row a task and net: channels that are enough, and additions a frame."""
    rows = []
    for net in dict.fromkeys(record.net for record in records):
        of_net = [record for record in records if record.net == net]
        for task in dict.fromkeys(task for record in of_net for task in record.enough):
            runs = [record for record in of_net if task in record.enough]
            full = float(np.mean([run.additions[task][0] for run in runs]))
            few = float(np.mean([run.additions[task][1] for run in runs]))
            macs = float(np.mean([run.active_macs for run in runs]))
            total = float(np.mean([run.paths[task][-1][0] for run in runs]))
            enough = float(np.mean([run.enough[task] for run in runs]))
            numbers = (f"{number:.0f}" for number in (total, enough, full, few))
            rows.append((net, task, *numbers, f"{100 * few / macs:.3f} %"))
    header = ("net", "task", "channels that vary", "enough for 99 %", "additions a frame, all",
              "additions a frame, enough", "of the net's active MACs")  # fmt: skip
    return Table("What reading costs", header, tuple(rows))


def verification_table(records: Sequence[ProbeRecord]) -> Table:
    """Equal error rates, the mean over the records of one net and their range."""
    rows = []
    for net in dict.fromkeys(record.net for record in records):
        of_net = [record for record in records if record.net == net]
        for name in dict.fromkeys(name for record in of_net for name in record.verification):
            runs = [record for record in of_net if name in record.verification]
            rates = [100 * run.verification[name][0] for run in runs]
            targets = runs[0].verification[name][1]
            spread = f" ({min(rates):.1f} to {max(rates):.1f})" if len(rates) > 1 else ""
            rows.append((net, name, str(targets), f"{np.mean(rates):.1f} %{spread}"))
    return Table(
        "Speaker verification, segments of 3 s",
        ("net", "read from, pairs", "targets", "equal error rate"),
        tuple(rows),
        ('"all" holds pairs of segments of one recording; "other recording" does not.',),
    )


def _cell(found: Sequence[Mapping[str, Interval]], score: str) -> str:
    intervals = [one[score] for one in found if score in one]
    if not intervals:
        return "-"
    if len(intervals) == 1:
        return intervals[0].text(3)
    means = [one.mean for one in intervals]
    return f"{np.mean(means):.3f} ({min(means):.3f} to {max(means):.3f})"
