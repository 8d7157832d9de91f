"""Losses that keep gates alive: a gate that is always open or always closed is static pruning
with a sub-network to pay for.

Both look at one channel's scores s over all frames of the batch, p = sigmoid(s):

    batch shaping        mean_m (F(p_(m)) - m / (M + 1))^2,  F the CDF of Beta(alpha, beta),
                         p_(m) the m-th smallest of M values (Cramer-von Mises distance)
    mutual information   -(H(mean p) - mean H(p)),  H(p) = -p ln p - (1 - p) ln(1 - p)

Batch shaping (Bejnordi, Blankevoort, Welling, ICLR 2020, arXiv 1907.06627) pulls the
distribution of p over the batch towards a prior with mass at both ends, so that a gate must be
open sometimes and closed sometimes. The second, ours and cheaper, maximises the information that
the open-or-closed decision carries about the frame: undecided on average, decided in each frame.
Both are annealed away during training; their weight belongs to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.special import betainc, betaln

_TABLE_REACH, _TABLE_STEP = 30.0, 1 / 16


@jax.custom_jvp
def beta_cdf_of_score(
    scores: jax.Array, alpha: jax.Array | float, beta: jax.Array | float
) -> jax.Array:
    """CDF of Beta(alpha, beta) at ``p = sigmoid(scores)``, differentiable in the scores only.

    The density in p is infinite at 0 and 1 where alpha, beta < 1. In the score it is bounded:

        dF/ds = F'(p) p (1 - p) = p^alpha (1 - p)^beta / B(alpha, beta)

    so the derivative is written in s, and vanishes for very large scores of either sign. The
    value is interpolated in a table over the score (to 2e-4 for alpha, beta <= 3, constant
    beyond |s| = 30): betainc for every sample would take most of a training step.

    Args:
        scores: any shape, float32.
        alpha, beta: scalars, may be traced.
    """
    nodes = jnp.arange(-_TABLE_REACH, _TABLE_REACH + _TABLE_STEP, _TABLE_STEP)
    # From the nearer end: sigmoid(17) is already 1 in float32, sigmoid(-17) is not 0.
    low = nodes < 0
    near, far = jnp.where(low, alpha, beta), jnp.where(low, beta, alpha)
    tail = betainc(near, far, jax.nn.sigmoid(-jnp.abs(nodes)))
    table = jnp.where(low, tail, 1 - tail)
    # A CDF never falls, so cummax changes nothing, but XLA does not fuse across it: without, it
    # would fuse the table into the look-up and finish betainc anew for every sample.
    table = jax.lax.cummax(table)
    position = (jnp.clip(scores, nodes[0], nodes[-2]) - nodes[0]) / _TABLE_STEP
    index = position.astype(jnp.int32)
    fraction = position - index
    return table[index] * (1 - fraction) + table[index + 1] * fraction


@beta_cdf_of_score.defjvp
def _beta_cdf_of_score_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    scores, alpha, beta = primals
    log_slope = (
        alpha * jax.nn.log_sigmoid(scores)
        + beta * jax.nn.log_sigmoid(-scores)
        - betaln(alpha, beta)
    )
    return beta_cdf_of_score(scores, alpha, beta), jnp.exp(log_slope) * tangents[0]


def batch_shaping_loss(
    scores: Sequence[jax.Array],
    *,
    alpha: jax.Array | float = 0.6,
    beta: jax.Array | float = 0.4,
    stride: int = 8,
) -> jax.Array:
    """Cramer-von Mises distance of each gate's openness to a Beta prior, mean over gates.

    Args:
        scores: sequence over blocks of (B, T, C_i) gate scores.
        alpha, beta: of the prior, may be traced. The mean openness asked for is
            ``alpha / (alpha + beta)``: the paper's 0.6, 0.4; for a budget, ``alpha=target,
            beta=1 - target`` with the same concentration.
        stride: only every ``stride``-th frame is looked at (static). Neighbouring frames are
            pooled over nearly the same past, and sorting is what this loss costs.

    Returns:
        Scalar float32, 0 where the distributions agree; 1/3 for gates that are always surely
        open, or always surely closed.
    """
    samples = _samples(scores, stride)
    prior = beta_cdf_of_score(samples, jnp.float32(alpha), jnp.float32(beta))
    # The order is held constant in the gradient, as the paper does by undoing its sort.
    empirical = _ranks(jax.lax.stop_gradient(samples)) / (samples.shape[-1] + 1)
    return jnp.square(prior - empirical).mean()


def mutual_information_loss(scores: Sequence[jax.Array], *, stride: int = 4) -> jax.Array:
    """Minus the mutual information between each gate and the frame, mean over gates.

    Args:
        scores: sequence over blocks of (B, T, C_i) gate scores.
        stride: only every ``stride``-th frame is looked at (static).

    Returns:
        Scalar float32 in nats: 0 for gates that are constant or that toss a coin, -ln 2 for
        gates that are surely open in half of the frames and surely closed in the others.
    """
    informations = [
        _information(score[:, ::stride].astype(jnp.float32).reshape(-1, score.shape[-1]))
        for score in scores
    ]
    return -jnp.concatenate(informations).mean()


@jax.custom_vjp
def _information(samples: jax.Array) -> jax.Array:
    """Mutual information in nats of each gate: samples (frames, C) -> (C,).

    With m = mean p over the n frames, and as H'(p) = -s for p = sigmoid(s), the gradient is

        d/ds (H(m) - mean H(p)) = p (1 - p) (s - ln(m / (1 - m))) / n

    which needs one sigmoid where autodiff goes back through every logarithm.
    """
    return _information_forward(samples)[0]


def _information_forward(samples: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    openness = jax.nn.sigmoid(samples)
    # H(sigmoid(s)) = softplus(s) - s sigmoid(s): no logarithm of a vanishing probability.
    frame_entropy = jax.nn.softplus(samples) - samples * openness
    # The margin keeps ln finite; a gate this near to constant has no gradient in float32.
    mean = jnp.clip(openness.mean(0), 1e-6, 1 - 1e-6)
    mean_entropy = -mean * jnp.log(mean) - (1 - mean) * jnp.log1p(-mean)
    return mean_entropy - frame_entropy.mean(0), (samples, mean)


def _information_backward(
    residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array]:
    samples, mean = residuals
    openness = jax.nn.sigmoid(samples)
    slope = openness * (1 - openness) * (samples - jnp.log(mean) + jnp.log1p(-mean))
    return (cotangent * slope / samples.shape[0],)


_information.defvjp(_information_forward, _information_backward)


def _samples(scores: Sequence[jax.Array], stride: int) -> jax.Array:
    """All gates' scores, one gate a row: (sum of C_i, B * ceil(T / stride))."""
    rows = [score[:, ::stride].astype(jnp.float32) for score in scores]
    return jnp.concatenate([row.reshape(-1, row.shape[-1]).T for row in rows])


def _ranks(rows: jax.Array) -> jax.Array:
    """Rank of each float32 value in its row, from 1; float32 of the same shape.

    XLA sorts bare integers over ten times faster than floats or pairs on CPU. A float's bits,
    negative ones flipped, order as integers; the low bits carry the position instead of the
    end of the mantissa. Values that agree to the remaining bits are ranked by position.
    """
    count = rows.shape[-1]
    position_mask = (1 << (count - 1).bit_length()) - 1
    bits = jax.lax.bitcast_convert_type(rows, jnp.int32)
    ordered = jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    packed = (ordered & ~position_mask) | jnp.arange(count, dtype=jnp.int32)
    order = jnp.sort(packed, axis=-1) & position_mask
    row = jnp.arange(rows.shape[0])[:, None]
    ranks = jnp.arange(1, count + 1, dtype=jnp.float32)
    return (
        jnp.zeros_like(rows)
        .at[row, order]
        .set(jnp.broadcast_to(ranks, rows.shape), unique_indices=True)
    )
