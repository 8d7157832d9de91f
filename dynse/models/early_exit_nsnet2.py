"""nsNet2 with exits: a gain after fc1, gru1, gru2, fc2 and the whole net, or some of these.

Miccini et al., "Dynamic nsNet2: efficient deep noise suppression with early exiting", MLSP 2023,
arXiv 2308.16678. The layers are those of `NsNet2`, and so are their parameters' names; with s one
of its stages there may be

    head_s      the exit's head (`fc4` for the whole net)
    side_s      the layer that feeds it alone, where the flow is split (`dynse.exits.heads`)

A layer that no exit needs is not there: with one exit this is the net of that stage alone, with
"full" as the one exit it is `NsNet2`.

    net = EarlyExitNsNet2()                              all exits' gains at once, in `Aux.exits`
    net.clone(exit_index=1)                              the program of one exit
    EarlyExit(net, Budget())                             an exit per frame (`dynse.exits`)
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.exits.heads import AllExits, ExitHead, split_widths
from dynse.layers.conv import Pointwise, pointwise_cost
from dynse.layers.cost import LayerCost
from dynse.layers.gru import GRU, gru_cost
from dynse.models.network import Aux
from dynse.models.nsnet2 import NsNet2, floor_gain

EXITS = ("fc1", "gru1", "gru2", "fc2", "full")
# Each exit's stage: the whole net is what its last hidden layer gives to its head.
STAGES = {"fc1": "fc1", "gru1": "gru1", "gru2": "gru2", "fc2": "fc2", "fc3": "full"}

State = dict[str, jax.Array]


class Layer(NamedTuple):
    """One layer: its name, the layer it reads, widths, and "dense", "gru" or "head"."""

    name: str
    reads: str
    in_features: int
    features: int
    kind: str


class EarlyExitNsNet2(NsNet2):
    """The network: magnitudes (B, T, bins) in, gain (B, T, bins) in 0 to 1 out. Causal.

    Attributes:
        exits: any of "fc1", "gru1", "gru2", "fc2", "full", in this order; the last one's gain is
            the output.
        split: of the information flow at each exit but the last: "none", "duplicate", "divide".
        fraction: of a divided stage's units that feed the head; a quarter is ours.
        exit_index: the exit of a program that computes no other; None computes all.
    """

    exits: tuple[str, ...] = ("fc1", "gru1", "gru2", "full")
    split: Literal["none", "duplicate", "divide"] = "none"
    fraction: float = 0.25
    exit_index: int | None = None

    def setup(self) -> None:
        self.setup_features()
        kinds = {"dense": Pointwise, "gru": GRU, "head": ExitHead}
        self.layers = {
            layer.name: kinds[layer.kind](layer.features, name=layer.name)
            for layer in self._running()
        }

    @nn.nowrap
    def _layers(self) -> tuple[list[Layer], list[str]]:
        """All layers, each behind the one it reads, and the names of the exits' heads.

        Raises:
            ValueError: on exits that are unknown, out of order, or none.
        """
        if not self.exits or tuple(self.exits) != tuple(e for e in EXITS if e in self.exits):
            raise ValueError(
                f"exits must be some of {', '.join(EXITS)}, in this order; got {self.exits}"
            )
        widths = dict(zip(STAGES, (self.first, *2 * [self.hidden], *2 * [self.wide]), strict=True))
        layers, heads = [], []
        reads, in_features = "features", self.bins
        for stage, own_exit in STAGES.items():
            kind = "gru" if stage.startswith("gru") else "dense"
            here, last = own_exit in self.exits, own_exit == self.exits[-1]
            split = self.split if here and not last else "none"
            width, side = split_widths(widths[stage], split, self.fraction)
            layers.append(Layer(stage, reads, in_features, width, kind))
            if side:
                layers.append(Layer(f"side_{stage}", reads, in_features, side, kind))
            if here:
                heads.append("fc4" if own_exit == "full" else f"head_{stage}")
                read = (f"side_{stage}", side) if side else (stage, width)
                layers.append(Layer(heads[-1], *read, self.bins, "head"))
            if last:
                break
            reads, in_features = stage, width
        return layers, heads

    @nn.nowrap
    def _running(self) -> list[Layer]:
        """The layers that the exits to be computed need.

        Raises:
            ValueError: on an exit that is not there.
        """
        layers, heads = self._layers()
        if self.exit_index is None:
            return layers
        if not 0 <= self.exit_index < len(heads):
            raise ValueError(
                f"expected an exit_index of {len(heads)} exits or None, got {self.exit_index}"
            )
        return _needed(layers, {heads[self.exit_index]})

    def __call__(
        self,
        frames: jax.Array,
        state: State | None = None,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[State, jax.Array, Aux]:
        """Gains of a block of frames.

        Args:
            frames: magnitudes (B, T, bins), T >= 1.
            state: from `init_state` or the call before; None starts anew. One fixed exit leaves
                the state of layers that it does not need as it is.
            train: leave the gain floor out.
            key: not used, nothing is drawn; the train step hands one to every network.

        Returns:
            The next state, the last exit's gain (B, T, bins) and `Aux` with every exit's.

        Raises:
            ValueError: on a wrong number of bins.
        """
        state, gains, *_ = self.all_exits(frames, state, train=train)
        return state, gains[-1], Aux((), (), gains)

    def all_exits(
        self, frames: jax.Array, state: State | None = None, *, train: bool = False
    ) -> AllExits:
        """Arguments as of a call; the features are fc1's output."""
        state = self.init_state(frames.shape[0]) if state is None else dict(state)
        values = {"features": self.log_features(frames)}
        gains = []
        for layer in self._running():
            module, x = self.layers[layer.name], values[layer.reads]
            if layer.kind == "head":
                gain = module(x)
                gains.append(gain if train else floor_gain(gain, self.gain_floor_db))
            elif layer.kind == "gru":
                state[layer.name], values[layer.name] = module(state[layer.name], x)
            else:
                y = module(x)
                linear = layer.name.endswith("fc1") and not self.first_relu
                values[layer.name] = y if linear else nn.relu(y)
        return AllExits(state, tuple(gains), values.get("fc1", values["features"]))

    @property
    def policy_features(self) -> int:
        """Width of what an exit policy may see before its decision: of fc1's output."""
        return self._layers()[0][0].features

    @nn.nowrap
    def init_state(self, batch_size: int) -> State:
        """State before the first frame: every GRU's h (B, H) by its name, zeros."""
        return {
            layer.name: jnp.zeros((batch_size, layer.features))
            for layer in self._layers()[0]
            if layer.kind == "gru"
        }

    @property
    def receptive_field_frames(self) -> int | None:
        """None where a GRU runs, which never forgets; else 0."""
        return None if any(layer.kind == "gru" for layer in self._running()) else 0

    @nn.nowrap
    def cost(self) -> list[LayerCost]:
        """Costs of the layers that run, per frame: of all of them, or of the fixed exit's."""
        return [_cost(layer) for layer in self._running()]

    @nn.nowrap
    def memory_cost(self) -> list[LayerCost]:
        """Costs of the GRUs and of the layers they need."""
        layers = self._running()
        grus = {layer.name for layer in layers if layer.kind == "gru"}
        return [_cost(layer) for layer in _needed(layers, grus)]


def _needed(layers: list[Layer], names: Collection[str]) -> list[Layer]:
    """The layers of these names and all that they read, directly or not."""
    wanted, found = set(names), []
    for layer in reversed(layers):
        if layer.name in wanted:
            wanted.add(layer.reads)
            found.append(layer)
    return found[::-1]


def _cost(layer: Layer) -> LayerCost:
    cost = gru_cost if layer.kind == "gru" else pointwise_cost
    return cost(layer.name, layer.in_features, layer.features)
