"""FDNN, a feedforward network that estimates the ideal ratio mask of each frame by itself.

    h = relu(fc1 |X|), ... ,  gain = sigmoid(fc4 h)       to be multiplied with the noisy spectrum
    trained towards sqrt(|S|^2 / (|S|^2 + |N|^2))

Tan and Wang, "Towards Model Compression for Deep Learning Based Speech Enhancement", IEEE/ACM
TASLP 29, 2021. One frame, no context. That the output is a sigmoid is our reading.
"""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.audio.features import magnitude
from dynse.layers.conv import Pointwise, pointwise_cost
from dynse.layers.cost import LayerCost
from dynse.models.network import Aux, Network


class FDNN(Network):
    """The network: magnitudes (B, T, bins) in, gain (B, T, bins) in 0 to 1 out. Causal.

    Attributes:
        bins: frequency bins F.
        hidden: width of each hidden layer.
    """

    bins: int = 161
    hidden: tuple[int, ...] = (2048, 2048, 2048)

    def setup(self) -> None:
        self.layers = [
            Pointwise(width, name=f"fc{index + 1}")
            for index, width in enumerate((*self.hidden, self.bins))
        ]

    def __call__(
        self,
        frames: jax.Array,
        state: tuple[()] | None = None,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[tuple[()], jax.Array, Aux]:
        """Gains of a block of frames.

        Args:
            frames: magnitudes (B, T, bins), T >= 1.
            state: not used, there is none.
            train: not used; the train step says it to every network.
            key: not used, nothing is drawn.

        Returns:
            The empty state, the gain (B, T, bins) and `Aux`, empty.

        Raises:
            ValueError: on a wrong number of bins.
        """
        if frames.ndim != 3 or frames.shape[-1] != self.bins:
            raise ValueError(f"expected frames (B, T, {self.bins}), got {frames.shape}")
        h = frames
        for layer in self.layers[:-1]:
            h = nn.relu(layer(h))
        return (), nn.sigmoid(self.layers[-1](h)), Aux((), ())

    @nn.nowrap
    def init_state(self, batch_size: int) -> tuple[()]:
        """State before the first frame: none."""
        return ()

    @nn.nowrap
    def target(self, clean: jax.Array, noisy: jax.Array) -> jax.Array:
        """What the output is trained towards, the ideal ratio mask of two spectra (B, T, bins)."""
        speech = jnp.square(magnitude(clean))
        total = speech + jnp.square(magnitude(noisy - clean))
        return jnp.sqrt(speech / jnp.where(total == 0, 1.0, total))

    @property
    def receptive_field_frames(self) -> int:
        """Past frames that a gain depends on: none."""
        return 0

    @nn.nowrap
    def cost(self) -> list[LayerCost]:
        """Costs of all layers, per frame."""
        widths = (self.bins, *self.hidden, self.bins)
        return [
            pointwise_cost(f"fc{index + 1}", *pair)
            for index, pair in enumerate(itertools.pairwise(widths))
        ]
