"""The budget loss L_DCP, which pulls the fraction of open gates to a target (arXiv 2412.17121).

    global:         (mean of g over batch, frames, channels and blocks - target)^2
    per block:      mean over blocks i of (mean of g_i - target)^2
    per utterance:  mean over utterances b of (mean of g_b - target)^2

The global one lets easy audio pay for hard. The last is ours.

The paper adds it with a fixed weight. `update_dual` is ours: a multiplier that is raised, by
dual ascent on the constraint ``|kept - target| <= tolerance``, until the measured fraction
meets it, so that no weight has to be searched for each target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

BUDGETS = ("global", "per_block", "per_utterance")


def kept_per_block(
    gates: Sequence[jax.Array], valid: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """Fraction of open gates in each block.

    Args:
        gates: sequence over blocks of (B, T, C_i) zeros and ones.
        valid: (B, T), true where a frame is real; None: all are.

    Returns:
        (blocks,) float32. Without one valid frame it is 0.
    """
    if valid is None:
        return jnp.stack([gate.astype(jnp.float32).mean() for gate in gates])
    weight = jnp.asarray(valid, jnp.float32)[..., None]
    frames = jnp.maximum(weight.sum(), 1)
    return jnp.stack([(gate * weight).sum() / (frames * gate.shape[-1]) for gate in gates])


def kept_fraction(
    gates: Sequence[jax.Array], valid: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """Fraction of open gates over all blocks, each weighted by its number of channels."""
    channels = jnp.array([gate.shape[-1] for gate in gates], jnp.float32)
    return (kept_per_block(gates, valid) * channels).sum() / channels.sum()


def kept_per_utterance(
    gates: Sequence[jax.Array], valid: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """Fraction of open gates in each utterance, (B,); 0 without one valid frame."""
    open_ = sum(gate.astype(jnp.float32).sum(-1) for gate in gates)  # (B, T)
    weight = jnp.ones_like(open_) if valid is None else jnp.asarray(valid, jnp.float32)
    channels = sum(gate.shape[-1] for gate in gates)
    return (open_ * weight).sum(-1) / (jnp.maximum(weight.sum(-1), 1) * channels)


def budget_loss(
    gates: Sequence[jax.Array],
    target: jax.Array | float,
    *,
    by: Literal["global", "per_block", "per_utterance"] = "global",
    valid: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Squared distance of the kept fraction from its target; the caller weights it.

    Args:
        gates: sequence over blocks of (B, T, C_i) zeros and ones, from `hard_step`.
        target: fraction to keep, scalar, may be traced; per block also (blocks,), per utterance
            also (B,).
        by: what is pulled to the target. Blocks and utterances count equally, whatever their
            number of channels and frames.
        valid: (B, T), true where a frame is real; None: all are.

    Returns:
        Scalar float32.
    """
    if by == "per_block":
        return jnp.square(kept_per_block(gates, valid) - target).mean()
    if by == "per_utterance":
        return jnp.square(kept_per_utterance(gates, valid) - target).mean()
    return jnp.square(kept_fraction(gates, valid) - target)


class DualState(NamedTuple):
    """The budget's multiplier, carried in the train state."""

    weight: jax.Array  # what `budget_loss` is multiplied with
    kept: jax.Array  # moving average of the kept fraction over steps


def init_dual(weight: jax.Array | float = 1.0, kept: jax.Array | float = 1.0) -> DualState:
    """Start of the dual ascent.

    Args:
        weight: first multiplier.
        kept: start of the moving average; gates start open.
    """
    return DualState(jnp.asarray(weight, jnp.float32), jnp.asarray(kept, jnp.float32))


def update_dual(
    state: DualState,
    kept: jax.Array | float,
    target: jax.Array | float,
    rate: jax.Array | float,
    *,
    tolerance: jax.Array | float = 0.02,
    momentum: jax.Array | float = 0.9,
    maximum: jax.Array | float = 100.0,
) -> DualState:
    """One step of dual ascent, after the step of the parameters.

        average <- momentum average + (1 - momentum) kept
        weight  <- min(weight + rate |average - target|, maximum)   outside the tolerance

    The weight rests inside the tolerance and never falls: plain dual ascent, where it rises by
    ``rate (|average - target| - tolerance)`` of either sign, ends on the tolerance's edge
    rather than within it. A large weight also
    punishes batches for being easier or harder than others, so a target that is annealed down
    from 1 (the violation then stays small) is better than a jump, which winds the weight up.

    Args:
        state: the multiplier and the average.
        kept: kept fraction measured in this batch.
        target: fraction to keep.
        rate: gain of the weight per step and unit of distance.
        tolerance: the weight rests while the average is this near the target.
        momentum: of the average; one batch alone is noisy.
        maximum: bound of the weight, for a target that cannot be met. All may be traced.
    """
    average = momentum * state.kept + (1 - momentum) * kept
    distance = jnp.abs(average - target)
    raised = jnp.minimum(state.weight + rate * distance, maximum)
    return DualState(jnp.where(distance > tolerance, raised, state.weight), average)
