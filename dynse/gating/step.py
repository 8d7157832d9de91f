"""The hard decision and the pooling of Dynamic Channel Pruning (arXiv 2412.17121).

    gate(s) = 1 where s > 0, else 0            d gate / d s := surrogate(s)
    y_t     = (x_t + x_(t-1) + ... + x_(t-N+1)) / N,        x_t = 0 before the start

The step is a `jax.custom_jvp` rather than the add-and-subtract idiom
``soft + stop_gradient(hard - soft)``, whose rounding gives 0 for an open gate in bfloat16.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from dynse.gating.surrogates import Surrogate, identity


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _heaviside(scores: jax.Array, surrogate: Surrogate) -> jax.Array:
    return (scores > 0).astype(scores.dtype)


@_heaviside.defjvp
def _heaviside_jvp(
    surrogate: Surrogate, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (scores,), (tangent,) = primals, tangents
    slope = surrogate(scores).astype(tangent.dtype)
    return _heaviside(scores, surrogate), slope * tangent


def hard_step(
    scores: jax.typing.ArrayLike,
    surrogate: Surrogate = identity,
    *,
    key: jax.Array | None = None,
    noise: jax.Array | float = 1.0,
) -> jax.Array:
    """Exact zeros and ones: open (1) where the score is positive; 0 and NaN are closed.

    Args:
        scores: floating array of any shape.
        surrogate: ``derivative(scores) -> array``, used in the backward pass in place of the
            step's own derivative; see `dynse.gating.surrogates`.
        key: with a key (training), ``noise`` times a standard logistic variable is added to
            each score first, and the surrogate is evaluated at the noisy score. With
            `gumbel_sigmoid` this is the Gumbel-sigmoid straight-through estimator. None
            (inference): no noise.
        noise: scale of that noise, may be traced, so that it can be annealed.

    Returns:
        Array of the scores' shape and dtype.

    Raises:
        TypeError: the scores are not floating.
    """
    scores = jnp.asarray(scores)
    if not jnp.issubdtype(scores.dtype, jnp.floating):
        raise TypeError(f"expected floating scores, got {scores.dtype}")
    if key is not None:
        logistic = jax.random.logistic(key, scores.shape, jnp.float32)
        scores = scores + (noise * logistic).astype(scores.dtype)
    return _heaviside(scores, surrogate)


def init_moving_average(
    batch_size: int, channels: int, window: int, dtype: jax.typing.DTypeLike = jnp.float32
) -> jax.Array:
    """State before the first frame: ``window - 1`` past frames of zeros, (B, window - 1, C)."""
    if window < 1:
        raise ValueError(f"expected a window of at least 1 frame, got {window}")
    return jnp.zeros((batch_size, window - 1, channels), dtype)


def moving_average(state: jax.Array, x: jax.Array, window: int) -> tuple[jax.Array, jax.Array]:
    """Causal mean of the last ``window`` frames, always divided by ``window``.

    Each frame is summed afresh from the past frames, always in one order: any split into
    blocks gives the same bits, and a NaN is forgotten after ``window`` frames. A running sum
    (add the newest, subtract the oldest) would drift, and keep a NaN for ever.

    Args:
        state: (B, window - 1, C) past frames, oldest first.
        x: (B, T, C), T >= 1.
        window: number of frames N, static; 1 is the identity, with an empty state.

    Returns:
        ``(state, y)``, y (B, T, C).

    Raises:
        ValueError: the state is not of this window.
    """
    if state.shape[1] != window - 1:
        raise ValueError(
            f"expected a state of window - 1 = {window - 1} past frames, got shape {state.shape}"
        )
    frames = x.shape[1]
    past_and_x = jnp.concatenate([state.astype(x.dtype), x], axis=1)
    return past_and_x[:, frames:], _window_sums(past_and_x, window, frames) / window


def _window_sums(padded: jax.Array, window: int, frames: int) -> jax.Array:
    """Sums of ``window`` neighbouring frames, as shifted adds: fast forward and backward."""
    total = padded[:, :frames]
    for shift in range(1, window):
        total = total + padded[:, shift : shift + frames]
    return total
