"""Means, variances and products of features and targets: all that least squares needs to know.

With weights w_n that sum to 1, m = sum w_n x_n, s^2 = sum w_n (x_n - m)^2 and z = (x - m) / s,

    gram = sum w_n z_n z_n^T,       cross = sum w_n z_n (y_n - mean y)^T.

Features stay in their own type (a byte a bit) and become float32 chunk by chunk; a chunk is
standardised before it is multiplied, so that channels that are nearly always open keep their
digits, and chunks are added up in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_ROWS = 8192
# A variance below this share of the mean square is rounding.
_VARIANCE_FLOOR = 1e-12


class Moments(NamedTuple):
    """Of N rows of S features and K targets, float64.

    Attributes:
        mean: (S,) of the features.
        std: (S,) of the features; 0 where one is constant.
        gram: (S, S) of the standardised features; a constant one's row and column are 0.
        cross: (S, K) of the standardised features with the centred targets.
        target_mean: (K,).
        target_std: (K,).
    """

    mean: np.ndarray
    std: np.ndarray
    gram: np.ndarray
    cross: np.ndarray
    target_mean: np.ndarray
    target_std: np.ndarray

    @property
    def inverse_std(self) -> np.ndarray:
        """(S,) 1 / std, and 0 for constant features: they then weigh nothing."""
        return np.divide(1, self.std, out=np.zeros_like(self.std), where=self.std > 0)


def gather_moments(
    features: np.ndarray, targets: np.ndarray, *, weights: np.ndarray | None = None
) -> Moments:
    """Moments of the rows.

    Args:
        features: (N, S), bool or any real numbers.
        targets: (N, K).
        weights: (N,) not negative; they are divided by their sum. None: all equal.

    Raises:
        ValueError: the lengths differ, there is no row or no feature, or a value is not finite.
    """
    targets = np.asarray(targets, np.float64)
    rows = len(targets)
    if features.ndim != 2 or targets.ndim != 2 or len(features) != rows or not features.size:
        raise ValueError(
            "expected features (N, S) and targets (N, K), N and S positive, got "
            f"{features.shape} and {targets.shape}"
        )
    weights = np.ones(rows) if weights is None else np.asarray(weights, np.float64)
    weights = weights / weights.sum()
    spans = [slice(start, start + _ROWS) for start in range(0, rows, _ROWS)]

    mean, square = np.zeros((2, features.shape[1]))
    for span in spans:
        chunk = features[span].astype(np.float64)
        mean += weights[span] @ chunk
        square += weights[span] @ np.square(chunk)
    if not (np.isfinite(square).all() and np.isfinite(targets).all()):
        raise ValueError("expected finite features and targets, got NaN or infinity")
    variance = square - np.square(mean)
    std = np.sqrt(np.where(variance > _VARIANCE_FLOOR * square, variance, 0))
    target_mean = weights @ targets
    centred = targets - target_mean
    target_std = np.sqrt(weights @ np.square(centred))

    moments = Moments(
        mean,
        std,
        np.zeros((len(mean), len(mean))),
        np.zeros((len(mean), targets.shape[1])),
        target_mean,
        target_std,
    )
    scale = moments.inverse_std
    for span in spans:
        gram, cross = _products(features[span], mean, scale, weights[span] * rows, centred[span])
        moments.gram[...] += np.asarray(gram, np.float64) / rows
        moments.cross[...] += np.asarray(cross, np.float64) / rows
    return moments


@jax.jit
def _products(features, mean, scale, weights, targets):
    z = standardize(features, mean, scale)
    weighted = weights[:, None] * z
    return (
        jnp.matmul(z.T, weighted, precision="highest"),
        jnp.matmul(weighted.T, targets, precision="highest"),
    )


def standardize(features, mean, scale):
    """(features - mean) * scale in float32."""
    return (jnp.asarray(features, jnp.float32) - mean) * scale
