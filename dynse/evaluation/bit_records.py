"""The record of one search for bit widths, and the tables made from such records.

Every net is a point: a genome, its size, and its scores on the validation split, which the search
looked at, and on the test split, which it did not. The net that is taken is the smallest of the
front that is comparable to the one with 8 bits everywhere, by the paired differences d of their
scores over the sequences of the validation split,

    mean d >= -margin    and    the low end of its 95 % bootstrap interval >= -low margin;

what that net is worth is then read off the test split, once.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynse.atomic import write_whole
from dynse.evaluation.fronts import Points
from dynse.evaluation.statistics import Interval, paired_difference
from dynse.evaluation.tables import Table

KIND = "bit search"
REFERENCE_BITS = 8


@dataclasses.dataclass(frozen=True)
class Point:
    """One net.

    Attributes:
        genome: bits of every operation.
        size_kb: weights at their width and biases at 32 bits, in 1000 bytes.
        mega_bit_operations: per frame, in millions.
        valid: mean score on the validation split.
        test: mean score on the test split.
        finetuned: mean score on the test split after fine-tuning; None where not done.
    """

    genome: tuple[int, ...]
    size_kb: float
    mega_bit_operations: float
    valid: float
    test: float
    finetuned: float | None = None


@dataclasses.dataclass(frozen=True)
class BitRecord:
    """One search.

    Attributes:
        task: its name.
        seed: of the split, the float net and the search.
        score_name: with its unit; higher is better.
        margins: (mean, low end), what is comparable.
        operations: names of the genes.
        float_size_kb: of the float net, 32 bits a parameter.
        float_test: mean score of the float net on the test split.
        homogeneous: the points of 2 to 8 bits everywhere, in this order.
        front: the mixed front, by size.
        taken: index in `front`; None where none is comparable.
        hypervolume: over generations, on the validation split.
        hypervolumes: of "homogeneous" and "mixed" points on "valid" and "test", from one
            reference, as {"valid": {"mixed": ...}, ...}.
        test_scores: of every sequence: "float", "8 bit", "taken", "taken, fine-tuned".
        test_groups: of every sequence, or None where each is on its own.
        config: the whole configuration, as JSON.
        fingerprint: of the data.
        seconds: "training", "search", "genomes_per_s".
        machine: what `machine()` says.
        commit: what `commit()` says.
        created: UTC time, ISO 8601.
    """

    task: str
    seed: int
    score_name: str
    margins: tuple[float, float]
    operations: tuple[str, ...]
    float_size_kb: float
    float_test: float
    homogeneous: tuple[Point, ...]
    front: tuple[Point, ...]
    taken: int | None
    hypervolume: tuple[float, ...]
    hypervolumes: Mapping[str, Mapping[str, float]]
    test_scores: Mapping[str, tuple[float, ...]]
    test_groups: tuple[str, ...] | None
    config: Mapping[str, Any]
    fingerprint: str
    seconds: Mapping[str, float]
    machine: Mapping[str, Any]
    commit: str | None
    created: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )

    @property
    def reference(self) -> Point:
        """The point of 8 bits everywhere."""
        return self.homogeneous[-1]

    def test_difference(self, which: str = "taken") -> Interval:
        """Paired difference of a net's test scores to those of 8 bits."""
        return paired_difference(
            self.test_scores[which], self.test_scores["8 bit"], groups=self.test_groups
        )


def comparable(
    scores: np.ndarray,
    reference: np.ndarray,
    margins: tuple[float, float],
    groups: Sequence[str] | None = None,
) -> tuple[bool, Interval]:
    """Whether a net's scores are comparable to the reference's, and their paired difference.

    Args:
        scores: (N,), of the same sequences in the same order as the reference's.
        reference: (N,).
        margins: (mean, low end).
        groups: (N,), drawn together; None: each sequence on its own.
    """
    difference = paired_difference(scores, reference, groups=groups)
    return difference.mean >= -margins[0] and difference.low >= -margins[1], difference


def smallest_comparable(
    sizes: Sequence[float],
    scores: np.ndarray,
    reference: np.ndarray,
    margins: tuple[float, float],
    groups: Sequence[str] | None = None,
) -> int | None:
    """Index of the smallest net whose scores are comparable; None where there is none.

    Args:
        sizes: (P,).
        scores: (P, N).
        reference: (N,).
        margins: see `comparable`.
        groups: see `comparable`.
    """
    for index in np.argsort(sizes, kind="stable"):
        if comparable(scores[index], reference, margins, groups)[0]:
            return int(index)
    return None


