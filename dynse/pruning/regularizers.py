"""Sparse regularisers over what is still non-zero (Tan and Wang, TASLP 2021).

    R_l1  = lambda1 / n(W) sum_w |w|
    R_SGL = R_l1 + lambda2 / n(G) sum_g sqrt(p_g) ||g||_2          (sparse group lasso)

n(W) and n(G) count the weights and the groups that are not zero, p_g the weights of a group. A
weight or group that is zero gets no gradient, so what is pruned stays out of both. lambda1 and
lambda2 depend on the scale of loss and weights: the published ones make each term about a tenth of
the loss, and that rule sets them here.

`with_penalty` makes a regulariser part of the training loss: its gradient joins that of the loss
before the optimiser sees it, and before clipping.

Ours: p_g is the size of the group, zeros in it included; "each regulariser a tenth" is read as
each of the two sums of R_SGL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dynse.pruning.groups import Groups, get_tensor

SHARE = 0.1


def l1_penalty(params: Any, groups: Groups, lambda1: jax.Array | float) -> jax.Array:
    """R_l1, ().

    Args:
        params: pytree of arrays.
        groups: path to axes; here for its paths alone.
        lambda1: may be traced.
    """
    total, count = jnp.zeros(()), jnp.zeros(())
    for path in groups:
        weight = get_tensor(params, path)
        # Not `abs`, whose slope at 0 is 1 in JAX.
        total += (jnp.sign(weight) * weight).sum()
        count += (weight != 0).sum()
    return lambda1 * total / jnp.maximum(count, 1)


def group_penalty(params: Any, groups: Groups, lambda2: jax.Array | float) -> jax.Array:
    """The second term of R_SGL, ().

    Args:
        params: pytree of arrays.
        groups: path to the axes within a group.
        lambda2: may be traced.
    """
    total, count = jnp.zeros(()), jnp.zeros(())
    for path, axes in groups.items():
        weight = get_tensor(params, path)
        squares = jnp.square(weight).sum(axes)
        alive = squares > 0
        # The root's slope at 0 is infinite, and times 0 not a number: a dead group takes no root.
        norms = jnp.where(alive, jnp.sqrt(jnp.where(alive, squares, 1)), 0)
        total += (weight.size / squares.size) ** 0.5 * norms.sum()
        count += alive.sum()
    return lambda2 * total / jnp.maximum(count, 1)


def sparse_group_lasso(
    params: Any, groups: Groups, lambda1: jax.Array | float, lambda2: jax.Array | float
) -> jax.Array:
    """R_SGL, ()."""
    return l1_penalty(params, groups, lambda1) + group_penalty(params, groups, lambda2)


class PenalizedState(NamedTuple):
    """The inner optimiser's state, and the weights of the penalty.

    The weights are part of the state and not of the program: a train step compiled once serves
    all iterations, in which they shrink.
    """

    inner: Any
    weights: Any


def with_penalty(
    inner: optax.GradientTransformation,
    penalty: Callable[[Any, Any], jax.Array],
    weights: Any,
) -> optax.GradientTransformationExtraArgs:
    """An optimiser of the loss plus a penalty on the parameters.

    Args:
        inner: any optimiser.
        penalty: `(params, weights) -> ()`.
        weights: pytree of numbers, such as (lambda1, lambda2).
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return PenalizedState(inner.init(params), jax.tree.map(jnp.float32, weights))

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("expected the parameters: update(updates, state, params)")
        gradient = jax.grad(penalty)(params, state.weights)
        total = jax.tree.map(jnp.add, updates, gradient)
        updates, inner_state = inner.update(total, state.inner, params, **extra)
        return updates, PenalizedState(inner_state, state.weights)

    return optax.GradientTransformationExtraArgs(init, update)


def lambdas_by_share(
    loss: float, params: Any, groups: Groups, *, share: float = SHARE
) -> tuple[float, float]:
    """lambda1 and lambda2 that make each term this share of the loss.

    Args:
        loss: of the net with these parameters, without a regulariser.
        params: pytree of arrays.
        groups: path to the axes within a group.
        share: a tenth, as published.

    Raises:
        ValueError: where all weights are zero, or the loss is not positive.
    """
    l1, group = float(l1_penalty(params, groups, 1.0)), float(group_penalty(params, groups, 1.0))
    if not (l1 > 0 and group > 0 and loss > 0):
        raise ValueError(
            f"expected a positive loss and weights that are not all zero, got a loss of {loss} "
            f"and terms of {l1} and {group}"
        )
    return share * float(loss) / l1, share * float(loss) / group
