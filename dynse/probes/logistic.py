"""Logistic regression, binary and multinomial, by a bound on its Hessian.

On standardised features z, with weights w_n that sum to 1, it minimises

    F(beta, b) = sum_n w_n (log-sum-exp of the logits - logit of class y_n) + penalty / 2 |beta|^2

with logits b + beta^T z_n; with two classes one logit, the other class's being 0. The Hessian is
nowhere above (Boehning and Lindsay, 1988; Boehning, 1992)

    M = c gram + penalty I for beta,    c for b,     c = 1/4 with two classes, else 1/2

whatever the weights. So `beta - M^-1 dF/dbeta` never ascends: no line search, and one matrix to
invert for all steps and classes, where Newton's method forms one a step. Steps are accelerated by
Nesterov's momentum, started anew where it points uphill (O'Donoghue and Candes, 2015). Each reads
the features once, as bytes, in pieces that stay in the cache.
"""

from __future__ import annotations

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dynse.probes.features import varying_channels
from dynse.probes.linear import LinearProbe, make_probe
from dynse.probes.moments import gather_moments, standardize

_ROWS = 1024


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    penalty: float = 1e-3,
    balanced: bool = False,
    channels: np.ndarray | None = None,
    window: int = 1,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
) -> LinearProbe:
    """A probe that tells classes apart; it warns where it did not converge.

    Args:
        features: (N, all channels), averaged over `window` frames.
        labels: (N,) bool, or classes 0 to K - 1, each of which occurs.
        penalty: positive, relative to features of variance 1.
        balanced: every class counts equally, whatever its number of rows.
        channels: (S,) to read; None: those that vary.
        window: kept in the probe.
        tolerance: of the length of the step, sqrt(g^T M^-1 g) for the gradient g. F is then above
            its minimum by about the tolerance squared.
        max_iterations: steps at most.

    Returns:
        The probe, with weights on the raw features: one output for two classes (threshold 0),
        else one a class.

    Raises:
        ValueError: the penalty is not positive, a class does not occur, or the arrays do not fit
            or are not finite.
    """
    if not penalty > 0:
        raise ValueError(f"expected a positive penalty, got {penalty}")
    channels = varying_channels(features) if channels is None else np.asarray(channels)
    indicators = class_indicators(labels)
    row_weights = balanced_weights(labels) if balanced else np.full(len(labels), 1 / len(labels))
    if indicators.shape[1] == 2:
        indicators = indicators[:, 1:]
    selected = features[:, channels]
    moments = gather_moments(selected, indicators, weights=row_weights)

    curvature = 0.25 if indicators.shape[1] == 1 else 0.5
    bound = curvature * moments.gram + penalty * np.eye(len(channels))
    beta, bias, iterations, step = _minimize(
        _pieces(selected),
        _pieces(indicators.astype(np.float32)),
        _pieces(row_weights.astype(np.float32)),
        moments.mean.astype(np.float32),
        moments.inverse_std.astype(np.float32),
        np.linalg.inv(bound).astype(np.float32),
        curvature,
        penalty,
        tolerance,
        max_iterations,
    )
    if not step < tolerance:
        warnings.warn(
            f"a logistic probe of {len(channels)} channels did not converge: a step of {step:.1e} "
            f"after {int(iterations)} iterations, expected {tolerance:.1e}",
            stacklevel=2,
        )
    weights = np.asarray(beta, np.float64) * moments.inverse_std[:, None]
    return make_probe(
        channels, weights, np.asarray(bias) - moments.mean @ weights, kind="logistic", window=window
    )


def class_indicators(labels: np.ndarray) -> np.ndarray:
    """(N,) classes 0 to K - 1 -> (N, K) float64, 1 at the class.

    Raises:
        ValueError: labels are not integers or bool, or a class below the largest does not occur.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "biu" or labels.astype(int).min() < 0:
        raise ValueError(f"expected labels (N,) from 0, got {labels.dtype} {labels.shape}")
    counts = np.bincount(labels.astype(int), minlength=2)
    if not counts.all():
        raise ValueError(f"expected rows of every class, got {counts.tolist()}")
    return np.eye(len(counts))[labels.astype(int)]


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """(N,) weights that sum to 1 / K within each of the K classes."""
    indicators = class_indicators(labels)
    return indicators @ (1 / indicators.sum(0)) / indicators.shape[1]


def _pieces(rows):
    """(N, ...) -> (pieces, rows, ...), zeros behind: rows of weight 0."""
    length = min(_ROWS, len(rows))
    padding = [(0, -len(rows) % length)] + [(0, 0)] * (rows.ndim - 1)
    return np.pad(rows, padding).reshape(-1, length, *rows.shape[1:])


@partial(jax.jit, static_argnames="curvature")
def _minimize(
    features, indicators, weights, mean, scale, inverse, curvature, penalty, tolerance, limit
):
    """Returns beta (S, K), b (K,), the number of steps and the length of the last one."""
    outputs = indicators.shape[-1]
    multiply = partial(jnp.matmul, precision="highest")

    def gradient(beta, bias):
        def add(sums, piece):
            features, indicators, weights = piece
            z = standardize(features, mean, scale)
            logits = multiply(z, beta) + bias
            chance = jax.nn.sigmoid(logits) if outputs == 1 else jax.nn.softmax(logits)
            residual = weights[:, None] * (chance - indicators)
            return (sums[0] + multiply(z.T, residual), sums[1] + residual.sum(0)), None

        zeros = (penalty * beta, jnp.zeros_like(bias))
        return jax.lax.scan(add, zeros, (features, indicators, weights))[0]

    def step(carry):
        point, ahead, momentum, iterations, _ = carry
        slope = gradient(*ahead)
        move = (multiply(inverse, slope[0]), slope[1] / curvature)
        new = jax.tree.map(jnp.subtract, ahead, move)
        change = jax.tree.map(jnp.subtract, new, point)
        uphill = _inner(slope, change) > 0
        faster = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        share = jnp.where(uphill, 0, (momentum - 1) / faster)
        momentum = jnp.where(uphill, 1, faster)
        ahead = jax.tree.map(lambda a, d: a + share * d, new, change)
        return new, ahead, momentum, iterations + 1, jnp.sqrt(_inner(slope, move))

    start = (jnp.zeros((len(mean), outputs)), jnp.zeros(outputs))
    point, _, _, iterations, length = jax.lax.while_loop(
        lambda carry: (carry[4] >= tolerance) & (carry[3] < limit),
        step,
        (start, start, jnp.float32(1), 0, jnp.float32(jnp.inf)),
    )
    return *point, iterations, length


def _inner(left, right):
    return sum(jnp.vdot(a, b, precision="highest") for a, b in zip(left, right, strict=True))
