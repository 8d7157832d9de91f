"""The nets that a run can train: one frozen configuration for each kind.

A configuration builds its network for spectra of so many bins, and says which further loss its
training needs. `kind` tells the configurations apart where one is read back from JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Literal

import flax.linen as nn
import jax

from dynse.exits import exit_weights, phase_layers
from dynse.layers.cost import total_params
from dynse.models.controlled import ControlledNet, GateControl
from dynse.models.conv_fsenet import ConvFSENet, GateConfig
from dynse.models.early_exit_nsnet2 import EarlyExitNsNet2
from dynse.models.fdnn import FDNN
from dynse.models.gcrn import GCRN
from dynse.models.lstm import LSTMMapping
from dynse.models.nsnet2 import NsNet2
from dynse.models.tcnn import TCNN
from dynse.training.exits import ExitLoss
from dynse.training.gates import GateLoss, GateTraining
from dynse.training.probes import ProbeLoss, ProbeTraining
from dynse.training.step import ExtraLoss, NoExtraLoss

# Path and activation of each layer; a recurrent layer has none.
Chain = list[tuple[str, Callable[[jax.Array], jax.Array] | None]]


class TrainedWhole:
    """A net all of whose layers are trained at once, by the loss of its one output."""

    phase = 0

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """Of the spectral losses of its exits, the output last, whose own is 1."""
        return (1.0,)

    def extra_loss(self, steps: int) -> ExtraLoss:
        """None."""
        return NoExtraLoss()

    def trained_layers(self, bins: int) -> Collection[str] | None:
        """Paths of the layers that train; None for all."""
        return None


@dataclasses.dataclass(frozen=True)
class ConvFSENetConfig(TrainedWhole):
    """A Conv-FSENet, and how its gates are trained.

    Attributes:
        width: residual width B.
        inner: inner width H.
        stacks: stacks of blocks.
        blocks: blocks per stack.
        block: kind of block, "quantization_friendly" or "original".
        features: "compressed" or "magnitude".
        dropout_rate: of the original block.
        causal: else it sees as far ahead as back.
        gate: the gates, None for a static net.
        gate_training: how the gates are trained; needed where there are gates of its own.
        probe_training: probes that the gates, or the last hidden layer, are trained with in view;
            None for none.
        control: what stands in place of the gates, from the first step on; None for nothing.
    """

    width: int = 128
    inner: int = 256
    stacks: int = 3
    blocks: int = 3
    block: str = "quantization_friendly"
    features: str = "compressed"
    dropout_rate: float = 0.0
    causal: bool = True
    gate: GateConfig | None = None
    gate_training: GateTraining | None = None
    probe_training: ProbeTraining | None = None
    control: GateControl | None = None
    kind: Literal["conv_fsenet"] = "conv_fsenet"

    def __post_init__(self) -> None:
        if self.control and (self.gate is None or self.gate_training):
            raise ValueError("a control needs gates to replace, and no training of them")
        if not self.control and (self.gate is None) != (self.gate_training is None):
            raise ValueError("gate and gate_training belong together: give both or none")
        if self.probe_training and self.probe_training.reads != "hidden" and not self.gate_training:
            raise ValueError("probes need gates that are trained, or reads='hidden'")
        training = self.gate_training
        if training and self.gate.surrogate == "gumbel_sigmoid" and training.score_noise <= 0:
            raise ValueError("surrogate gumbel_sigmoid needs score_noise > 0 (usually 1)")

    def build(self, bins: int) -> ConvFSENet | ControlledNet:
        """The network for spectra of so many bins."""
        net = ConvFSENet(
            bins=bins,
            width=self.width,
            inner=self.inner,
            stacks=self.stacks,
            blocks=self.blocks,
            block=self.block,
            features=self.features,
            dropout_rate=self.dropout_rate,
            gate=self.gate,
            causal=self.causal,
        )
        return ControlledNet(net, self.control) if self.control else net

    def extra_loss(self, steps: int) -> ExtraLoss:
        """The gates' loss over a run of so many steps, or none."""
        loss = GateLoss(self.gate_training, steps) if self.gate_training else NoExtraLoss()
        if self.probe_training is None:
            return loss
        channels = 0
        if self.probe_training.reads != "hidden":
            per_block = self.inner if self.gate.site == "inner" else self.width
            channels += per_block * self.stacks * self.blocks
        if self.probe_training.reads != "gates":
            channels += self.width
        return ProbeLoss(self.probe_training, channels, loss)


