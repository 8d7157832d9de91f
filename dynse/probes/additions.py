"""Predictions from binary gates need no multiplication.

A bit is 0 or 1, so the weighted sum of a probe is the sum of the weights of its open channels:

    bias + sum_j weights_j bit_j = bias + sum of weights_j over the open j

Averaged over k frames it is the same, since a mean and a sum can be swapped: each frame's sums
are kept, and the last k are averaged (an engine divides the weights by k once and for all).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from dynse.probes.linear import LinearProbe


def sum_of_open(probe: LinearProbe, bits: jax.Array) -> jax.Array:
    """Sum of the weights of the open channels, without the bias.

    Args:
        probe: K outputs.
        bits: (..., all channels) bool, of `frame_bits`.

    Returns:
        (..., K) float32.
    """
    selected = jnp.take(bits, probe.channels, axis=-1)
    return jnp.where(selected[..., None], probe.weights, 0).sum(-2)


def additions_per_frame(probe: LinearProbe, features: Any) -> float:
    """Additions that a frame costs, to be held against a network's MACs: K (open + k - 1).

    K outputs each add their weight of every open channel to the bias, and the k - 1 sums of the
    frames before.

    Args:
        probe: K outputs, a window of k frames.
        features: (..., all channels): bits, averages of them, or activation rates; their mean
            says how many of the probe's channels are open.
    """
    selected = jnp.asarray(features)[..., probe.channels]
    opened = selected.mean(range(selected.ndim - 1), dtype=jnp.float32).sum()
    return len(probe.bias) * (float(opened) + probe.window - 1)
