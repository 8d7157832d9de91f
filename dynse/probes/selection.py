"""Which channels a predictor needs, and its score against their number.

Forward selection by orthogonal least squares (Chen, Billings, Luo, 1989): always the next channel
that explains most of what the ones before left over, summed over the K targets,

    gain_j = sum_k (z_j . residual_k)^2 / (z_j . z_j + penalty),    z_j without the chosen channels

from the products of the features alone: a Cholesky factorisation of `gram + penalty I` whose
pivot is the largest gain. For classes the targets are their indicators; then it is the variance
between classes that is explained. Taking the largest |weight| std of a full fit instead would
drop what stands in many channels at once, since they share one weight.

The path refits with the first C channels of that order for C = 1, 2, 4, ... all, and scores each
on validation rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dynse.probes.features import varying_channels
from dynse.probes.linear import LinearProbe
from dynse.probes.logistic import balanced_weights, class_indicators
from dynse.probes.moments import gather_moments


class PathPoint(NamedTuple):
    """A probe of some channels and its score on validation rows."""

    count: int
    score: float
    probe: LinearProbe


def order_for_targets(
    features: np.ndarray, targets: np.ndarray, *, penalty: float = 1e-3
) -> np.ndarray:
    """The varying channels, the most useful first, for estimating numbers.

    Args:
        features: (N, all channels).
        targets: (N,) or (N, K); each counts by its share of explained variance.
        penalty: positive, as in `fit_ridge`.

    Returns:
        (S,) int32 indices of the channels that vary.
    """
    targets = np.asarray(targets)
    targets = targets[:, None] if targets.ndim == 1 else targets
    return _order(features, targets, None, penalty)


def order_for_classes(
    features: np.ndarray, labels: np.ndarray, *, penalty: float = 1e-3, balanced: bool = False
) -> np.ndarray:
    """As `order_for_targets`, for telling classes apart; arguments as in `fit_logistic`."""
    weights = balanced_weights(labels) if balanced else None
    return _order(features, class_indicators(labels), weights, penalty)


def _order(features, targets, weights, penalty):
    channels = varying_channels(features)
    moments = gather_moments(features[:, channels], targets, weights=weights)
    usable = moments.target_std > 0
    residual = moments.cross[:, usable] / moments.target_std[usable]
    gram = moments.gram + penalty * np.eye(len(channels))
    left = np.diag(gram).copy()  # squared length of each channel without the chosen ones
    rows = np.zeros_like(gram)
    chosen = np.zeros(len(channels), int)
    open_to_choice = np.ones(len(channels), bool)
    for step in range(len(channels)):
        gains = np.where(open_to_choice, np.square(residual).sum(1) / left, -1)
        chosen[step] = pick = int(gains.argmax())
        open_to_choice[pick] = False
        rows[step] = (gram[pick] - rows[:step, pick] @ rows[:step]) / np.sqrt(left[pick])
        residual = residual - rows[step][:, None] * (residual[pick] / np.sqrt(left[pick]))
        # What is left of a channel that the others repeat is the penalty, up to rounding.
        left = np.maximum(left - np.square(rows[step]), penalty / 2)
    return channels[chosen]


def channel_counts(total: int) -> list[int]:
    """1, 2, 4, ... and all: the grid of a path.

    Raises:
        ValueError: there is no channel.
    """
    if total < 1:
        raise ValueError(f"expected at least one channel, got {total}")
    return [2**power for power in range((total - 1).bit_length())] + [total]


def selection_path(
    fit: Callable[[np.ndarray], LinearProbe],
    score: Callable[[LinearProbe], float],
    order: np.ndarray,
    counts: Sequence[int],
) -> list[PathPoint]:
    """Refit and score with the first channels of an order.

    Args:
        fit: channels -> a probe of them, from the training rows.
        score: probe -> its score on validation rows, higher is better.
        order: channels, the most useful first.
        counts: how many to take, rising.
    """
    path = []
    for count in counts:
        probe = fit(np.sort(order[:count]))
        path.append(PathPoint(count, float(score(probe)), probe))
    return path


def enough(path: Sequence[PathPoint], trivial: float, share: float = 0.99) -> PathPoint:
    """The point of fewest channels that reaches a share of what all channels bring.

        score >= trivial + share (score of the last point - trivial)

    What the predictor that reads nothing reaches is not counted as brought: 93 % of accuracy where
    the majority has 60 % is a gain of 33 points. Where all channels bring nothing it is the fewest
    that are as good as all.

    Args:
        path: from `selection_path`; its last point is the full one.
        trivial: score of the constant predictor: the majority's accuracy, 1 / K of balanced
            accuracy, 0 of R2.
        share: of the gain.
    """
    full = path[-1].score
    wanted = min(trivial + share * (full - trivial), full)
    return min((point for point in path if point.score >= wanted), key=lambda point: point.count)
