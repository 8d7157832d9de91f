"""Training of nets with exits, beside the spectral loss of the output.

    joint         loss = L_E + sum over the exits i before the last of w_i L_i
    layer-wise    one run a phase, of the program of exit i (`exit_index`), whose output is that
                  exit's; `freeze` keeps what the phases before it trained

The joint loss enters as the extra loss: the train step puts the loss of each earlier exit in the
place of its gain, and the last one's is the spectral loss itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import jax
import optax

from dynse.exits import joint_loss, layer_mask


@dataclasses.dataclass(frozen=True)
class ExitLoss:
    """The weighted losses of the exits before the last, beside another extra loss.

    Attributes:
        weights: of all exits, from `dynse.exits.exit_weights`; that of the last is 1.
        other: the extra loss on what else the network tells.
    """

    weights: tuple[float, ...]
    other: Any

    def init(self) -> Any:
        """State of the other loss."""
        return self.other.init()

    def forward_options(self, step: jax.Array) -> dict[str, Any]:
        """Those of the other loss."""
        return self.other.forward_options(step)

    def __call__(
        self, state: Any, aux: Any, batch: Any, step: jax.Array
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        """Loss (), next state and metrics: the other's, and "loss_exit0", "loss_exit1", ..."""
        total, state, metrics = self.other(state, aux, batch, step)
        total = total + joint_loss(aux.exits, self.weights[:-1])
        losses = {f"loss_exit{index}": loss for index, loss in enumerate(aux.exits)}
        return total, state, {**metrics, **losses}


def freeze(
    optimizer: optax.GradientTransformation, trained: Collection[str]
) -> optax.GradientTransformation:
    """An optimiser that leaves all but some layers as they are, its weight decay included.

    Args:
        optimizer: of the layers that train; it sees their gradients alone.
        trained: paths of layers, from `dynse.exits.phase_layers`.
    """

    def labels(params: Any) -> Any:
        return jax.tree.map(
            lambda trains: "trained" if trains else "frozen", layer_mask(params, trained)
        )

    return optax.multi_transform({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)
