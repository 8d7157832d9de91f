"""A block of a temporal convolutional network, whose channels a gate switches per frame.

    y = x + g * f(x)        f: 1x1 - dilated depthwise - 1x1

The gate g is computed from the block's input, or the first block's (`dynse.gating`), at one of two
sites:

- "output", our reading of the paper: y = x + g * W2 v;
- "inner", ours: u = g * relu(bn1(W1 x)); v = g * relu(bn2(dw(u))); y = x + W2 v, so a channel
  that is off costs neither its row of W1, nor its depthwise taps, nor its column of W2.

Miccini et al., "Scalable Speech Enhancement with Dynamic Channel Pruning", arXiv 2412.17121. A
block that sees ahead is made of the same causal layers, each moved ahead by half of what it sees:
convs that are padded alike on both sides, and a centred moving average.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier

from dynse.gating import SURROGATES, apply_gate, gate_macs, init_gate
from dynse.layers.activation import PReLU, dropout, prelu_cost
from dynse.layers.conv import Depthwise, Pointwise, depthwise_cost, pointwise_cost
from dynse.layers.cost import LayerCost
from dynse.layers.norm import BatchNorm, batch_norm_cost

SITES = ("output", "inner")
SOURCES = ("block", "front")


def check_choice(name: str, value: str, legal: Sequence[str]) -> None:
    if value not in legal:
        raise ValueError(f"{name} must be one of {', '.join(legal)}; got {value!r}")


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """The gates of a network. The paper publishes neither site, input, width nor window.

    Attributes:
        site: "output" or "inner" (see the module's docstring).
        hidden: width r of the gate's sub-network.
        window: frames of the moving average.
        surrogate: name of the step's derivative in the backward pass.
        normalize: standardise the gate's input over its channels.
        level: how loud that input is, is one more of its channels.
        group: channels that share a decision.
        source: "block", the block's own input, or "front": every gate sees the output of the front
            end; each still has its own matrices.
        detach: stop the gradient from the gate into the block's input.
        bias: initial bias of the scores; positive starts open.
    """

    site: Literal["output", "inner"] = "output"
    hidden: int = 8
    window: int = 16
    surrogate: str = "identity"
    normalize: bool = False
    level: bool = False
    group: int = 1
    source: Literal["block", "front"] = "block"
    detach: bool = True
    bias: float = 1.0

    def __post_init__(self) -> None:
        check_choice("site", self.site, SITES)
        check_choice("surrogate", self.surrogate, tuple(SURROGATES))
        check_choice("source", self.source, SOURCES)
        if self.hidden < 1 or self.window < 1 or self.group < 1:
            raise ValueError(f"hidden, window and group must be positive, got {self}")


class BlockState(NamedTuple):
    """Past frames of one block: of the depthwise conv (B, past, H), of the gate (B, N - 1, r)."""

    conv: jax.Array
    gate: jax.Array


class Reach(NamedTuple):
    """Frames before and after the present one that an output depends on."""

    past: int
    ahead: int


def _ahead(layer: Callable, frames: int, state: jax.Array, x: jax.Array) -> tuple[Any, ...]:
    """What a causal layer gives so many frames later, of a signal that zeros follow."""
    if not frames:
        return layer(state, x)
    state, *results = layer(state, jnp.pad(x, ((0, 0), (0, frames), (0, 0))))
    return state, *(result[:, frames:] for result in results)


class TCNBlock(nn.Module):
    """One residual block of width B and inner width H."""

    width: int
    inner: int
    taps: int
    dilation: int
    kind: str
    dropout_rate: float
    gate: GateConfig | None
    causal: bool

    def setup(self) -> None:
        self.conv1 = Pointwise(self.inner)
        friendly = self.kind == "quantization_friendly"
        self.norm1 = BatchNorm(relu=friendly)
        self.depthwise = Depthwise(self.taps, self.dilation)
        self.norm2 = BatchNorm(relu=friendly)
        self.conv2 = Pointwise(self.width, use_bias=False)
        if not friendly:
            self.prelu1, self.prelu2 = PReLU(), PReLU()
        if self.gate is not None:
            self.gate_params = self.param(
                "gate",
                lambda key: init_gate(key, *self._gate_shape, bias=self.gate.bias),
            )

    @property
    def gated_channels(self) -> int:
        """Channels C that the gate decides about."""
        return self.inner if self.gate.site == "inner" else self.width

    @property
    def _gate_shape(self) -> tuple[int, int, int]:
        """Inputs, outputs and hidden width of the gate's matrices."""
        channels, group = self.gated_channels, self.gate.group
        if channels % group:
            raise ValueError(f"{channels} channels do not part into groups of {group}")
        return self.width + self.gate.level, channels // group, self.gate.hidden

    @property
    def conv_reach(self) -> Reach:
        """Of the depthwise conv."""
        frames = (self.taps - 1) * self.dilation
        ahead = 0 if self.causal else frames // 2
        return Reach(frames - ahead, ahead)

    @property
    def gate_reach(self) -> Reach:
        """Of the gate's moving average."""
        frames = self.gate.window - 1 if self.gate else 0
        ahead = 0 if self.causal else frames // 2
        return Reach(frames - ahead, ahead)

    @nn.nowrap
    def init_state(self, batch_size: int) -> BlockState:
        """Zeros: nothing was heard before the first frame."""
        return BlockState(
            jnp.zeros((batch_size, sum(self.conv_reach), self.inner)),
            jnp.zeros((batch_size, sum(self.gate_reach), self.gate.hidden if self.gate else 0)),
        )

    def __call__(
        self,
        state: BlockState,
        x: jax.Array,
        *,
        front: jax.Array,
        train: bool,
        replayed: jax.Array | None,
        key: jax.Array | None,
        noise: jax.Array | float | None,
        softness: jax.Array | float | None,
    ) -> tuple[BlockState, jax.Array, jax.Array | None, jax.Array | None]:
        """State and x (B, T, B) -> next state, y, gate and scores (None without a gate).

        `front` is the first block's x.
        """
        drop_keys = (None, None)
        gate_key = None
        if key is not None:
            gate_key, *drop_keys = jax.random.split(key, 3)

        gate = scores = None
        gate_state = state.gate
        if self.gate is not None:
            seen = front if self.gate.source == "front" else x
            decide = functools.partial(
                apply_gate,
                self.gate_params,
                window=self.gate.window,
                surrogate=SURROGATES[self.gate.surrogate],
                normalize=self.gate.normalize,
                level=self.gate.level,
                group=self.gate.group,
                detach=self.gate.detach,
                key=None if noise is None else gate_key,
                noise=0.0 if noise is None else noise,
                softness=softness,
            )
            gate_state, gate, scores = _ahead(decide, self.gate_reach.ahead, gate_state, seen)
            if replayed is not None:
                gate = jnp.broadcast_to(replayed, gate.shape).astype(gate.dtype)

        def activate(value: jax.Array, half: int) -> jax.Array:
            if self.kind == "original":
                prelu = (self.prelu1, self.prelu2)[half]
                value = dropout(prelu(value), self.dropout_rate, drop_keys[half])
            value = (self.norm1, self.norm2)[half](value, train=train)
            inner_gate = gate is not None and self.gate.site == "inner"
            return gate * value if inner_gate else value

        u = activate(self.conv1(x), 0)
        conv_state, v = _ahead(self.depthwise, self.conv_reach.ahead, state.conv, u)
        residual = self.conv2(activate(v, 1))
        if gate is not None and self.gate.site == "output":
            residual = gate * residual
        y = optimization_barrier(x + residual)
        return BlockState(conv_state, gate_state), y, gate, scores

    @nn.nowrap
    def costs(self, path: str, index: int) -> list[LayerCost]:
        """Costs of the block's layers; `index` is the number of its gate."""
        inner_gate, output_gate = {}, {}
        if self.gate is not None:
            if self.gate.site == "inner":
                inner_gate = {"gate": index, "channels": self.inner}
            else:
                output_gate = {"gate": index, "channels": self.width, "gated_macs": self.inner}
        by_width = {"gated_macs": self.width} if inner_gate else {}
        by_taps = {"gated_macs": self.taps} if inner_gate else {}
        costs = [
            pointwise_cost(f"{path}/conv1", self.width, self.inner, **inner_gate, **by_width),
            batch_norm_cost(f"{path}/norm1", self.inner),
            depthwise_cost(f"{path}/depthwise", self.taps, self.inner, **inner_gate, **by_taps),
            batch_norm_cost(f"{path}/norm2", self.inner),
            pointwise_cost(
                f"{path}/conv2",
                self.inner,
                self.width,
                use_bias=False,
                **inner_gate,
                **by_width,
                **output_gate,
            ),
        ]
        if self.kind == "original":
            costs += [prelu_cost(f"{path}/prelu1"), prelu_cost(f"{path}/prelu2")]
        if self.gate is not None:
            inputs, outputs, hidden = self._gate_shape
            macs = gate_macs(inputs, outputs, hidden)
            costs.append(LayerCost(f"{path}/gate", macs + hidden + outputs, macs))
        return costs
