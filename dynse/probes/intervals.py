"""Scores of a probe with their intervals, by drawing whole recordings.

Frames of one recording are alike, so a bootstrap draws recordings (groups), with all their rows.
Every score here is a function of sums over rows, so a draw is a weighted sum of each group's own:

    accuracy            right / n
    balanced accuracy   mean over classes of right_c / n_c
    F1                  2 hits / (said + true), of bool rows
    R2                  1 - sum (y - estimate)^2 / (sum y^2 - (sum y)^2 / n)
    mean error          sum |y - estimate| / n
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from dynse.evaluation.statistics import Interval

Columns = Callable[[np.ndarray, np.ndarray], np.ndarray]
Value = Callable[[np.ndarray], np.ndarray]


def _accuracy_columns(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([predictions == labels, np.ones(len(labels))], 1)


def _balanced_columns(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    present = np.unique(labels)
    of_class = labels[:, None] == present
    return np.concatenate([of_class & (predictions == labels)[:, None], of_class], 1)


def _balanced_value(sums: np.ndarray) -> np.ndarray:
    right, count = np.split(sums, 2, axis=1)
    # A draw may lack a class: the mean is over those that it has.
    share = np.divide(right, count, out=np.full_like(right, np.nan), where=count > 0)
    return np.nanmean(share, axis=1)


def _f1_columns(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    said, true = predictions > 0, labels > 0
    return np.stack([said & true, said, true], 1)


def _f1_value(sums: np.ndarray) -> np.ndarray:
    hits, said, true = sums.T
    # 0 where nothing is said and nothing is true.
    return 2 * hits / np.maximum(said + true, 1)


def _r2_columns(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if labels.min() == labels.max():
        raise ValueError("expected targets that differ, got constant ones")
    # Centred on all rows, so that the variance is no small difference of large sums.
    centred = labels - labels.mean()
    return np.stack(
        [np.ones(len(labels)), centred, np.square(centred), np.square(labels - predictions)], 1
    )


def _r2_value(sums: np.ndarray) -> np.ndarray:
    count, total, squares, errors = sums.T
    spread = squares - np.square(total) / count
    # A draw may hold one target only, up to rounding: it has no R2 and is left out.
    differ = spread > 1e-9 * squares
    return 1 - np.divide(errors, spread, out=np.full_like(errors, np.nan), where=differ)


def _error_columns(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([np.abs(labels - predictions), np.ones(len(labels))], 1)


def _mean_value(sums: np.ndarray) -> np.ndarray:
    return sums[:, 0] / sums[:, 1]


SCORES: dict[str, tuple[Columns, Value]] = {
    "accuracy": (_accuracy_columns, _mean_value),
    "balanced accuracy": (_balanced_columns, _balanced_value),
    "F1": (_f1_columns, _f1_value),
    "R2": (_r2_columns, _r2_value),
    "mean error": (_error_columns, _mean_value),
}


def score_value(score: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """A score without an interval; arguments and errors as for `score_interval`."""
    columns, value = _each_row(score, predictions, labels)
    return float(value(columns.sum(0, keepdims=True))[0])


def score_interval(
    score: str,
    predictions: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Hashable],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """A score and its 95 % bootstrap interval over groups.

    Args:
        score: key of SCORES.
        predictions: (N,) classes, bool or numbers.
        labels: (N,).
        groups: N keys that sort: names of recordings.
        resamples: number of draws.
        seed: of the draws.

    Raises:
        ValueError: an unknown score, shapes that differ, no row, or constant targets of an R2.
    """
    each, value = _each_row(score, predictions, labels)
    if len(groups) != len(each):
        raise ValueError(f"expected a group for each of {len(each)} rows, got {len(groups)}")
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.stack([np.bincount(group, weights=column) for column in each.T], 1)
    mean = float(value(sums.sum(0, keepdims=True))[0])
    if len(sums) < 2:
        return Interval(mean, np.nan, np.nan, len(each), 0)
    even = np.full(len(sums), 1 / len(sums))
    draws = np.random.default_rng(seed).multinomial(len(sums), even, resamples)
    low, high = np.nanquantile(value(draws @ sums), [0.025, 0.975])
    return Interval(mean, float(low), float(high), len(each), 0)


def _each_row(score: str, predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, Value]:
    """What each row adds to the sums of a score, and the score of such sums."""
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}; got {score!r}")
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or labels.ndim != 1 or not len(labels):
        raise ValueError(
            f"expected as many predictions as labels (N,), got {predictions.shape} and "
            f"{labels.shape}"
        )
    columns, value = SCORES[score]
    return columns(predictions, labels).astype(np.float64), value
