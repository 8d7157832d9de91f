"""Exit heads, and what a stage of the network gives to its head and to the next stage.

    gain = sigmoid(W s + b)                     s: what the exit's head reads

Three splits of the information flow (Miccini et al., MLSP 2023, arXiv 2308.16678), h the output of
a stage of width d, x its input:

    "none"        s = h, and h goes on
    "duplicate"   s = h', a second layer of the same kind and width that reads x; h goes on
    "divide"      of the d units a fraction gives s, the rest goes on

Ours: the two parts of a divided recurrent stage do not hear one another, they are two layers. So
an exit costs its own part alone, and a part can be trained while the other is frozen. The last exit
of a network is not split: nothing goes on behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.layers.conv import Pointwise

SPLITS = ("none", "duplicate", "divide")


class ExitHead(Pointwise):
    """A gain from what an exit reads: 1x1 convolution and sigmoid, `kernel` (C, F), `bias` (F,)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, T, C) -> (B, T, F) in 0 to 1."""
        return nn.sigmoid(super().__call__(x))


class AllExits(NamedTuple):
    """What a network gives that computes all its exits, or one alone.

    Attributes:
        state: the next, by the paths of the layers that have one.
        gains: of each exit that was computed (B, T, F).
        features: output of the first stage (B, T, C), which a policy may see.
        gates: of zeros and ones (B, T, C), by the numbers that `LayerCost` knows them by; ()
            without gates.
    """

    state: Mapping[str, Any]
    gains: tuple[jax.Array, ...]
    features: jax.Array
    gates: tuple[jax.Array, ...] = ()


def split_widths(width: int, split: str, fraction: float) -> tuple[int, int]:
    """Widths of the layer that goes on and of the one beside it that feeds the head alone.

    Args:
        width: of the stage.
        split: "none", "duplicate" or "divide".
        fraction: of the units that feed the head; for "divide" alone.

    Returns:
        Both widths; the second is 0 where the head reads the stage itself.

    Raises:
        ValueError: on another split, or a fraction that leaves one part without a unit.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
    if split == "none":
        return width, 0
    if split == "duplicate":
        return width, width
    side = round(fraction * width)
    if not 0 < side < width:
        raise ValueError(f"expected a fraction of {width} units that divides them, got {fraction}")
    return width - side, side


def take_exit(gains: Sequence[jax.Array], exit_index: jax.Array) -> jax.Array:
    """The gain of the exit taken in each frame.

    Args:
        gains: of every exit, each (B, T, F).
        exit_index: (B, T) integers.

    Returns:
        (B, T, F).
    """
    stacked = jnp.stack(tuple(gains), axis=2)
    return jnp.take_along_axis(stacked, exit_index[..., None, None], axis=2)[:, :, 0]
