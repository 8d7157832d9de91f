"""A probe: a linear or logistic predictor that reads some channels of the gates.

    y = bias + sum_j weights_j x_j,     j over the probe's channels

x_j is a bit, an average of bits, or any other feature of the same place (for baselines). y is an
estimate ("ridge") or a logit ("logistic"): one output against a threshold for two classes, else
one output a class, of which the largest wins.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

KINDS = ("logistic", "ridge")


@flax.struct.dataclass
class LinearProbe:
    """A predictor; a pytree of arrays, so that it travels in a model's variables.

    Attributes:
        channels: (S,) int32, which of the concatenated features it reads.
        weights: (S, K) float32, on the raw features.
        bias: (K,) float32.
        threshold: scalar float32; with two classes the second is predicted above it.
        kind: "logistic" or "ridge".
        window: frames that its features are averaged over (`causal_average`).
    """

    channels: jax.Array
    weights: jax.Array
    bias: jax.Array
    threshold: jax.Array
    kind: str = flax.struct.field(pytree_node=False)
    window: int = flax.struct.field(pytree_node=False, default=1)


def make_probe(
    channels: Any, weights: Any, bias: Any, *, kind: str, window: int = 1, threshold: float = 0.0
) -> LinearProbe:
    """A probe of these values, as arrays of its types.

    Raises:
        ValueError: the shapes do not fit together, a channel is named twice, the kind is unknown,
            or the window is not positive.
    """
    channels = jnp.asarray(channels, jnp.int32)
    weights, bias = jnp.asarray(weights, jnp.float32), jnp.asarray(bias, jnp.float32)
    if channels.ndim != 1 or bias.ndim != 1 or weights.shape != (*channels.shape, *bias.shape):
        raise ValueError(
            "expected channels (S,), weights (S, K) and bias (K,), got "
            f"{channels.shape}, {weights.shape} and {bias.shape}"
        )
    if len(np.unique(channels)) < len(channels):
        raise ValueError(f"expected different channels, got {channels.tolist()}")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    if window < 1:
        raise ValueError(f"expected a window of at least 1 frame, got {window}")
    return LinearProbe(channels, weights, bias, jnp.float32(threshold), kind, window)


@jax.jit
def outputs(probe: LinearProbe, features: Any) -> jax.Array:
    """Estimates or logits: (..., all channels) -> (..., K) float32.

    A matrix product, differentiable in the features; `sum_of_open` is the same without
    multiplying. The features are already averaged over the probe's window.
    """
    selected = jnp.asarray(features)[..., probe.channels].astype(jnp.float32)
    return probe.bias + jnp.matmul(selected, probe.weights, precision="highest")


def decide(probe: LinearProbe, outputs: jax.Array) -> jax.Array:
    """What a probe's outputs say: (..., K) to

    - ridge: (..., K) float32, the estimates;
    - logistic, one output: (...,) bool, the second class;
    - logistic, several outputs: (...,) int32, the class.
    """
    if probe.kind == "ridge":
        return outputs
    if probe.bias.shape == (1,):
        return outputs[..., 0] > probe.threshold
    return outputs.argmax(-1).astype(jnp.int32)


def predict(probe: LinearProbe, features: Any) -> jax.Array:
    """`decide` on the `outputs` of these features."""
    return decide(probe, outputs(probe, features))
