"""Tables of nets with exits, made from their records.

A record is one exit of a net or one policy on it. Its name is "NET, WHAT" (runs with several seeds
share it), and its configuration says which it is: "exit", the name of the exit; or "policy", with
"level", the MMAC/s aimed at, and "states", `HELD` or another rule for skipped stages. The net
`ALONE` is a static net for each stage.

    line(c) = (1 - w) s_i + w s_(i+1),   w = (c - c_i) / (c_(i+1) - c_i),   c_i <= c <= c_(i+1)

is what one gets at the cost c by mixing two neighbours of several fixed exits, utterance by
utterance (beyond the cheapest or the dearest: that one). A policy is compared with the line of its
net's exits, an exit with the line of the static nets, both at their own cost; nets are compared by
the seeds that both have.
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
    shared_seeds,
    table_notes,
    utterance_values,
)

ALONE = "alone"
# What becomes of the states of skipped stages.
HELD = "held"
NONE_SKIPPED = "none skipped"
# After the name of a rule: the exits taken under it, out of the whole net, which skips nothing.
WHOLE_NET = " in whole net"
# Of an utterance, over the largest jump of the whole net against clean: the largest jump while
# exits change, and that of the cheapest exit alone.
JUMP = "jump_ratio"
JUMP_CHEAPEST = "jump_ratio_cheapest"
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

    def of_seed(self, seed: int) -> Entry:
        """The run of one seed, if there is one."""
        return dataclasses.replace(self, runs=[run for run in self.runs if run.seed == seed])

    def interval(self, metric: str) -> Interval:
        """Mean of a metric."""
        return mean_interval(self.values(metric))

    def over_line(self, exits: Sequence[Entry], metric: str) -> Interval:
        """Paired difference to the line through exits, by rising cost, at the own cost."""
        entries = [self, *exits]
        shared = shared_seeds(*(entry.runs for entry in entries))
        own, *exits = (
            dataclasses.replace(entry, runs=runs)
            for entry, runs in zip(entries, shared, strict=True)
        )
        return paired_difference(own.values(metric), line_values(own, exits, metric))


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
    """One row an exit: paired differences to the static nets at its cost."""
    exits, alone = _beside_static(records)
    rows = [
        (entry.net, entry.what, f"{entry.mmac_per_s:.2f}", *_differences(entry, alone, METRICS))
        for entry in exits
    ]
    notes = (
        "Between the costs of two static nets, the mean of both by distance. What costs less than "
        "the cheapest is compared with that one.",
        *_notes(records),
    )
    header = ("net", "exit", "MMAC/s", *map(metric_name, METRICS))
    return Table("Against static nets of the same cost", header, tuple(rows), notes)


def seed_table(records: Sequence[RunRecord], metric: str = "pesq") -> Table:
    """One row an exit: its difference to the static nets at its cost, of each seed alone.

    The spread is the standard deviation over the seeds: what a training drawn anew would move.

    Args:
        records: of exits.
        metric: of quality.
    """
    seeds = sorted({record.seed for record in records if record.seed is not None})
    exits, alone = _beside_static(records)
    digits, rows = metric_digits(metric) + 1, []
    for entry in exits:
        found = {}
        for seed in seeds:
            own, *others = (one.of_seed(seed) for one in (entry, *alone))
            if own.runs and all(other.runs for other in others):
                found[seed] = own.over_line(others, metric).mean
        if len(found) > 1:
            cells = [f"{found[seed]:+.{digits}f}" if seed in found else "-" for seed in seeds]
            spread = np.std(list(found.values()), ddof=1)
            rows.append((entry.net, entry.what, *cells, f"{spread:.{digits}f}"))
    title = f"{metric_name(metric)} against static nets of the same cost, by seed"
    return Table(title, ("net", "exit", *(f"seed {seed}" for seed in seeds), "spread"), tuple(rows))


def depth_table(records: Sequence[RunRecord]) -> Table:
    """One row an exit but the first: paired differences to the exit before."""
    rows = [
        (net, f"{after.what} - {before.what}", *_differences(after, [before], METRICS))
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

    Static are the nets of single stages at the exit's cost.

    Args:
        records: of exits.
        metric: of quality.
    """
    nets = exit_entries(records)
    alone = list(nets.get(ALONE, {}).values())
    rows = []
    for net, exits in nets.items():
        steps = itertools.pairwise(entry.interval(metric).mean for entry in exits.values())
        rises = "yes" if all(after > before for before, after in steps) else "no"
        against = {
            name: entry.over_line(alone, metric)
            for name, entry in exits.items()
            if net != ALONE and alone
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
        over = [entry.over_line(exits, metric) for metric in LINE_METRICS]
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
        "taken alone. Intervals are of one policy each: of so many, some lie above by chance.",
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
    """The price of skipped states: each rule against the same exits out of the whole net."""
    entries = {(one.net, *_key(one)): one for one in policy_entries(records)}
    rows = []
    for (net, kind, level, states), entry in entries.items():
        whole = entries.get((net, kind, level, states + WHOLE_NET))
        if whole is not None:
            differences = _differences(entry, [whole], LINE_METRICS)
            rows.append((f"{kind} {level:.3g}", states, f"{entry.mmac_per_s:.2f}", *differences))
    header = ("policy", "states", "MMAC/s", *map(metric_name, LINE_METRICS))
    notes = (
        "States: held, decayed by a factor in each frame that skips them, or refreshed at a lower "
        "rate. Differences, paired by utterance, to the gains of the very same exits in a net that "
        "skips nothing.",
    )
    return Table("What skipped states cost", header, tuple(rows), notes)


def click_table(records: Sequence[RunRecord]) -> Table:
    """Largest jumps while a budget changes ten times a second, against the net's own."""
    rows = []
    for entry in policy_entries(records):
        scores = [score.values for run in entry.runs for score in run.utterances]
        ratios = np.array([[v[JUMP], v[JUMP_CHEAPEST]] for v in scores if JUMP in v])
        if not ratios.size:
            continue
        switching, cheapest = ratios.T
        cells = [
            cell
            for own in (switching, cheapest)
            for cell in (str((own > 1).sum()), f"{np.median(own):.3f}", f"{own.max():.3f}")
        ]
        further = str((switching > np.maximum(cheapest, 1)).sum())
        rows.append((entry.net, str(len(ratios)), *cells, further))
    notes = (
        "The budget goes from the cheapest exit's cost to the dearest's and back. Jumps are the "
        "largest steps from sample to sample of (output - whole net's output), divided by those of "
        "(whole net's output - clean). A ratio above 1 is a click of the switching only where it "
        "is above that of the cheapest exit alone, too.",
    )
    header = ("net", "mixtures", "above 1", "median", "largest")
    header += ("cheapest alone: above 1", "median", "largest", "above 1 and cheapest alone")
    return Table("A budget changed ten times a second", header, tuple(rows), notes)


def exit_tables(records: Sequence[RunRecord]) -> list[Table]:
    """All tables of nets with exits that have a row."""
    makers = (
        exit_table,
        static_table,
        seed_table,
        depth_table,
        goal_table,
        policy_table,
        share_table,
        skipped_table,
        click_table,
    )
    return [table for table in (make(records) for make in makers) if table.rows]


def _entries(records: Sequence[RunRecord]) -> list[Entry]:
    found = by_net(records).items() if records else ()
    return [Entry(*name.split(", ", 1), runs) for name, runs in found]


def _beside_static(records: Sequence[RunRecord]) -> tuple[list[Entry], list[Entry]]:
    """The exits of nets with several, and the static nets by rising cost; none where one lacks."""
    nets = exit_entries(records)
    alone = list(nets.pop(ALONE, {}).values())
    return [entry for exits in nets.values() for entry in exits.values() if alone], alone


def _with_exits(records: Sequence[RunRecord]) -> list[tuple[Entry, list[Entry]]]:
    """Policies that could be run as they are, beside the fixed exits of their net."""
    nets = exit_entries(records)
    return [
        (entry, list(nets[entry.net].values()))
        for entry in policy_entries(records)
        if entry.net in nets and not _key(entry)[-1].endswith(WHOLE_NET)
    ]


def _key(entry: Entry) -> tuple[str, float, str]:
    config = entry.runs[0].config
    return config["policy"], config["level"], config["states"]


def _differences(one: Entry, line: Sequence[Entry], metrics: Sequence[str]) -> list[str]:
    return [_text(one.over_line(line, metric), metric) for metric in metrics]


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
