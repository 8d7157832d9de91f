"""Errors in cents, the interval of a share, and folds that keep recordings whole.

Of n trials with k successes, p = k / n, the Wilson interval (1927) is

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4 n^2)) / (1 + z^2 / n).

`intervals` has the scores that are functions of sums over rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np

from dynse.evaluation.statistics import Interval


def median_error_cents(predictions_hz: np.ndarray, targets_hz: np.ndarray) -> float:
    """Median of 1200 |log2(prediction / target)|: (N,) against (N,), targets above 0.

    An octave is 1200 cents. A prediction of 0 Hz or below, which a linear one may give, is
    infinitely wrong.
    """
    predictions, targets = _numbers(predictions_hz, targets_hz)
    ratios = np.maximum(predictions, 0) / targets
    octaves = np.log2(ratios, out=np.full_like(ratios, -np.inf), where=ratios > 0)
    return float(1200 * np.median(np.abs(octaves)))


def wilson_interval(successes: float, trials: int, *, level: float = 0.95) -> Interval:
    """Share of successes and its interval.

    Args:
        successes: of the trials; a trial may succeed in part.
        trials: independent ones.
        level: share of such intervals that hold the chance of success.

    Raises:
        ValueError: there is no trial, or not 0 <= successes <= trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"expected 0 to {trials} successes of at least one, got {successes}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    reach = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    shrink = 1 + z**2 / trials
    # Rounding must not push 0 or all of the trials out of their own interval.
    low = max(0.0, min(share, float((centre - reach) / shrink)))
    high = min(1.0, max(share, float((centre + reach) / shrink)))
    return Interval(share, low, high, trials, 0)


def grouped_folds(
    groups: Sequence[Hashable],
    labels: Sequence[Hashable] | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cross-validation in which no group (a recording) is on both sides.

    Args:
        groups: n keys.
        labels: n keys; each fold gets as even a share of every label as its groups allow. None:
            there are none.
        folds: number of folds.
        seed: of the draw.

    Returns:
        For each fold the rising rows (train, test).

    Raises:
        ValueError: there are fewer groups than folds, or as many labels as groups are missing.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    _, group = np.unique(np.asarray(groups), return_inverse=True)
    labels = np.zeros(len(group), int) if labels is None else np.asarray(labels)
    if len(labels) != len(group):
        raise ValueError(f"expected {len(group)} labels, one a row, got {len(labels)}")
    if group.max() + 1 < folds:
        raise ValueError(f"expected at least {folds} groups, got {group.max() + 1}")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(group)), labels, group))


def _numbers(predictions: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    if predictions.shape != targets.shape or targets.ndim != 1 or not len(targets):
        raise ValueError(
            f"expected as many predictions as targets (N,), got {predictions.shape} and "
            f"{targets.shape}"
        )
    return predictions.astype(np.float64), targets.astype(np.float64)
