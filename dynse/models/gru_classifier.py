"""A GRU and a dense layer: what is classified, or estimated, frame by frame.

    h_t = gru(h_(t-1), x_t),    y_t = activation(W h_t + b)

Of a sequence that gets one label, the last valid frame's output counts (`last_valid`); a network
that estimates a gain (sigmoid) uses all frames. It is small enough to be quantised whole, and the
parameters are named as `dynse.quantization` reads them: `gru` and `fc`.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.layers.conv import Pointwise, pointwise_cost
from dynse.layers.cost import LayerCost
from dynse.layers.gru import GRU, gru_cost
from dynse.models.network import Network

ACTIVATIONS = ("none", "sigmoid")


class GRUClassifier(Network):
    """Frames (B, T, D) in, outputs (B, T, K) out. Causal.

    Attributes:
        features: width H of the GRU.
        outputs: K.
        activation: of the outputs, "none" (logits) or "sigmoid".
    """

    features: int
    outputs: int
    activation: Literal["none", "sigmoid"] = "none"

    def setup(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}; got {self.activation!r}"
            )
        self.gru = GRU(self.features)
        self.fc = Pointwise(self.outputs)

    def __call__(
        self, frames: jax.Array, state: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, tuple[()]]:
        """Outputs of a block of frames.

        Args:
            frames: (B, T, D), T >= 1.
            state: from `init_state` or the call before, (B, H); None starts anew.

        Returns:
            The next state, the outputs (B, T, K), and nothing beside.
        """
        if state is None:
            state = self.init_state(frames.shape[0])
        state, h = self.gru(state, frames)
        y = self.fc(h)
        return state, nn.sigmoid(y) if self.activation == "sigmoid" else y, ()

    @nn.nowrap
    def init_state(self, batch_size: int) -> jax.Array:
        """State before the first frame: zeros (B, H)."""
        return jnp.zeros((batch_size, self.features))

    @property
    def receptive_field_frames(self) -> None:
        """None: a recurrent network never forgets."""
        return None

    @nn.nowrap
    def cost(self, in_features: int) -> list[LayerCost]:
        """Costs of both layers, per frame of `in_features` values."""
        return [
            gru_cost("gru", in_features, self.features),
            pointwise_cost("fc", self.features, self.outputs),
        ]


def last_valid(outputs: jax.Array, lengths: jax.Array) -> jax.Array:
    """The output of each sequence's last frame.

    Args:
        outputs: (B, T, K).
        lengths: (B,) int, valid frames of each sequence, 1 to T; may be traced.

    Returns:
        (B, K).
    """
    return jnp.take_along_axis(outputs, (lengths - 1)[:, None, None], axis=1)[:, 0]
