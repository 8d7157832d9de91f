"""Tables of nets with exits, made from their records.

A record is one exit of a net or one policy on it. Its name is "NET, WHAT" (runs with several seeds
share it), and its configuration says which it is: "exit", the name of the exit; or "policy", with
"level", the MMAC/s aimed at, and "states", `HELD` or another rule for skipped stages. The net
`ALONE` is a static net for each stage.

    line(c) = (1 - w) s_i + w s_(i+1),   w = (c - c_i) / (c_(i+1) - c_i),   c_i <= c <= c_(i+1)

is what one gets at the cost c by mixing two neighbouring fixed exits, utterance by utterance; a
policy is compared with it at the policy's own mean cost (beyond the last exit: with that exit).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from dynse.evaluation.scores import RunRecord
from dynse.evaluation.statistics import Interval, mean_interval, paired_difference
from dynse.evaluation.tables import (
    QUALITY,
    Table,
    by_net,
    metric_digits,
    metric_name,
    table_notes,
    utterance_values,
)

ALONE = "alone"
# What becomes of the states of skipped stages.
HELD = "held"
WHOLE_STATES = "whole net's"
NONE_SKIPPED = "none skipped"
METRICS = QUALITY[:4]
LINE_METRICS = ("pesq", "estoi", "si_sdr")


@dataclasses.dataclass(frozen=True)
class Entry:
    """Runs of one exit, or of one policy.

    Attributes:
        net: the net.
        what: the exit, or the policy with its level and rule.
        runs: of several seeds.
    """

    net: str
    what: str
    runs: list[RunRecord]

    @property
    def mmac_per_s(self) -> float:
        """Measured mean over utterances."""
        return (
            float(np.nanmean(list(utterance_values(self.runs, "active_macs_per_s").values()))) / 1e6
        )

    def values(self, metric: str) -> list[float]:
        """Of each utterance, averaged over the seeds."""
        return list(utterance_values(self.runs, metric).values())

    def interval(self, metric: str) -> Interval:
        """Mean of a metric."""
        return mean_interval(self.values(metric))

    def over(self, other: Entry, metric: str) -> Interval:
        """Paired difference to another."""
        return paired_difference(self.values(metric), other.values(metric))


def exit_entries(records: Sequence[RunRecord]) -> dict[str, dict[str, Entry]]:
    """The fixed exits: by net, by exit in the order of their cost."""
    nets: dict[str, dict[str, Entry]] = {}
    for entry in _entries([record for record in records if "exit" in record.config]):
        nets.setdefault(entry.net, {})[entry.what] = entry
    return {
        net: dict(sorted(exits.items(), key=lambda pair: pair[1].mmac_per_s))
        for net, exits in nets.items()
    }


def policy_entries(records: Sequence[RunRecord]) -> list[Entry]:
    """The policies, in the order of the records."""
    return _entries([record for record in records if "policy" in record.config])


def exit_table(records: Sequence[RunRecord]) -> Table:
    """One row an exit of a net: parameters that it needs, cost and quality."""
    rows = []
    for net, exits in exit_entries(records).items():
        for name, entry in exits.items():
            cells = [entry.interval(metric).text(metric_digits(metric)) for metric in METRICS]
            params, seeds = entry.runs[0].cost["params"], len(entry.runs)
            rows.append((net, name, f"{params:,}", f"{entry.mmac_per_s:.2f}", str(seeds), *cells))
    header = ("net", "exit", "parameters", "MMAC/s", "seeds", *map(metric_name, METRICS))
    return Table("Every exit", header, tuple(rows), _notes(records))


def static_table(records: Sequence[RunRecord]) -> Table:
    """One row an exit: paired differences to the net of its stage alone."""
    nets = exit_entries(records)
    alone = nets.get(ALONE, {})
    rows = [
        (net, name, *_differences(entry, alone[name], METRICS))
        for net, exits in nets.items()
        if net != ALONE
        for name, entry in exits.items()
        if name in alone
    ]
    return Table(
        "Against each stage's net trained alone",
        ("net", "exit", *map(metric_name, METRICS)),
        tuple(rows),
        _notes(records),
    )


def depth_table(records: Sequence[RunRecord]) -> Table:
    """One row an exit but the first: paired differences to the exit before."""
    rows = [
        (net, f"{after.what} - {before.what}", *_differences(after, before, METRICS))
        for net, exits in exit_entries(records).items()
        for before, after in itertools.pairwise(exits.values())
    ]
    return Table(
        "What each stage adds",
        ("net", "exits", *map(metric_name, METRICS)),
        tuple(rows),
        _notes(records),
    )


def goal_table(records: Sequence[RunRecord], metric: str = "pesq") -> Table:
    """One row a net: does quality rise with depth, and at which exit is it furthest below static?

    Args:
        records: of exits.
        metric: of quality.
    """
    nets = exit_entries(records)
    alone = nets.get(ALONE, {})
    rows = []
    for net, exits in nets.items():
        steps = itertools.pairwise(entry.interval(metric).mean for entry in exits.values())
        rises = "yes" if all(after > before for before, after in steps) else "no"
        against = {
            name: entry.over(alone[name], metric)
            for name, entry in exits.items()
            if net != ALONE and name in alone
        }
        worst = min(against, key=lambda name: against[name].mean, default=None)
        difference = "-" if worst is None else _text(against[worst], metric)
        rows.append((net, rises if len(exits) > 1 else "-", difference, worst or "-"))
    name = metric_name(metric)
    header = ("net", f"{name} rises with depth", f"lowest {name} difference to static", "at exit")
    return Table("Depth and static nets", header, tuple(rows))


def line_values(entry: Entry, exits: Sequence[Entry], metric: str) -> list[float]:
    """What mixing two neighbouring fixed exits gives at an entry's cost, by utterance.

    Args:
        entry: whose cost counts.
        exits: the fixed exits, by rising cost.
        metric: of quality.
    """
    costs = [one.mmac_per_s for one in exits]
    weights = [np.interp(entry.mmac_per_s, costs, row) for row in np.eye(len(costs))]
    values = np.array([one.values(metric) for one in exits])
    used = np.flatnonzero(weights)
    return list(np.asarray(weights)[used] @ values[used])


def policy_table(records: Sequence[RunRecord]) -> Table:
    """One row a policy: cost, quality, and difference to the line between the fixed exits."""
    rows = []
    for entry, exits in _with_exits(records):
        means = [entry.interval(metric).text(metric_digits(metric)) for metric in LINE_METRICS]
        over = [
            paired_difference(entry.values(metric), line_values(entry, exits, metric))
            for metric in LINE_METRICS
        ]
        texts = [_text(one, metric) for one, metric in zip(over, LINE_METRICS, strict=True)]
        rows.append((entry.what, f"{entry.mmac_per_s:.2f}", *means, *texts, _verdict(over[0])))
    names = [metric_name(metric) for metric in LINE_METRICS]
    header = (
        "policy",
        "MMAC/s",
        *names,
        *(f"{name} over the line" for name in names),
        f"{names[0]} above?",
    )
    notes = (
        "The line: what mixing two neighbouring fixed exits gives at the same cost. The number in "
        "a policy's name is the MMAC/s aimed at; the oracle runs every stage and pays for the exit "
        "taken alone.",
        *_notes(records),
    )
    return Table("Policies", header, tuple(rows), notes)


def share_table(records: Sequence[RunRecord]) -> Table:
    """One row a policy: share of the frames that each exit takes."""
    entries = _with_exits(records)
    names = [one.what for one in entries[0][1]] if entries else []
    rows = [
        (entry.what, *(_mean(entry.interval(f"share_{name}")) for name in names))
        for entry, _ in entries
    ]
    return Table("Exits taken", ("policy", *names), tuple(rows))


def skipped_table(records: Sequence[RunRecord]) -> Table:
    """The price of skipped states: each rule against the same exits with the whole net's states."""
    entries = policy_entries(records)
    whole = {
        (entry.net, _key(entry)): entry
        for entry in entries
        if entry.runs[0].config["states"] == WHOLE_STATES
    }
    rows = []
    for entry in entries:
        reference = whole.get((entry.net, _key(entry)))
        if reference is None:
            continue
        states = entry.runs[0].config["states"]
        differences = _differences(entry, reference, LINE_METRICS)
        if entry is reference:
            differences = ["-"] * len(LINE_METRICS)
        kind, level = _key(entry)
        rows.append((f"{kind} {level:.3g}", states, f"{entry.mmac_per_s:.2f}", *differences))
    header = ("policy", "states", "MMAC/s", *map(metric_name, LINE_METRICS))
    notes = (
        f"States: held, decayed by a factor in each frame that skips them, or refreshed at a lower "
        f"rate. Differences, paired by utterance, to the {WHOLE_STATES}: the same exits, taken "
        "from a net that skips nothing and is not charged for it.",
    )
    return Table("What skipped states cost", header, tuple(rows), notes)


