"""Gates that a trained gate must beat: they replace it at run time, at equal or higher cost.

    open      every channel, always: what gating loses at all
    fixed     per block, the channels that were open most often: static pruning
    random    each channel at its own rate, drawn anew each frame
    shuffled  the real gates in another order in time

If a net does as well with fixed channels, its gates tell nothing about the signal. All are
tuples over blocks of zeros and ones that broadcast to (B, T, C_i), to be given to a model in
place of its own gates; being arrays, they cause no new compilation.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def open_gates(channels: Sequence[int]) -> tuple[jax.Array, ...]:
    """All channels open.

    Args:
        channels: gated channels of each block.

    Returns:
        Tuple of (1, 1, C_i) ones.
    """
    return tuple(jnp.ones((1, 1, count)) for count in channels)


def fixed_gates(
    rates: Sequence[jax.typing.ArrayLike],
    kept_counts: jax.Array | Sequence[jax.typing.ArrayLike] | None = None,
) -> tuple[jax.Array, ...]:
    """The channels of each block that were open most often, always open; the others never.

    Args:
        rates: sequence over blocks of (C_i,) fractions of frames with the channel open.
        kept_counts: channels to keep in each block, (blocks,), may be traced. None: as many as
            were open on average, rounded, so that the MACs are the gated net's.

    Returns:
        Tuple of (1, 1, C_i). Equal rates: the lower channel index is kept first, so that the
        choice does not depend on the machine.
    """
    rates = [jnp.asarray(rate, jnp.float32) for rate in rates]
    if kept_counts is None:
        kept_counts = [jnp.round(rate.sum()) for rate in rates]
    if len(kept_counts) != len(rates):
        raise ValueError(f"expected {len(rates)} kept counts, one a block, got {len(kept_counts)}")
    fixed = []
    for rate, count in zip(rates, kept_counts, strict=True):
        place = jnp.argsort(jnp.argsort(-rate, stable=True))
        fixed.append((place < count).astype(jnp.float32)[None, None])
    return tuple(fixed)


def random_gates(
    key: jax.Array, rates: Sequence[jax.typing.ArrayLike], batch_size: int, frames: int
) -> tuple[jax.Array, ...]:
    """Each channel open at its own rate, independently in each frame.

    Args:
        key: `jax.random.key`.
        rates: sequence over blocks of (C_i,) fractions of frames with the channel open.

    Returns:
        Tuple of (batch_size, frames, C_i).
    """
    return tuple(
        jax.random.bernoulli(
            jax.random.fold_in(key, block), jnp.asarray(rate), (batch_size, frames, len(rate))
        ).astype(jnp.float32)
        for block, rate in enumerate(rates)
    )


def shuffled_gates(
    key: jax.Array, gates: Sequence[jax.Array], valid: jax.Array | None = None
) -> tuple[jax.Array, ...]:
    """The same gates with the frames of each utterance in random order.

    One order for all channels and blocks of an utterance: what is open together stays so, each
    channel's rate stays, only the relation to the signal is gone.

    Args:
        key: `jax.random.key`.
        gates: sequence over blocks of (B, T, C_i).
        valid: (B, T), true where a frame is real; these are shuffled among themselves and the
            others stay. None: all are.

    Returns:
        Tuple of (B, T, C_i).
    """
    batch_size, frames = gates[0].shape[:2]
    if valid is None:
        valid = jnp.ones((batch_size, frames), bool)
    draw = jax.random.uniform(key, (batch_size, frames))
    # Both orders list the valid frames first: in time, and at random. Frames that are not
    # valid follow in time in both, and so keep their place.
    in_time = jnp.argsort(~valid, axis=1, stable=True)
    at_random = jnp.argsort(jnp.where(valid, draw, 2.0), axis=1, stable=True)
    row = jnp.arange(batch_size)[:, None]
    source = jnp.zeros_like(in_time).at[row, in_time].set(at_random)
    return tuple(jnp.take_along_axis(gate, source[..., None], axis=1) for gate in gates)
