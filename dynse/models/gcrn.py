"""GCRN, a gated convolutional recurrent network that maps a complex spectrum to the clean one.

    e_i = elu(norm(glu_conv(e_(i-1))))                           e_0: real and imaginary part of X
    h = norm(lstm2(norm(lstm1(e_5))))                            both in groups
    d_5 = [h, e_5];  d_(i-1) = elu([norm(glu_deconv(d_i)), e_(i-1)])     once for each part of S^
    real part of S^ = fc(elu(norm(glu_deconv(d_1)))), the imaginary one likewise

Tan and Wang, "Learning complex spectral mapping with gated convolutional recurrent networks for
monaural speech enhancement", IEEE/ACM TASLP 28:380-390, 2020. The kernels lie over frequency
alone, so the LSTMs are all that has a state.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.audio.stft import STFT
from dynse.layers.conv import Pointwise, pointwise_cost
from dynse.layers.conv2d import (
    GLU,
    Conv2d,
    Deconv2d,
    conv2d_cost,
    conv_width,
    deconv2d_cost,
    deconv_width,
)
from dynse.layers.cost import LayerCost
from dynse.layers.grouped_lstm import GroupedLSTM, grouped_lstm_costs
from dynse.layers.layer_norm import LayerNorm, layer_norm_cost
from dynse.layers.lstm import State as LSTMState
from dynse.layers.norm import BatchNorm, batch_norm_cost
from dynse.models.network import Aux, Network

TAPS, STRIDE = (1, 3), 2
PARTS = ("real", "imag")

# Of both layers, (h, c) of each group.
State = tuple[tuple[LSTMState, ...], tuple[LSTMState, ...]]


class Encoder(nn.Module):
    """Gated convolution, norm, ELU."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, T, F, C) -> (B, T, F', D)."""
        conv = functools.partial(Conv2d, self.features, TAPS, STRIDE)
        _, y = GLU(conv, name="conv")(None, x)
        return nn.elu(BatchNorm(name="norm")(y, train=train))