def _entries(records: Sequence[RunRecord]) -> list[Entry]:
    found = by_net(records).items() if records else ()
    return [Entry(*name.split(", ", 1), runs) for name, runs in found]


def _with_exits(records: Sequence[RunRecord]) -> list[tuple[Entry, list[Entry]]]:
    """Policies that could be run as they are, beside the fixed exits of their net."""
    nets = exit_entries(records)
    return [
        (entry, list(nets[entry.net].values()))
        for entry in policy_entries(records)
        if entry.net in nets and entry.runs[0].config["states"] != WHOLE_STATES
    ]


def _key(entry: Entry) -> tuple[str, float]:
    config = entry.runs[0].config
    return config["policy"], config["level"]


def _differences(one: Entry, other: Entry, metrics: Sequence[str]) -> list[str]:
    return [_text(one.over(other, metric), metric) for metric in metrics]


def _text(difference: Interval, metric: str) -> str:
    return difference.text(metric_digits(metric) + 1, signed=True)


def _mean(interval: Interval) -> str:
    return f"{interval.mean:.3f}" if interval.count else "-"


def _verdict(difference: Interval) -> str:
    if difference.low > 0:
        return "yes"
    return "no" if difference.high < 0 else "not to be told"


def _notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    return table_notes(records, METRICS) if records else ()
