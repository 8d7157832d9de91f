"""Masks: which weights survive, and an optimiser that leaves the others at zero.

A mask is a bool array of its tensor's shape, True where a weight is kept. The masks of a net are a
pytree like its parameters, with None for a tensor that is never pruned. Which group goes is decided
by its l1 norm (of one weight: |w|) and one threshold for the tensor:

    kept = magnitude > threshold,        magnitude_g = sum_{w in g} |w|

so groups vanish whole. A group of magnitude 0 is pruned already, whatever the threshold: the zeros
of a net say what was pruned before. Groups of equal magnitude go together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dynse.pruning.groups import Groups, get_tensor, named_tensors, set_tensors


def group_magnitudes(params: Any, groups: Groups) -> dict[str, jax.Array]:
    """l1 norm of every group.

    Args:
        params: pytree of arrays.
        groups: path to the axes within a group.

    Returns:
        Path to the norms, of the tensor's rank with 1 for each axis within a group.
    """
    return {
        path: jnp.abs(get_tensor(params, path)).sum(axes, keepdims=True)
        for path, axes in groups.items()
    }


def ratio_thresholds(magnitudes: Any, ratios: Sequence[int]) -> np.ndarray:
    """Thresholds that prune these shares of the groups still non-zero.

    Of n groups that are not zero, the floor(n ratio / 100) smallest go (the rounding is ours), and
    with them all that are as large as the largest of them.

    Args:
        magnitudes: of one tensor, any shape.
        ratios: (R,) percent, 0 to 100.

    Returns:
        (R,) in the magnitudes' dtype; 0 where no group goes.
    """
    sizes = np.asarray(magnitudes).ravel()
    alive = np.sort(sizes[sizes > 0])
    counts = len(alive) * np.asarray(ratios, np.int64) // 100
    return np.concatenate([np.zeros(1, alive.dtype), alive])[counts]


def masks_by_thresholds(params: Any, groups: Groups, thresholds: Mapping[str, Any]) -> Any:
    """Masks of a net.

    Args:
        params: pytree of arrays.
        groups: path to the axes within a group.
        thresholds: path to threshold, not negative; 0, also of a path left out, prunes nothing but
            the groups that are zero.

    Raises:
        ValueError: where a threshold's path has no group.
    """
    unknown = sorted(thresholds.keys() - groups.keys())
    if unknown:
        raise ValueError(f"expected paths of {', '.join(groups)}; got {', '.join(unknown)}")
    magnitudes = group_magnitudes(params, groups)
    masks = {
        path: jnp.broadcast_to(
            magnitudes[path] > thresholds.get(path, 0), jnp.shape(get_tensor(params, path))
        )
        for path in groups
    }
    return set_tensors(params, {**dict.fromkeys(named_tensors(params)), **masks})


def apply_masks(params: Any, masks: Any) -> Any:
    """The parameters with exact zeros where a mask is False."""
    return jax.tree.map(_apply, params, masks)


def count_nonzero(params: Any, groups: Groups) -> int:
    """Weights of a net that are not zero; biases and the like are not counted."""
    return sum(int(jnp.count_nonzero(get_tensor(params, path))) for path in groups)


class MaskedState(NamedTuple):
    """The inner optimiser's state, and the masks.

    The masks are part of the state and not of the program: a train step compiled once serves all
    iterations.
    """

    inner: Any
    masks: Any


def with_masks(
    inner: optax.GradientTransformation, masks: Any
) -> optax.GradientTransformationExtraArgs:
    """An optimiser that keeps pruned weights, and its memory of them, at zero.

    Their gradient is taken as zero (it counts in no norm), the update leaves them at exactly zero
    whatever the inner optimiser says, and every part of its state that is shaped like the
    parameters (momentum, second moments, their maxima) is zero there.

    Args:
        inner: any optimiser.
        masks: pytree like the parameters, None for tensors without a mask.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return MaskedState(_mask_state(inner.init(params), params, masks), masks)

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("expected the parameters: update(updates, state, params)")
        masks = state.masks
        updates, inner_state = inner.update(
            apply_masks(updates, masks), state.inner, params, **extra
        )
        # Minus the weight rather than 0: exactly zero even if it was not when training started.
        updates = jax.tree.map(
            lambda update, mask, weight: (
                update if mask is None else jnp.where(mask, update, -weight)
            ),
            updates,
            masks,
            params,
        )
        return updates, MaskedState(_mask_state(inner_state, params, masks), masks)

    return optax.GradientTransformationExtraArgs(init, update)


def _apply(leaf, mask):
    return leaf if mask is None else jnp.where(mask, leaf, 0)


def _mask_state(state, params, masks):
    """Masks every subtree of a state that has the parameters' structure."""
    structure = jax.tree.structure(params)

    def is_like_params(node):
        return jax.tree.structure(node) == structure

    def mask_leaf(leaf, mask):
        # Factored second moments have the structure, not the shapes.
        return leaf if mask is None or jnp.shape(leaf) != jnp.shape(mask) else _apply(leaf, mask)

    return jax.tree.map(
        lambda node: jax.tree.map(mask_leaf, node, masks) if is_like_params(node) else node,
        state,
        is_leaf=is_like_params,
    )
