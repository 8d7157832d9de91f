"""The gate: which channels of a block to compute, decided per frame (arXiv 2412.17121).

    pooled_t = mean of x over the last N frames                       (moving average)
    scores_t = W2 relu(W1 pooled_t + b1) + b2                         (two pointwise convs)
    gate_t   = scores_t > 0                                           (Heaviside)

Pooling is linear, so ``W1 mean(x) = mean(W1 x)``: it is done after the first matmul, in the few
``hidden`` channels instead of the many input ones, with bias and ReLU after it. The result is
the same; the state and the additions shrink by in_channels / hidden.

The paper does not publish the gate's input, hidden width and bias. Here the caller gives the
input (the block's own), a hidden width of 8 and gates that start open are the defaults, and the
input is detached: with the identity surrogate the gradient through it diverges.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from dynse.gating.step import (
    hard_step,
    init_moving_average,
    moving_average,
)
from dynse.gating.surrogates import Surrogate, identity

_EPSILON = 1e-5


def init_gate(
    key: jax.Array,
    in_channels: int,
    out_channels: int,
    hidden: int = 8,
    *,
    bias: jax.Array | float = 1.0,
) -> dict[str, dict[str, jax.Array]]:
    """Parameters of one gate.

    Args:
        key: `jax.random.key`.
        in_channels: channels of the gate's input.
        out_channels: channels to be gated.
        hidden: width between the two pointwise convs.
        bias: start of the last bias; positive: gates start open, 0: centred on the threshold.

    Returns:
        ``{"fc1": {"kernel": (in, hidden), "bias": (hidden,)}, "fc2": {"kernel": (hidden, out),
        "bias": (out,)}}``, float32. In Linen:
        ``self.param("gate", init_gate, in_channels, out_channels)``.
    """
    key1, key2 = jax.random.split(key)
    he, lecun = jax.nn.initializers.he_normal(), jax.nn.initializers.lecun_normal()
    return {
        "fc1": {"kernel": he(key1, (in_channels, hidden)), "bias": jnp.zeros(hidden)},
        "fc2": {
            "kernel": lecun(key2, (hidden, out_channels)),
            "bias": jnp.full(out_channels, bias, jnp.float32),
        },
    }


def init_gate_state(
    params: Mapping[str, Mapping[str, jax.Array]], batch_size: int, window: int = 16
) -> jax.Array:
    """State before the first frame: past frames of ``W1 x``, (B, window - 1, hidden) zeros."""
    return init_moving_average(batch_size, params["fc1"]["kernel"].shape[1], window)


def apply_gate(
    params: Mapping[str, Mapping[str, jax.Array]],
    state: jax.Array,
    x: jax.Array,
    *,
    window: int = 16,
    surrogate: Surrogate = identity,
    normalize: bool = False,
    level: bool = False,
    group: int = 1,
    detach: bool = True,
    key: jax.Array | None = None,
    noise: jax.Array | float = 1.0,
    softness: jax.Array | float | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gates of T frames.

    Args:
        params: from `init_gate`.
        state: from `init_gate_state` with the same window, or what the last call returned.
        x: (B, T, in_channels), the block's input; with ``level`` one channel less.
        window: frames pooled, static; 1 is no pooling.
        surrogate: derivative of the step in the backward pass.
        normalize: standardise each frame over its channels first (zero mean, unit standard
            deviation, no parameters): stateless, and takes the level out of the decision.
        level: one more input channel says how loud the frame is, the log of its variance over
            channels, 0 in silence (ours): loud frames may then be decided otherwise than quiet
            ones, whether or not the rest is normalised.
        group: channels that share a decision (ours); the parameters are those of a gate with
            out_channels / group outputs.
        detach: no gradient through the gate into x; the gate's own parameters still learn.
        key: with a key, logistic noise of scale ``noise`` is added to the scores before the
            step (training). Without: deterministic.
        noise: scale of that noise, may be traced.
        softness: share, 0 to 1, of ``sigmoid(scores)`` that is mixed into the gate (training;
            ours): a gate that begins soft and hardens has a true gradient first. May be traced;
            None for none.

    Returns:
        ``(state, gate, scores)``: gate (B, T, out_channels) of exact zeros and ones (but for the
        softness), scores of the same shape before any noise; both float32 whatever the dtype of x.
    """
    fc1, fc2 = params["fc1"], params["fc2"]
    channels = fc1["kernel"].shape[0] - level
    if x.shape[-1] != channels:
        raise ValueError(f"expected gate input of {channels} channels, got shape {x.shape}")
    x = x.astype(jnp.float32)
    if detach:
        x = jax.lax.stop_gradient(x)
    x = _gate_input(x, normalize=normalize, level=level)

    # In float32 where the net's own matmuls are not: a rounded score decides otherwise.
    projected = jnp.matmul(x, fc1["kernel"], precision="float32")
    state, pooled = moving_average(state, projected, window)
    hidden = jax.nn.relu(pooled + fc1["bias"])
    scores = jnp.matmul(hidden, fc2["kernel"], precision="float32") + fc2["bias"]
    gate = hard_step(scores, surrogate, key=key, noise=noise)
    if softness is not None:
        gate = gate + softness * (jax.nn.sigmoid(scores) - gate)
    if group > 1:
        gate, scores = jnp.repeat(gate, group, -1), jnp.repeat(scores, group, -1)
    return state, gate, scores


def gate_macs(in_channels: int, out_channels: int, hidden: int = 8) -> int:
    """MACs per frame of one gate: ``in * hidden + hidden * out``; pooling only adds."""
    return in_channels * hidden + hidden * out_channels


def _gate_input(x: jax.Array, *, normalize: bool, level: bool) -> jax.Array:
    """What the first matmul sees of each frame."""
    if not (normalize or level):
        return x
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    if normalize:
        x = centred * jax.lax.rsqrt(variance + _EPSILON)
    if not level:
        return x
    # An eighth: about 1.4 at a variance of 1, as large as the other channels.
    return jnp.concatenate([x, jnp.log1p(variance / _EPSILON) / 8], -1)
