"""The record of one search for bit widths, and what its nets are compared by.

Every net is a point: a genome, its size, and its scores on the validation split, which chooses
among the nets found, and on the test split. The search itself looked at neither. Three kinds of
nets are compared:

    homogeneous     b bits everywhere, b = 2 to 8
    matrices only   b bits for the six matrices, which alone decide the size, 8 for all else: what
                    one gets without a search
    mixed           the front that the search found

A net is comparable to 8 bits everywhere by the paired differences d of their scores, where

    mean d >= -margin    and    the low end of its 95 % bootstrap interval >= -low margin.

Of each kind the smallest net is taken that is comparable on the validation split (ours): its own
low end must hold, and half the margin of the mean by the isotonic regression of the mean
differences of all nets of the kind over their size. A larger net of a front is no worse, so a net
that does better than the larger ones beside it is a lucky one. Whether the net taken is comparable
is then read off the test split.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynse.atomic import write_whole
from dynse.evaluation.statistics import Interval, mean_interval, paired_difference

KIND = "bit search"
KINDS = ("homogeneous", "matrices only", "mixed")


@dataclasses.dataclass(frozen=True)
class Point:
    """One net.

    Attributes:
        genome: bits of every operation.
        size_kb: weights at their width and biases at 32 bits, in 1000 bytes.
        mega_bit_operations: per frame, in millions.
        valid: mean score on the validation split, over its noisy copies.
        test: mean score on the test split.
        tuned_valid: mean score on the validation split after fine-tuning; None where not done.
        tuned_test: likewise on the test split.
    """

    genome: tuple[int, ...]
    size_kb: float
    mega_bit_operations: float
    valid: float
    test: float
    tuned_valid: float | None = None
    tuned_test: float | None = None


@dataclasses.dataclass(frozen=True)
class BitRecord:
    """One search.

    Attributes:
        task: its name.
        seed: of the float net and the search, and of what is drawn for the data.
        score_name: with its unit; higher is better.
        margins: (mean, low end), what is comparable.
        operations: names of the genes.
        float_size_kb: of the float net, 32 bits a parameter.
        float_test: mean score of the float net on the test split.
        points: by kind, in the order of their size.
        taken: by kind: index of the point that is taken; None where none is comparable.
        hypervolume: over generations, on what the search looked at.
        hypervolumes: by "search" (what the search looked at) and "test", by kind.
        test_scores: of every sequence: "float", "8 bit", by kind that of the net taken, and
            "8 bit, tuned" and "mixed, tuned" where it was fine-tuned.
        budget_scores: by kind, of every sequence: see `budget_scores`.
        test_groups: of every sequence, or None where each is on its own.
        config: all that decided the outcome, as JSON.
        fingerprint: of the data.
        seconds: "training", "search" and "genomes_per_s" (of the median generation).
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
    points: Mapping[str, tuple[Point, ...]]
    taken: Mapping[str, int | None]
    hypervolume: tuple[float, ...]
    hypervolumes: Mapping[str, Mapping[str, float]]
    test_scores: Mapping[str, tuple[float, ...]]
    budget_scores: Mapping[str, tuple[float, ...]]
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
        return self.points["homogeneous"][-1]

    def taken_point(self, kind: str) -> Point | None:
        """The net of this kind that is taken."""
        index = self.taken[kind]
        return None if index is None else self.points[kind][index]

    def smaller(self, kind: str) -> float | None:
        """Percent by which the net taken is smaller than that of 8 bits."""
        point = self.taken_point(kind)
        return None if point is None else 100 * (1 - point.size_kb / self.reference.size_kb)

    def comparable(self, kind: str, reference: str = "8 bit") -> tuple[bool, Interval]:
        """Whether a net is comparable to the reference on the test split, and the difference."""
        return comparable(
            self.test_scores[kind], self.test_scores[reference], self.margins, self.test_groups
        )


def comparable(
    scores: Sequence[float],
    reference: Sequence[float],
    margins: tuple[float, float],
    groups: Sequence[str] | None = None,
) -> tuple[bool, Interval]:
    """Whether a net's scores are comparable to the reference's, and their paired difference.

    Args:
        scores: (N,), of the same sequences in the same order as the reference's.
        reference: (N,).
        margins: (mean, low end).
        groups: (N,), drawn together; None: each sequence on its own.

    Raises:
        ValueError: where fewer than two groups give no interval.
    """
    difference = paired_difference(scores, reference, groups=groups)
    if np.isnan(difference.low):
        raise ValueError("an interval needs at least two sequences, or groups of them")
    return difference.mean >= -margins[0] and difference.low >= -margins[1], difference


