"""Training of a net with exits: all at once, or layer by layer (Miccini et al., arXiv 2308.16678).

    joint         L = sum over exits i of w_i L_i,       w_i = 1, or growing with depth
    layer-wise    phase i minimises L_i; the layers that an earlier phase trained are frozen, or,
                  by option, move on

A layer belongs to the first phase whose exit needs it. Layers are named by the paths of their
parameters, joined by "/", as in `LayerCost`, so what is needed can be read off the cost of an exit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import jax

WEIGHTS = ("equal", "growing")


def exit_weights(count: int, kind: str) -> tuple[float, ...]:
    """Weight of each exit's loss, that of the last one 1.

    Args:
        count: exits E.
        kind: "equal", all 1, or "growing", (i + 1) / E (how they grow is ours).

    Raises:
        ValueError: on another kind.
    """
    if kind not in WEIGHTS:
        raise ValueError(f"kind must be one of {', '.join(WEIGHTS)}; got {kind!r}")
    return tuple(1.0 if kind == "equal" else (i + 1) / count for i in range(count))


def joint_loss(losses: Sequence[jax.Array], weights: Sequence[float]) -> jax.Array:
    """Weighted sum of the exits' losses.

    Args:
        losses: () of each exit.
        weights: as many; may be traced.

    Raises:
        ValueError: where their numbers differ.
    """
    if len(losses) != len(weights):
        raise ValueError(f"expected {len(losses)} weights, one an exit, got {len(weights)}")
    return sum(weight * loss for weight, loss in zip(weights, losses, strict=True))


def phase_layers(
    needed: Sequence[Collection[str]], phase: int, *, moving: bool = False
) -> frozenset[str]:
    """Layers that train in a phase of layer-wise training.

    Args:
        needed: for each exit the paths of the layers that its gain needs.
        phase: index of the exit whose loss the phase minimises.
        moving: layers of earlier phases go on training.
    """
    layers = frozenset(needed[phase])
    return layers if moving else layers.difference(*needed[:phase])


def layer_mask(params: Any, layers: Collection[str]) -> Any:
    """Which parameters belong to some layers, for `optax.masked` or `optax.multi_transform`.

    Args:
        params: nested dictionaries of parameters.
        layers: paths, joined by "/".

    Returns:
        The same structure with True or False in the place of each array.

    Raises:
        ValueError: where a layer has no parameter.
    """
    found = set()

    def belongs(path: Any, _: Any) -> bool:
        parts = [part.key for part in path]
        own = {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)} & set(layers)
        found.update(own)
        return bool(own)

    mask = jax.tree_util.tree_map_with_path(belongs, params)
    if missing := set(layers) - found:
        raise ValueError(f"no parameters found for {', '.join(sorted(missing))}")
    return mask
