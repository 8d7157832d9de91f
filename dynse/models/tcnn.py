"""TCNN, a temporal convolutional network from frames of samples to frames of samples.

    e_i = prelu(norm(conv(e_(i-1))))                        e_0: the noisy samples of a frame
    h = e_7;  h <- h + f(h) for every block                 f: 1x1 - depthwise, dilated - 1x1
    d_7 = h;  d_(i-1) = prelu(norm(deconv([d_i, e_i])))     d_0, linear: the clean samples

Pandey and Wang, "TCNN: temporal convolutional neural network for real-time speech enhancement in
the time domain", ICASSP 2019. Frames are rectangular and overlap by half; the convolutions lie
over time (2 frames) and the samples of a frame, which stand where other networks have frequencies.
Ours: the last layer has neither norm nor PReLU.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.audio.sample_frames import SampleFrames
from dynse.audio.stft import STFT
from dynse.layers.activation import PReLU, dropout, prelu_cost
from dynse.layers.conv import Depthwise, Pointwise, depthwise_cost, pointwise_cost
from dynse.layers.conv2d import (
    Conv2d,
    Deconv2d,
    conv2d_cost,
    conv_width,
    deconv2d_cost,
    deconv_width,
)
from dynse.layers.cost import LayerCost
from dynse.layers.norm import BatchNorm, batch_norm_cost
from dynse.models.network import Aux, Network

TAPS = (2, 5)
BLOCK_TAPS = 3


class State(NamedTuple):
    """Past input frames of every convolution over time.

    Attributes:
        encoders: (B, 1, F, C) each.
        blocks: (B, 2 dilation, inner) each.
        decoders: (B, 1, F, C) each, in the order of the encoders that they mirror.
    """

    encoders: tuple[jax.Array, ...]
    blocks: tuple[jax.Array, ...]
    decoders: tuple[jax.Array, ...]


class Encoder(nn.Module):
    """Convolution, norm, PReLU."""

    features: int
    stride: int
    padding: int

    @nn.compact
    def __call__(
        self, state: jax.Array, x: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """State (B, 1, F, C) and x (B, T, F, C) -> next state and y (B, T, F', D)."""
        conv = Conv2d(self.features, TAPS, self.stride, self.padding, name="conv")
        state, y = conv(state, x)
        return state, PReLU(name="prelu")(BatchNorm(name="norm")(y, train=train))


class Block(nn.Module):
    """Residual block: 1x1 - PReLU - norm - depthwise - PReLU - norm - 1x1, and the input."""

    inner: int
    dilation: int

    @nn.compact
    def __call__(
        self, state: jax.Array, x: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """State (B, 2 dilation, inner) and x (B, T, C) -> next state and y (B, T, C)."""
        y = PReLU(name="prelu1")(Pointwise(self.inner, name="conv1")(x))
        depthwise = Depthwise(BLOCK_TAPS, self.dilation, use_bias=True, name="depthwise")
        state, y = depthwise(state, BatchNorm(name="norm1")(y, train=train))
        y = BatchNorm(name="norm2")(PReLU(name="prelu2")(y), train=train)
        return state, x + Pointwise(x.shape[-1], name="conv2")(y)


class Decoder(nn.Module):
    """Transposed convolution, and norm and PReLU unless it is the last."""

    features: int
    stride: int
    padding: int
    output_padding: int
    last: bool

    @nn.compact
    def __call__(
        self, state: jax.Array, x: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """State (B, 1, F, C) and x (B, T, F, C) -> next state and y (B, T, F', D)."""
        shape = (self.features, TAPS, self.stride, self.padding, self.output_padding)
        state, y = Deconv2d(*shape, name="deconv")(state, x)
        if self.last:
            return state, y
        return state, PReLU(name="prelu")(BatchNorm(name="norm")(y, train=train))


class TCNN(Network):
    """The network: frames of samples (B, T, frame_length) in and out. Causal.

    Attributes:
        frame_length: samples of a frame.
        channels: of each encoder.
        inner: inner width of the residual blocks.
        stacks: how often the dilations 1, 2, 4, ... restart.
        blocks: residual blocks per stack.
        dropout_rate: of the skips, in training.
    """

    frame_length: int = 320
    channels: tuple[int, ...] = (16, 16, 16, 32, 32, 64, 64)
    inner: int = 512
    stacks: int = 3
    blocks: int = 6
    dropout_rate: float = 0.3

    def setup(self) -> None:
        if self.widths[-1] < 1:
            raise ValueError(
                f"frames of {self.frame_length} are too short for {len(self.channels)} encoders"
            )
        self.encoders = [
            Encoder(width, *_stride_and_padding(index), name=f"encoder{index}")
            for index, width in enumerate(self.channels)
        ]
        self.tcm = [
            Block(self.inner, dilation, name=f"block{index}")
            for index, dilation in enumerate(self.dilations)
        ]
        self.decoders = [
            Decoder(
                width,
                *_stride_and_padding(index),
                self._output_padding(index),
                index == 0,
                name=f"decoder{index}",
            )
            for index, width in enumerate((1, *self.channels[:-1]))
        ]

    @property
    def widths(self) -> tuple[int, ...]:
        """Samples of a frame before each encoder, and what is left of them behind the last."""
        widths = [self.frame_length]
        for index in range(len(self.channels)):
            widths.append(conv_width(widths[-1], TAPS[1], *_stride_and_padding(index)))
        return tuple(widths)

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of each residual block."""
        return tuple(2**index for index in range(self.blocks)) * self.stacks

    @nn.nowrap
    def _output_padding(self, index: int) -> int:
        """What a decoder's output lacks to the width before the encoder of this index."""
        natural = deconv_width(self.widths[index + 1], TAPS[1], *_stride_and_padding(index))
        return self.widths[index] - natural

    def __call__(
        self,
        frames: jax.Array,
        state: State | None = None,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[State, jax.Array, Aux]:
        """Enhanced samples of a block of frames.

        Args:
            frames: noisy samples (B, T, frame_length), T >= 1.
            state: from `init_state` or the call before; None starts anew.
            train: normalise by the batch and update the running statistics
                (`mutable=["batch_stats"]`).
            key: for dropout; without it there is none.

        Returns:
            The next state, samples (B, T, frame_length) and `Aux`, empty.

        Raises:
            ValueError: on frames of another length, or too short for so many encoders.
        """
        if frames.ndim != 3 or frames.shape[2:] != self.frame_shape:
            raise ValueError(f"expected frames (B, T, {self.frame_length}), got {frames.shape}")
        state = self.init_state(frames.shape[0]) if state is None else state
        x, encoded, encoders = frames[..., None], [], []
        for encoder, before in zip(self.encoders, state.encoders, strict=True):
            after, x = encoder(before, x, train=train)
            encoders.append(after)
            encoded.append(x)

        shape, blocks = x.shape, []
        x = x.reshape(*shape[:2], -1)
        for block, before in zip(self.tcm, state.blocks, strict=True):
            after, x = block(before, x, train=train)
            blocks.append(after)
        x = x.reshape(shape)

        decoders = [*state.decoders]
        for index in range(len(self.channels) - 1, -1, -1):
            drop_key = None if key is None else jax.random.fold_in(key, index)
            skip = dropout(encoded[index], self.dropout_rate, drop_key)
            x = jnp.concatenate([x, skip], axis=-1)
            decoders[index], x = self.decoders[index](decoders[index], x, train=train)
        after = State(tuple(encoders), tuple(blocks), tuple(decoders))
        return after, x[..., 0], Aux((), ())

    @nn.nowrap
    def init_state(self, batch_size: int) -> State:
        """State before the first frame, zeros."""

        def past(width: int, channels: int) -> jax.Array:
            return jnp.zeros((batch_size, TAPS[0] - 1, width, channels))

        inputs = (1, *self.channels[:-1])
        return State(
            tuple(map(past, self.widths[:-1], inputs)),
            tuple(
                jnp.zeros((batch_size, (BLOCK_TAPS - 1) * dilation, self.inner))
                for dilation in self.dilations
            ),
            tuple(map(past, self.widths[1:], (2 * width for width in self.channels))),
        )

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame of input."""
        return (self.frame_length,)

    @nn.nowrap
    def transform(self, stft: STFT) -> SampleFrames:
        """What takes waveforms to what `inputs` sees, and back: frames of the STFT's timing."""
        return SampleFrames(stft.win_length, stft.hop_length)

    @nn.nowrap
    def inputs(self, samples: jax.Array) -> jax.Array:
        """Frames (B, T, frame_length), as they are."""
        return samples

    @nn.nowrap
    def estimate(self, samples: jax.Array, output: jax.Array) -> jax.Array:
        """Enhanced frames: the network's output."""
        return output

    @nn.nowrap
    def target(self, clean: jax.Array, noisy: jax.Array) -> jax.Array:
        """What the output is trained towards: the clean frames."""
        return clean

    @property
    def receptive_field_frames(self) -> int:
        """Past frames that an output depends on, the present one not counted."""
        return 2 * len(self.channels) * (TAPS[0] - 1) + (BLOCK_TAPS - 1) * sum(self.dilations)

    @nn.nowrap
    def cost(self) -> list[LayerCost]:
        """Costs of all layers, per frame."""
        channels, widths, costs = (1, *self.channels), self.widths, []
        for index, width in enumerate(self.channels):
            path = f"encoder{index}"
            costs += [
                conv2d_cost(
                    f"{path}/conv", TAPS, channels[index], width, outputs=widths[index + 1]
                ),
                batch_norm_cost(f"{path}/norm", width),
                prelu_cost(f"{path}/prelu"),
            ]
        features, inner = channels[-1] * widths[-1], self.inner
        for index in range(len(self.dilations)):
            path = f"block{index}"
            costs += [
                pointwise_cost(f"{path}/conv1", features, inner),
                prelu_cost(f"{path}/prelu1"),
                batch_norm_cost(f"{path}/norm1", inner),
                depthwise_cost(f"{path}/depthwise", BLOCK_TAPS, inner, use_bias=True),
                prelu_cost(f"{path}/prelu2"),
                batch_norm_cost(f"{path}/norm2", inner),
                pointwise_cost(f"{path}/conv2", inner, features),
            ]
        for index in range(len(self.channels) - 1, -1, -1):
            path, width = f"decoder{index}", channels[index]
            costs.append(
                deconv2d_cost(
                    f"{path}/deconv",
                    TAPS,
                    2 * channels[index + 1],
                    width,
                    inputs=widths[index + 1],
                    outputs=widths[index],
                )
            )
            if index:
                costs += [batch_norm_cost(f"{path}/norm", width), prelu_cost(f"{path}/prelu")]
        return costs


def _stride_and_padding(index: int) -> tuple[int, int]:
    """Of the encoder of this index, and of the decoder that mirrors it."""
    return (1, 2) if index == 0 else (2, 2) if index == 1 else (2, 1)