@dataclasses.dataclass(frozen=True)
class NsNet2Config(TrainedWhole):
    """An nsNet2 with features standardised by the training data (the paper's).

    Attributes:
        first: width of the first dense layer.
        hidden: width of both GRUs.
        wide: width of the two dense layers after them.
        first_relu: a ReLU after the first dense layer.
    """

    first: int = 400
    hidden: int = 400
    wide: int = 600
    first_relu: bool = True
    kind: Literal["nsnet2"] = "nsnet2"

    def build(self, bins: int) -> NsNet2:
        """The network for spectra of so many bins."""
        return NsNet2(
            bins=bins,
            first=self.first,
            hidden=self.hidden,
            wide=self.wide,
            first_relu=self.first_relu,
        )


@dataclasses.dataclass(frozen=True)
class EarlyExitNsNet2Config(NsNet2Config):
    """An nsNet2 with exits, trained jointly, or the program of one of them.

    Attributes:
        exits: any of "fc1", "gru1", "gru2", "fc2", "full"; with one, that stage's net alone.
        split: of the information flow, "none", "duplicate" or "divide".
        fraction: of a divided stage's units that feed the head.
        exit_weights: of the exits' losses, "equal" or "growing".
        exit_index: the exit of a phase of layer-wise training; None trains all jointly.
        moving: layers of earlier phases go on training; else they are frozen.
    """

    exits: tuple[str, ...] = ("fc1", "gru1", "gru2", "full")
    split: str = "none"
    fraction: float = 0.25
    exit_weights: str = "equal"
    exit_index: int | None = None
    moving: bool = False
    kind: Literal["early_exit_nsnet2"] = "early_exit_nsnet2"

    @property
    def phase(self) -> int:
        """Number of the phase of layer-wise training."""
        return self.exit_index or 0

    def build(self, bins: int) -> EarlyExitNsNet2:
        """The network for spectra of so many bins."""
        return EarlyExitNsNet2(
            bins=bins,
            first=self.first,
            hidden=self.hidden,
            wide=self.wide,
            first_relu=self.first_relu,
            exits=self.exits,
            split=self.split,
            fraction=self.fraction,
            exit_index=self.exit_index,
        )

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """Of all exits; (1,) where one is trained alone."""
        count = len(self.exits) if self.exit_index is None else 1
        return exit_weights(count, self.exit_weights)

    def trained_layers(self, bins: int) -> Collection[str] | None:
        """Those of the phase; None where it trains all that it needs, or all exits are trained."""
        if not self.exit_index or self.moving:
            return None
        programs = (self.build(bins).clone(exit_index=index) for index in range(len(self.exits)))
        needed = [{cost.path for cost in program.cost()} for program in programs]
        return phase_layers(needed, self.exit_index)

    def extra_loss(self, steps: int) -> ExtraLoss:
        """The losses of the exits before the last; none where one exit is trained alone."""
        return ExitLoss(self.loss_weights, super().extra_loss(steps))


@dataclasses.dataclass(frozen=True)
class EarlyExitConvFSENetConfig(ConvFSENetConfig):
    """A Conv-FSENet with exits, and gates or not, trained jointly.

    Attributes:
        exits: rising indices of the blocks behind which an exit sits, the last block among them.
        exit_weights: of the exits' losses, "equal" or "growing".
    """

    exits: tuple[int, ...] = (2, 5, 8)
    exit_weights: str = "equal"
    kind: Literal["early_exit_conv_fsenet"] = "early_exit_conv_fsenet"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.exits:
            raise ValueError("expected exits, got none")
        if self.control:
            raise ValueError("a control replaces the gates of a network without exits")

    def build(self, bins: int) -> ConvFSENet:
        """The network for spectra of so many bins."""
        return super().build(bins).clone(exits=self.exits)

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """Of all exits."""
        return exit_weights(len(self.exits), self.exit_weights)

    def extra_loss(self, steps: int) -> ExtraLoss:
        """The losses of the exits before the last, and that of the gates."""
        return ExitLoss(self.loss_weights, super().extra_loss(steps))


