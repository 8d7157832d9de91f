"""Tables and curves from records of searches for bit widths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynse.evaluation.bit_records import KINDS, BitRecord, Point, pooled_difference
from dynse.evaluation.fronts import Points
from dynse.evaluation.statistics import paired_difference
from dynse.evaluation.tables import Table


def taken_table(records: Sequence[BitRecord]) -> Table:
    """One row a search: the nets that were taken beside 8 bits everywhere, on the test split."""
    rows = []
    for record in records:
        reference, point = record.reference, record.taken_point("mixed")
        row = [record.task, str(record.seed), f"{record.float_test:.2f}", f"{reference.test:.2f}"]
        row.append(f"{reference.size_kb:.1f}")
        row += [
            "-" if (smaller := record.smaller(kind)) is None else f"{smaller:.0f} %"
            for kind in KINDS
        ]
        tuned = "-"
        if point is None:
            rows.append((*row, "-", "-", "-", tuned))
            continue
        passed, difference = record.comparable("mixed")
        fewer = 100 * (1 - point.mega_bit_operations / reference.mega_bit_operations)
        if "mixed, tuned" in record.test_scores:
            passed_tuned, change = record.comparable("mixed, tuned", "8 bit, tuned")
            tuned = f"{change.text(2, signed=True)}, {'yes' if passed_tuned else 'no'}"
        text = difference.text(2, signed=True)
        rows.append((*row, f"{fewer:.0f} %", text, "yes" if passed else "no", tuned))
    header = (
        "task",
        "seed",
        "float",
        "8 bit",
        "kB",
        *(f"{kind} smaller by" for kind in KINDS),
        "mixed: fewer bit operations",
        "mixed against 8 bit",
        "comparable",
        "both fine-tuned",
    )
    names = sorted({f"{record.task}: {record.score_name}" for record in records})
    notes = (
        f"Scores on the test split ({', '.join(names)}); kB: weights and biases of 8 bits "
        "everywhere. Each net is the smallest of its kind that was comparable on the validation "
        "split; differences are paired by sequence, with 95 % bootstrap intervals.",
    )
    return Table("The smallest nets comparable to 8 bits", header, tuple(rows), notes)


def task_table(records: Sequence[BitRecord]) -> Table:
    """One row a task: what is taken of each kind, over its seeds."""
    tasks: dict[str, list[BitRecord]] = {}
    for record in records:
        tasks.setdefault(record.task, []).append(record)
    rows = []
    for task, runs in tasks.items():
        row = [task, str(len(runs)), f"{np.mean([run.reference.test for run in runs]):.2f}"]
        for kind in KINDS:
            row += _taken_cells(runs, kind)
        rows.append(tuple(row))
    columns = [name for kind in KINDS for name in (f"{kind} smaller by", "against 8 bit")]
    notes = (
        "Mean over the seeds and its range, and of how many seeds where not of all; difference to "
        "8 bits on the test split, paired by sequence over all seeds, with its 95 % bootstrap "
        "interval and whether it is comparable.",
    )
    return Table("Taken, over seeds", ("task", "seeds", "8 bit", *columns), tuple(rows), notes)


def _taken_cells(runs: Sequence[BitRecord], kind: str) -> tuple[str, str]:
    """How much smaller, and the difference on the test split."""
    chosen = [run for run in runs if run.taken[kind] is not None]
    if not chosen:
        return "-", "-"
    smaller = [run.smaller(kind) for run in chosen]
    difference = pooled_difference(chosen, kind, "8 bit")
    mean, low = runs[0].margins
    passed = difference.mean >= -mean and difference.low >= -low
    count = "" if len(chosen) == len(runs) else f", {len(chosen)} seeds"
    return (
        f"{np.mean(smaller):.0f} % ({min(smaller):.0f} to {max(smaller):.0f}{count})",
        f"{difference.text(2, signed=True)}, {'yes' if passed else 'no'}",
    )


def front_table(records: Sequence[BitRecord]) -> Table:
    """One row a search: the mixed front against the homogeneous points and matrices only."""
    rows = []
    for record in records:
        row = [record.task, str(record.seed)]
        for volumes in (record.hypervolumes["search"], record.hypervolumes["test"]):
            row += [_ratio(volumes["mixed"], volumes[kind]) for kind in KINDS[:2]]
        for kind in KINDS[:2]:
            difference = paired_difference(
                record.budget_scores["mixed"], record.budget_scores[kind], groups=record.test_groups
            )
            row.append(difference.text(2, signed=True))
        row.append(f"{record.seconds['genomes_per_s']:.0f}")
        rows.append(tuple(row))
    header = (
        "task",
        "seed",
        "hypervolume over homogeneous, search",
        "over matrices only, search",
        "over homogeneous, test",
        "over matrices only, test",
        "score over all budgets, against homogeneous",
        "against matrices only",
        "genomes/s",
    )
    notes = (
        "Hypervolume of the mixed front as a multiple of that of simpler nets, where the search "
        "looked and on the test split. Score over all budgets: on the test split, for a size "
        "budget drawn evenly between 2 and 8 bits everywhere, of the net that the validation split "
        "picks; paired, with 95 % bootstrap intervals.",
    )
    return Table("The mixed front against simpler nets", header, tuple(rows), notes)


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.3f}" if reference > 0 else "-"


def record_points(record: BitRecord) -> dict[str, Points]:
    """Test scores over size by kind, and those of fine-tuned points.

    Of the mixed nets those are drawn that no other beats in both size and validation score: after
    a search for bit operations as well, the front holds more.
    """

    def points(chosen: Sequence[Point], *, tuned: bool = False, labels: bool = False) -> Points:
        return Points(
            np.array([point.size_kb for point in chosen]),
            np.array([point.tuned_test if tuned else point.test for point in chosen]),
            tuple(str(point.genome[0]) for point in chosen) if labels else (),
        )

    mixed, best = [], -np.inf
    for point in sorted(record.points["mixed"], key=lambda p: (p.size_kb, -p.valid)):
        if point.valid > best:
            mixed.append(point)
            best = point.valid
    found = {
        "mixed": points(mixed),
        "homogeneous": points(record.points["homogeneous"], labels=True),
        "matrices only": points(record.points["matrices only"]),
    }
    for kind in ("mixed", "homogeneous"):
        tuned = [p for p in record.points[kind] if p.tuned_test is not None]
        if tuned:
            found[f"{kind}, fine-tuned"] = points(tuned, tuned=True)
    return found
