"""What a frame costs by the exit that it takes, with gates or without."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dynse.layers.cost import LayerCost, total_macs


class ExitMacs:
    """MACs of a frame by exit.

    Args:
        exits: of each exit the layers that run.

    Attributes:
        total: with every gate open (E,).
        saved: by gate, what one closed channel saves of each exit (E,).
    """

    def __init__(self, exits: Sequence[Sequence[LayerCost]]) -> None:
        self.total = np.array([total_macs(layers) for layers in exits])
        gates = {layer.gate for layers in exits for layer in layers} - {None}
        self.saved = {
            gate: np.array([sum(one.gated_macs for one in e if one.gate == gate) for e in exits])
            for gate in sorted(gates)
        }

    def done(self, exit_index: jax.Array, gates: Sequence[jax.Array] = ()) -> jax.Array:
        """MACs that were done.

        Args:
            exit_index: exit taken (...).
            gates: of zeros and ones (..., C), by number.

        Returns:
            (...) float32.
        """
        macs = jnp.asarray(self.total, jnp.float32)[exit_index]
        for gate, saved in self.saved.items():
            macs -= jnp.asarray(saved, jnp.float32)[exit_index] * (1 - gates[gate]).sum(-1)
        return macs
