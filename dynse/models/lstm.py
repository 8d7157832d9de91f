"""LSTM, a recurrent network that maps the noisy magnitude to the clean one.

    h = lstm4(lstm3(lstm2(lstm1 |X|))),   |S^| = relu(fc h),   enhanced = |S^| X / |X|

Tan and Wang, "Towards Model Compression for Deep Learning Based Speech Enhancement", IEEE/ACM
TASLP 29, 2021. The noisy phase is kept.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.audio.features import magnitude
from dynse.audio.stft import STFT
from dynse.layers.conv import Pointwise, pointwise_cost
from dynse.layers.cost import LayerCost
from dynse.layers.lstm import LSTM, lstm_cost
from dynse.layers.lstm import State as LayerState
from dynse.models.network import Aux, Network

State = tuple[LayerState, ...]


class LSTMMapping(Network):
    """The network: magnitudes (B, T, bins) in, magnitudes (B, T, bins) out. Causal.

    Attributes:
        bins: frequency bins F.
        hidden: width of each LSTM, two biases per gate.
    """

    bins: int = 161
    hidden: tuple[int, ...] = (1024, 1024, 1024, 1024)

    def setup(self) -> None:
        self.lstms = [
            LSTM(width, name=f"lstm{index + 1}") for index, width in enumerate(self.hidden)
        ]
        self.fc = Pointwise(self.bins)

    def __call__(
        self,
        frames: jax.Array,
        state: State | None = None,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[State, jax.Array, Aux]:
        """Magnitudes of a block of frames.

        Args:
            frames: magnitudes (B, T, bins), T >= 1.
            state: from `init_state` or the call before; None starts anew.
            train: not used; the train step says it to every network.
            key: not used, nothing is drawn.

        Returns:
            The next state, magnitudes (B, T, bins) and `Aux`, empty.

        Raises:
            ValueError: on a wrong number of bins.
        """
        if frames.ndim != 3 or frames.shape[-1] != self.bins:
            raise ValueError(f"expected frames (B, T, {self.bins}), got {frames.shape}")
        if state is None:
            state = self.init_state(frames.shape[0])
        h, states = frames, []
        for lstm, before in zip(self.lstms, state, strict=True):
            after, h = lstm(before, h)
            states.append(after)
        return tuple(states), nn.relu(self.fc(h)), Aux((), ())

    @nn.nowrap
    def init_state(self, batch_size: int) -> State:
        """State before the first frame: (h, c) of each LSTM, each (B, H), zeros."""
        return tuple(LSTM(width, parent=None).init_state(batch_size) for width in self.hidden)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame of input."""
        return (self.bins,)

    @nn.nowrap
    def transform(self, stft: STFT) -> STFT:
        """What takes waveforms to what `inputs` sees, and back."""
        return stft

    @nn.nowrap
    def inputs(self, spectrum: jax.Array) -> jax.Array:
        """Frames (B, T, bins) of a noisy spectrum (B, T, bins)."""
        return magnitude(spectrum)

    @nn.nowrap
    def estimate(self, spectrum: jax.Array, output: jax.Array) -> jax.Array:
        """Enhanced spectrum, from the noisy one and the network's output; phase 0 in silence."""
        level = magnitude(spectrum)
        silent = level == 0
        return output * jnp.where(silent, 1.0, spectrum / jnp.where(silent, 1.0, level))

    @nn.nowrap
    def target(self, clean: jax.Array, noisy: jax.Array) -> jax.Array:
        """What the output is trained towards: the magnitude of the clean spectrum."""
        return magnitude(clean)

    @property
    def receptive_field_frames(self) -> None:
        """None: a recurrent network never forgets."""
        return None

    @nn.nowrap
    def cost(self) -> list[LayerCost]:
        """Costs of all layers, per frame."""
        inputs = (self.bins, *self.hidden)
        layers = [
            lstm_cost(f"lstm{index + 1}", inputs[index], width)
            for index, width in enumerate(self.hidden)
        ]
        return [*layers, pointwise_cost("fc", inputs[-1], self.bins)]