def save_bit_record(path: Path, record: BitRecord) -> Path:
    """Write a record whole."""
    content = {"kind": KIND, **dataclasses.asdict(record)}
    return write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def load_bit_record(path: Path) -> BitRecord:
    """Read a record.

    Raises:
        ValueError: where the file is none; names it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if (kind := content.pop("kind")) != KIND:
            raise ValueError(f"expected kind {KIND!r}, got {kind!r}")
        for name in ("homogeneous", "front"):
            content[name] = tuple(
                Point(**{**point, "genome": tuple(point["genome"])}) for point in content[name]
            )
        content["test_scores"] = {k: tuple(v) for k, v in content["test_scores"].items()}
        for name in ("hypervolume", "test_groups"):
            content[name] = None if content[name] is None else tuple(content[name])
        content["margins"] = tuple(content["margins"])
        content["operations"] = tuple(content["operations"])
        return BitRecord(**content)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no record of a search for bit widths: {error!r}") from error


def is_bit_record(path: Path) -> bool:
    """Whether a JSON file says that it is one."""
    return json.loads(Path(path).read_text(encoding="utf-8")).get("kind") == KIND


def taken_table(records: Sequence[BitRecord]) -> Table:
    """One row a search: the net that was taken beside 8 bits everywhere, on the test split."""
    rows = []
    for record in records:
        reference = record.reference
        row = [
            record.task,
            str(record.seed),
            f"{record.float_test:.2f}",
            f"{reference.test:.2f}",
            f"{reference.size_kb:.1f}",
        ]
        if record.taken is None:
            rows.append((*row, "none", "-", "-", "-", "-"))
            continue
        point = record.front[record.taken]
        smaller = 100 * (1 - point.size_kb / reference.size_kb)
        row += [f"{point.test:.2f}", f"{point.size_kb:.1f}", f"{smaller:.0f} %"]
        row.append(record.test_difference().text(2, signed=True))
        tuned = "-"
        if "taken, fine-tuned" in record.test_scores:
            tuned = record.test_difference("taken, fine-tuned").text(2, signed=True)
        rows.append((*row, tuned))
    header = (
        "task",
        "seed",
        "float",
        "8 bit",
        "kB",
        "mixed",
        "kB",
        "smaller by",
        "mixed against 8 bit",
        "fine-tuned against 8 bit",
    )
    names = ", ".join(sorted({f"{r.task}: {r.score_name}" for r in records}))
    return Table(
        "The smallest net comparable to 8 bits",
        header,
        tuple(rows),
        (
            f"Scores on the test split ({names}). Taken on the validation split; differences are "
            "paired by sequence, with 95 % bootstrap intervals. kB: weights and biases.",
        ),
    )


def hypervolume_table(records: Sequence[BitRecord]) -> Table:
    """One row a search: hypervolume of mixed and homogeneous points."""
    rows = []
    for record in records:
        row = [record.task, str(record.seed)]
        for split in ("valid", "test"):
            volumes = record.hypervolumes[split]
            ratio = volumes["mixed"] / volumes["homogeneous"]
            row += [f"{volumes['homogeneous']:.4g}", f"{volumes['mixed']:.4g}", f"{ratio:.3f}"]
        rows.append(tuple(row))
    header = (
        "task",
        "seed",
        "homogeneous, valid",
        "mixed, valid",
        "ratio",
        "homogeneous, test",
        "mixed, test",
        "ratio",
    )
    note = (
        "Hypervolume in score times kB, from the worst homogeneous score and 1.05 times the size "
        "of 8 bits. The front was found on the validation split; on the test split it may lose "
        "points that it dominated with there."
    )
    return Table("Mixed against homogeneous", header, tuple(rows), (note,))


def record_points(record: BitRecord) -> dict[str, Points]:
    """Test scores over size: the mixed front, the homogeneous points, and fine-tuned points."""

    def points(chosen: Sequence[Point], scores: Sequence[float], labels: tuple[str, ...] = ()):
        return Points(np.array([p.size_kb for p in chosen]), np.array(scores), labels)

    kinds = {
        "mixed": points(record.front, [p.test for p in record.front]),
        "homogeneous": points(
            record.homogeneous,
            [p.test for p in record.homogeneous],
            tuple(str(p.genome[0]) for p in record.homogeneous),
        ),
    }
    tuned = [p for p in record.front if p.finetuned is not None]
    if tuned:
        kinds["mixed, fine-tuned"] = points(tuned, [p.finetuned for p in tuned])
    return kinds
