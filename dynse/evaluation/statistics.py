"""Means and paired differences with bootstrap intervals.

The percentile bootstrap (Efron, 1979): the mean of n values drawn with replacement, many times
over; the interval holds the middle 95 % of those means. Where values come in groups that share
something (utterances of one speaker), whole groups are drawn instead of values. A draw is a vector
of multinomial counts c over the groups, so that all means are one matrix product,

    mean = (c . sums of the groups) / (c . sizes of the groups).

NaN means "not measured": left out, and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

# Counts held in memory at once.
_CHUNK = 4_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its interval.

    Attributes:
        mean: NaN where nothing was measured.
        low: lower bound; NaN where fewer than two values, or groups, were measured.
        high: upper bound, likewise.
        count: values that entered.
        missing: NaN values that were left out.
    """

    mean: float
    low: float
    high: float
    count: int
    missing: int

    def text(self, digits: int = 2, *, signed: bool = False) -> str:
        """For a table: "1.71 [1.66, 1.76]", or a dash where nothing was measured."""
        if self.count == 0:
            return "-"
        form = f"{'+' if signed else ''}.{digits}f"
        if np.isnan(self.low):
            return f"{self.mean:{form}}"
        return f"{self.mean:{form}} [{self.low:{form}}, {self.high:{form}}]"


def mean_interval(
    values: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of the values and its bootstrap interval.

    Args:
        values: (n,), NaN where not measured.
        groups: n keys; values with the same key are drawn together. None: each on its own.
        level: share of the resampled means that the interval holds.
        resamples: number of draws.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: where values are not one-dimensional, groups have another length, or level
            lies outside 0 to 1.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise ValueError(f"expected values (n,), got {values.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if groups is not None and len(groups) != len(values):
        raise ValueError(f"expected {len(values)} group keys, got {len(groups)}")
    measured = ~np.isnan(values)
    count, missing = int(measured.sum()), int((~measured).sum())
    if count == 0:
        return Interval(np.nan, np.nan, np.nan, 0, missing)
    kept = values[measured]
    if groups is None:
        sums, sizes = kept, np.ones(count)
    else:
        number: dict[Hashable, int] = {}
        keys = [
            number.setdefault(key, len(number))
            for key, use in zip(groups, measured, strict=True)
            if use
        ]
        sums = np.bincount(keys, weights=kept)
        sizes = np.bincount(keys).astype(np.float64)
    mean = float(kept.mean())
    if len(sums) < 2:
        return Interval(mean, np.nan, np.nan, count, missing)
    means = _resampled_means(sums, sizes, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), count, missing)


def paired_difference(
    values: ArrayLike,
    reference: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of values - reference over the pairs of which both were measured.

    Args:
        values: (n,), NaN where not measured.
        reference: (n,), of the same utterances in the same order.
        groups: as for `mean_interval`, like level, resamples and seed.
        level: see there.
        resamples: see there.
        seed: see there.

    Raises:
        ValueError: where the shapes differ.
    """
    values, reference = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    if values.shape != reference.shape:
        raise ValueError(f"expected pairs, got {values.shape} and {reference.shape}")
    return mean_interval(
        values - reference, groups=groups, level=level, resamples=resamples, seed=seed
    )


def _resampled_means(sums: np.ndarray, sizes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    even = np.full(len(sums), 1 / len(sums))
    means = []
    done = 0
    while done < resamples:
        now = min(resamples - done, max(1, _CHUNK // len(sums)))
        counts = draw.multinomial(len(sums), even, size=now)
        means.append((counts @ sums) / (counts @ sizes))
        done += now
    return np.concatenate(means)