@dataclasses.dataclass(frozen=True)
class FDNNConfig(TrainedWhole):
    """An FDNN.

    Attributes:
        hidden: width of each hidden layer.
    """

    hidden: tuple[int, ...] = (2048, 2048, 2048)
    kind: Literal["fdnn"] = "fdnn"

    def build(self, bins: int) -> FDNN:
        """The network for spectra of so many bins."""
        return FDNN(bins=bins, hidden=self.hidden)

    @property
    def chain(self) -> Chain:
        """Path and activation of each layer, each reading the one before alone."""
        names = [f"fc{index + 1}" for index in range(len(self.hidden) + 1)]
        return [*((name, nn.relu) for name in names[:-1]), (names[-1], nn.sigmoid)]


@dataclasses.dataclass(frozen=True)
class LSTMConfig(TrainedWhole):
    """An LSTM that maps magnitudes to magnitudes.

    Attributes:
        hidden: width of each LSTM.
    """

    hidden: tuple[int, ...] = (1024, 1024, 1024, 1024)
    kind: Literal["lstm"] = "lstm"

    def build(self, bins: int) -> LSTMMapping:
        """The network for spectra of so many bins."""
        return LSTMMapping(bins=bins, hidden=self.hidden)

    @property
    def chain(self) -> Chain:
        """Path and activation of each layer, each reading the one before alone."""
        return [*((f"lstm{index + 1}", None) for index in range(len(self.hidden))), ("fc", nn.relu)]


@dataclasses.dataclass(frozen=True)
class TCNNConfig(TrainedWhole):
    """A TCNN, whose frames of samples are as long as the DFT of so many bins.

    Attributes:
        channels: of each encoder.
        inner: inner width of the residual blocks.
        stacks: of residual blocks.
        blocks: residual blocks per stack.
        dropout_rate: of the skips.
    """

    channels: tuple[int, ...] = (16, 16, 16, 32, 32, 64, 64)
    inner: int = 512
    stacks: int = 3
    blocks: int = 6
    dropout_rate: float = 0.3
    kind: Literal["tcnn"] = "tcnn"

    def build(self, bins: int) -> TCNN:
        """The network in the place of one for spectra of so many bins."""
        return TCNN(
            frame_length=2 * (bins - 1),
            channels=self.channels,
            inner=self.inner,
            stacks=self.stacks,
            blocks=self.blocks,
            dropout_rate=self.dropout_rate,
        )


@dataclasses.dataclass(frozen=True)
class GCRNConfig(TrainedWhole):
    """A GCRN.

    Attributes:
        channels: of each encoder.
        groups: of both LSTMs.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    groups: int = 2
    kind: Literal["gcrn"] = "gcrn"

    def build(self, bins: int) -> GCRN:
        """The network for spectra of so many bins."""
        return GCRN(bins=bins, channels=self.channels, groups=self.groups)


NetConfig = ConvFSENetConfig | NsNet2Config | FDNNConfig | LSTMConfig | TCNNConfig | GCRNConfig
NETS = {
    "conv_fsenet": ConvFSENetConfig,
    "nsnet2": NsNet2Config,
    "early_exit_nsnet2": EarlyExitNsNet2Config,
    "early_exit_conv_fsenet": EarlyExitConvFSENetConfig,
    "fdnn": FDNNConfig,
    "lstm": LSTMConfig,
    "tcnn": TCNNConfig,
    "gcrn": GCRNConfig,
}

# Fields that are widths, of any of the nets.
WIDTHS = ("channels", "first", "hidden", "inner", "wide", "width")


def narrowed(net: NetConfig, share: float) -> NetConfig:
    """The net with this share of every layer's width, rounded, at least 1.

    Widths that must be divisible by a number of groups are rounded to its multiples.
    """
    multiple = getattr(net, "groups", 1)

    def scaled(width: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(width, tuple):
            return tuple(map(scaled, width))
        return multiple * max(1, round(share * width / multiple))

    present = {field.name for field in dataclasses.fields(net)}
    changes = {name: scaled(getattr(net, name)) for name in WIDTHS if name in present}
    return dataclasses.replace(net, **changes)


def net_of_size(net: NetConfig, bins: int, parameters: int) -> NetConfig:
    """The widest `narrowed` net of at most so many parameters; the narrowest, where that has more.

    Args:
        net: the widest.
        bins: of the spectra.
        parameters: most of them.
    """

    def size(share: float) -> int:
        return total_params(narrowed(net, share).build(bins).cost())

    if size(1) <= parameters:
        return net
    low, high = 0.0, 1.0
    # To a share that moves no width of a few thousand by one.
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) <= parameters else (low, middle)
    return narrowed(net, low)