class Decoder(nn.Module):
    """Gated transposed convolution and norm; the ELU comes behind the skip."""

    features: int
    output_padding: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(B, T, F, C) -> (B, T, F', D)."""
        deconv = functools.partial(
            Deconv2d, self.features, TAPS, STRIDE, output_padding=self.output_padding
        )
        _, y = GLU(deconv, name="deconv")(None, x)
        return BatchNorm(name="norm")(y, train=train)


class GCRN(Network):
    """The network: frames (B, T, bins, 2) in, (B, T, bins, 2) out, real and imaginary. Causal.

    Attributes:
        bins: frequency bins F.
        channels: of each encoder.
        groups: of both LSTMs.
    """

    bins: int = 161
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    groups: int = 2

    def setup(self) -> None:
        channels, widths = (1, *self.channels), self.widths
        if widths[-1] < 1:
            raise ValueError(f"{self.bins} bins are too few for {len(self.channels)} encoders")
        self.encoders = [
            Encoder(width, name=f"encoder{index}") for index, width in enumerate(self.channels)
        ]
        self.lstm1 = GroupedLSTM(self.lstm_features, self.groups, interleave=True)
        self.lstm2 = GroupedLSTM(self.lstm_features, self.groups)
        self.norm1, self.norm2 = LayerNorm(), LayerNorm()
        self.decoders = {
            part: [
                Decoder(channels[index], self._output_padding(index), name=f"{part}{index}")
                for index in range(len(self.channels))
            ]
            for part in PARTS
        }
        self.fcs = {part: Pointwise(self.bins, name=f"{part}_fc") for part in PARTS}

    @property
    def widths(self) -> tuple[int, ...]:
        """Frequencies before each encoder, and behind the last."""
        widths = [self.bins]
        for _ in self.channels:
            widths.append(conv_width(widths[-1], TAPS[1], STRIDE))
        return tuple(widths)

    @nn.nowrap
    def _output_padding(self, index: int) -> int:
        """What a decoder's output lacks to the width before the encoder of this index."""
        return self.widths[index] - deconv_width(self.widths[index + 1], TAPS[1], STRIDE)

    @property
    def lstm_features(self) -> int:
        """What the last encoder gives a frame."""
        return self.channels[-1] * self.widths[-1]

    def __call__(
        self,
        frames: jax.Array,
        state: State | None = None,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[State, jax.Array, Aux]:
        """Spectra of a block of frames.

        Args:
            frames: real and imaginary parts (B, T, bins, 2), T >= 1.
            state: from `init_state` or the call before; None starts anew.
            train: normalise by the batch and update the running statistics
                (`mutable=["batch_stats"]`).
            key: not used, nothing is drawn; the train step hands one to every network.

        Returns:
            The next state, real and imaginary parts (B, T, bins, 2) and `Aux`, empty.

        Raises:
            ValueError: on a wrong number of bins, too few of them, or groups that do not divide
                the LSTM's features.
        """
        if frames.ndim != 4 or frames.shape[2:] != self.frame_shape:
            raise ValueError(f"expected frames (B, T, {self.bins}, 2), got {frames.shape}")
        state1, state2 = self.init_state(frames.shape[0]) if state is None else state
        x, encoded = frames, []
        for encoder in self.encoders:
            x = encoder(x, train=train)
            encoded.append(x)
        # Channel by channel, all frequencies of one side by side: a group hears half the channels.
        h = x.swapaxes(2, 3).reshape(*x.shape[:2], -1)
        state1, h = self.lstm1(state1, h)
        state2, h = self.lstm2(state2, self.norm1(h))
        h = self.norm2(h).reshape(*x.shape[:2], x.shape[3], x.shape[2]).swapaxes(2, 3)
        both = jnp.concatenate([h, x], axis=-1)
        parts = [self._decode(part, both, encoded, train) for part in PARTS]
        return (state1, state2), jnp.stack(parts, axis=-1), Aux((), ())

    def _decode(self, part: str, x: jax.Array, encoded: list[jax.Array], train: bool) -> jax.Array:
        """One part of the spectrum (B, T, bins)."""
        for index in range(len(encoded) - 1, 0, -1):
            y = self.decoders[part][index](x, train=train)
            x = nn.elu(jnp.concatenate([y, encoded[index - 1]], axis=-1))
        return self.fcs[part](nn.elu(self.decoders[part][0](x, train=train))[..., 0])

    @nn.nowrap
    def init_state(self, batch_size: int) -> State:
        """State before the first frame, zeros."""
        lstm = GroupedLSTM(self.lstm_features, self.groups, parent=None)
        return lstm.init_state(batch_size), lstm.init_state(batch_size)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame of input."""
        return (self.bins, 2)

    @nn.nowrap
    def transform(self, stft: STFT) -> STFT:
        """What takes waveforms to what `inputs` sees, and back."""
        return stft

    @nn.nowrap
    def inputs(self, spectrum: jax.Array) -> jax.Array:
        """Frames (B, T, bins, 2) of a noisy spectrum (B, T, bins)."""
        return jnp.stack([spectrum.real, spectrum.imag], axis=-1)

    @nn.nowrap
    def estimate(self, spectrum: jax.Array, output: jax.Array) -> jax.Array:
        """Enhanced spectrum, from the network's output alone."""
        return jax.lax.complex(output[..., 0], output[..., 1])

    @nn.nowrap
    def target(self, clean: jax.Array, noisy: jax.Array) -> jax.Array:
        """What the output is trained towards: the parts of the clean spectrum."""
        return self.inputs(clean)

    @property
    def receptive_field_frames(self) -> None:
        """None: a recurrent network never forgets."""
        return None

    @nn.nowrap
    def cost(self) -> list[LayerCost]:
        """Costs of all layers, per frame."""
        channels, widths = (2, *self.channels), self.widths
        features, costs = self.lstm_features, []
        for index, width in enumerate(self.channels):
            path = f"encoder{index}"
            costs += [
                conv2d_cost(
                    f"{path}/conv/{half}", TAPS, channels[index], width, outputs=widths[index + 1]
                )
                for half in ("linear", "sigmoid")
            ]
            costs.append(batch_norm_cost(f"{path}/norm", width))
        for name in "12":
            costs += grouped_lstm_costs(f"lstm{name}", features, features, self.groups)
            costs.append(layer_norm_cost(f"norm{name}", features))
        for part in PARTS:
            for index in range(len(self.channels) - 1, -1, -1):
                path, width = f"{part}{index}", channels[index] if index else 1
                costs += [
                    deconv2d_cost(
                        f"{path}/deconv/{half}",
                        TAPS,
                        2 * channels[index + 1],
                        width,
                        inputs=widths[index + 1],
                        outputs=widths[index],
                    )
                    for half in ("linear", "sigmoid")
                ]
                costs.append(batch_norm_cost(f"{path}/norm", width))
            costs.append(pointwise_cost(f"{part}_fc", self.bins, self.bins))
        return costs
