"""The oracle, and a small router that learns what it can of it.

    paid_ti = error_ti + price MACs_i
    oracle    e_t = argmin over exits i of paid_ti
    router    e_t = argmax over exits i of (W h_t + b)_i,      h: output of the first stage
              L = mean over t of sum over i of softmax(W h_t + b)_i paid_ti

The oracle knows each exit's error, with every stage run in every frame: an upper bound for any
policy, also for those that leave the state of skipped stages behind. The router sees what the first
stage gave, before the decision. It learns to pay little, not to imitate: in most frames several
exits are nearly as good and which of them the oracle takes is chance (ours).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dynse.exits.policies import Frame, Reads
from dynse.layers.conv import pointwise_cost
from dynse.layers.cost import LayerCost


def paid_errors(errors: jax.Array, macs: Sequence[int], price: jax.Array | float) -> jax.Array:
    """What each exit's frame costs in all.

    Args:
        errors: of each exit in each frame (..., E).
        macs: of a frame that takes each exit, E of them.
        price: error that one MAC must save; may be traced.

    Returns:
        (..., E).

    Raises:
        ValueError: where the number of exits differs.
    """
    if errors.shape[-1] != len(macs):
        raise ValueError(f"expected errors of {len(macs)} exits, got {errors.shape}")
    return errors + price * jnp.asarray(macs, jnp.float32)


def oracle_exits(errors: jax.Array, macs: Sequence[int], price: jax.Array | float) -> jax.Array:
    """The best exit of every frame: arguments as of `paid_errors`.

    Returns:
        (...,) int32; the shallower exit where two are as good.
    """
    return jnp.argmin(paid_errors(errors, macs, price), axis=-1).astype(jnp.int32)


def init_router(features: int, exits: int) -> dict[str, jax.Array]:
    """Parameters of the router: zeros, every exit as likely as the others."""
    return {"kernel": jnp.zeros((features, exits)), "bias": jnp.zeros(exits)}


def router_scores(params: Mapping[str, jax.Array], features: jax.Array) -> jax.Array:
    """(..., C) -> (..., E)."""
    return features @ params["kernel"] + params["bias"]


def router_loss(params: Mapping[str, jax.Array], features: jax.Array, paid: jax.Array) -> jax.Array:
    """What is paid on average by exits drawn from the router's scores.

    Args:
        params: from `init_router`.
        features: outputs of the first stage (..., C).
        paid: from `paid_errors` (..., E).

    Returns:
        ().
    """
    drawn = jax.nn.softmax(router_scores(params, features))
    return (drawn * paid).sum(-1).mean()


@dataclasses.dataclass(frozen=True)
class Router:
    """The policy. Its controls are the parameters.

    Attributes:
        features: width C of the first stage's output.
        exits: E.
    """

    features: int
    exits: int
    reads: Reads = "features"

    def cost(self) -> list[LayerCost]:
        """Of its one dense layer."""
        return [pointwise_cost("exit_policy", self.features, self.exits)]

    def init(self, batch_size: int) -> tuple[()]:
        return ()

    def choose(self, controls: Any, state: tuple[()], frame: Frame) -> tuple[tuple[()], jax.Array]:
        """Controls: as of `init_router`."""
        scores = router_scores(controls, frame.features)
        return state, jnp.argmax(scores, axis=-1).astype(jnp.int32)