def smallest_comparable(
    sizes: Sequence[float],
    scores: np.ndarray,
    reference: np.ndarray,
    margins: tuple[float, float],
    groups: Sequence[str] | None = None,
) -> int | None:
    """Index of the smallest net that is comparable by the rule for choosing, or None.

    mean by isotonic regression over the size >= -margin / 2, own low end >= -low margin.

    Args:
        sizes: (P,).
        scores: (P, N).
        reference: (N,).
        margins: see `comparable`.
        groups: see `comparable`.
    """
    from sklearn.isotonic import IsotonicRegression

    differences = [comparable(one, reference, margins, groups)[1] for one in scores]
    means = IsotonicRegression().fit_transform(sizes, [one.mean for one in differences])
    for index in np.argsort(sizes, kind="stable"):
        # Rounding must not refuse what is exactly at the margin.
        if means[index] >= -margins[0] / 2 - 1e-6 and differences[index].low >= -margins[1]:
            return int(index)
    return None


def budget_scores(
    sizes: Sequence[float], valid: np.ndarray, test: np.ndarray, low: float, high: float
) -> np.ndarray:
    """Test scores over all size budgets: what a kind of nets gives who has a budget to keep to.

    For a budget s drawn evenly from low to high, the net of at most that size with the best mean
    on the validation split is used (the smaller one of equals). The mean of its test scores over
    s is a score of every sequence, so kinds can be compared in pairs, and as the validation split
    makes the choice, having more nets to choose from is no advantage in itself.

    Args:
        sizes: (P,) of which one is at most `low`.
        valid: (P, N') scores.
        test: (P, N) scores.
        low: smallest budget.
        high: largest budget.

    Returns:
        (N,).

    Raises:
        ValueError: where no net keeps to the smallest budget.
    """
    sizes = np.asarray(sizes, np.float64)
    if sizes.min() > low:
        raise ValueError(f"expected a net of at most {low}, the smallest is {sizes.min()}")
    order = np.argsort(sizes, kind="stable")
    # Within rounding, equal means are equal.
    means = valid.mean(1).round(6)
    total, best = np.zeros(test.shape[1]), order[0]
    ends = [*sizes[order[1:]], high]
    for index, end in zip(order, ends, strict=True):
        if means[index] > means[best]:
            best = index
        begin = max(sizes[index], low)
        total += max(min(end, high) - begin, 0) * test[best]
    return total / (high - low)


def save_bit_record(path: Path, record: BitRecord) -> Path:
    """Write a record whole."""
    text = json.dumps({"kind": KIND, **dataclasses.asdict(record)}, indent=1, allow_nan=False)
    # Lists of numbers on one line keep the file small and its diffs readable.
    text = re.sub(r"\[\s+([^\[\]{}\"]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    return write_whole(path, text + "\n")


def load_bit_record(path: Path) -> BitRecord:
    """Read a record.

    Raises:
        ValueError: where the file is none; names it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if (kind := content.pop("kind")) != KIND:
            raise ValueError(f"expected kind {KIND!r}, got {kind!r}")
        content["points"] = {
            kind: tuple(Point(**{**point, "genome": tuple(point["genome"])}) for point in points)
            for kind, points in content["points"].items()
        }
        for name in ("test_scores", "budget_scores"):
            content[name] = {key: tuple(values) for key, values in content[name].items()}
        for name in ("margins", "operations", "hypervolume", "test_groups"):
            content[name] = None if content[name] is None else tuple(content[name])
        return BitRecord(**content)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is no record of a search for bit widths, or of another version: {error!r}"
        ) from error


def is_bit_record(path: Path) -> bool:
    """Whether a JSON file says that it is one."""
    return json.loads(Path(path).read_text(encoding="utf-8")).get("kind") == KIND


def pooled_difference(records: Sequence[BitRecord], which: str, reference: str) -> Interval:
    """Paired difference of test scores over several seeds of one task.

    Where the seeds share their test split, the differences of a sequence are averaged first, so
    that the interval speaks of sequences; else every seed brings sequences of its own.

    Args:
        records: of one task.
        which: key of `test_scores`.
        reference: likewise.
    """
    differences = [
        np.subtract(record.test_scores[which], record.test_scores[reference]) for record in records
    ]
    if len({record.fingerprint for record in records}) == 1:
        return mean_interval(np.mean(differences, axis=0), groups=records[0].test_groups)
    groups = [
        (record.seed, group)
        for record, scores in zip(records, differences, strict=True)
        for group in record.test_groups or range(len(scores))
    ]
    return mean_interval(np.concatenate(differences), groups=groups)
