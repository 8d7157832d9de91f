"""Conv-FSENet, a temporal convolutional network that estimates a gain, with gated channels.

    h = relu(x W_in + b_in)                     x: (compressed) magnitude, 257 bins
    h <- h + g * f(h)   for every block         f: 1x1 - dilated depthwise - 1x1
    gain = sigmoid(h W_out + b_out)             to be multiplied with the noisy spectrum

Miccini et al., "Scalable Speech Enhancement with Dynamic Channel Pruning", arXiv 2412.17121. The
gate g of a block is computed from the block's input (`dynse.gating`) and switches channels off
per frame, at one of two sites:

- "output", our reading of the paper: y = x + g * W2 v;
- "inner", ours: u = g * relu(bn1(W1 x)); v = g * relu(bn2(dw(u))); y = x + W2 v, so a channel
  that is off costs neither its row of W1, nor its depthwise taps, nor its column of W2.

Exits (ours): a head like the last matrix behind any block gives a gain from the h there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import optimization_barrier

from dynse.audio.features import compress
from dynse.exits.heads import ExitHead
from dynse.gating import SURROGATES, apply_gate, gate_macs, init_gate
from dynse.layers.activation import PReLU, dropout, prelu_cost
from dynse.layers.conv import Depthwise, Pointwise, depthwise_cost, pointwise_cost
from dynse.layers.cost import LayerCost
from dynse.layers.norm import BatchNorm, batch_norm_cost
from dynse.models.network import Aux, Network

BLOCKS = ("quantization_friendly", "original")
SITES = ("output", "inner")
FEATURES = ("compressed", "magnitude")


def _check(name: str, value: str, legal: Sequence[str]) -> None:
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
        detach: stop the gradient from the gate into the block's input.
        bias: initial bias of the scores; positive starts open.
    """

    site: Literal["output", "inner"] = "output"
    hidden: int = 8
    window: int = 16
    surrogate: str = "identity"
    normalize: bool = False
    detach: bool = True
    bias: float = 1.0

    def __post_init__(self) -> None:
        _check("site", self.site, SITES)
        _check("surrogate", self.surrogate, tuple(SURROGATES))
        if self.hidden < 1 or self.window < 1:
            raise ValueError(f"hidden and window must be positive, got {self}")


class BlockState(NamedTuple):
    """Past frames of one block: of the depthwise conv (B, past, H), of the gate (B, N - 1, r)."""

    conv: jax.Array
    gate: jax.Array


class TCNBlock(nn.Module):
    """One residual block of width B and inner width H."""

    width: int
    inner: int
    taps: int
    dilation: int
    kind: str
    dropout_rate: float
    gate: GateConfig | None

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
                lambda key: init_gate(
                    key, self.width, self.gated_channels, self.gate.hidden, bias=self.gate.bias
                ),
            )

    @property
    def gated_channels(self) -> int:
        """Channels C that the gate decides about."""
        return self.inner if self.gate.site == "inner" else self.width

    @nn.nowrap
    def init_state(self, batch_size: int) -> BlockState:
        """Zeros: nothing was heard before the first frame."""
        gate = self.gate
        past, hidden = (gate.window - 1, gate.hidden) if gate else (0, 0)
        conv_past = (self.taps - 1) * self.dilation
        return BlockState(
            jnp.zeros((batch_size, conv_past, self.inner)), jnp.zeros((batch_size, past, hidden))
        )

    def __call__(
        self,
        state: BlockState,
        x: jax.Array,
        *,
        train: bool,
        replayed: jax.Array | None,
        key: jax.Array | None,
        noise: jax.Array | float | None,
    ) -> tuple[BlockState, jax.Array, jax.Array | None, jax.Array | None]:
        """State and x (B, T, B) -> next state, y, gate and scores (None without a gate)."""
        drop_keys = (None, None)
        gate_key = None
        if key is not None:
            gate_key, *drop_keys = jax.random.split(key, 3)

        gate = scores = None
        gate_state = state.gate
        if self.gate is not None:
            gate_state, gate, scores = apply_gate(
                self.gate_params,
                gate_state,
                x,
                window=self.gate.window,
                surrogate=SURROGATES[self.gate.surrogate],
                normalize=self.gate.normalize,
                detach=self.gate.detach,
                key=None if noise is None else gate_key,
                noise=0.0 if noise is None else noise,
            )
            if replayed is not None:
                gate = jnp.broadcast_to(replayed, gate.shape).astype(gate.dtype)

        def activate(value: jax.Array, half: int) -> jax.Array:
            if self.kind == "original":
                prelu = (self.prelu1, self.prelu2)[half]
                value = dropout(prelu(value), self.dropout_rate, drop_keys[half])
            value = (self.norm1, self.norm2)[half](value, train=train)
            inner_gate = gate is not None and self.gate.site == "inner"
            return gate * value if inner_gate else value

        conv_state, u = self.depthwise(state.conv, activate(self.conv1(x), 0))
        residual = self.conv2(activate(u, 1))
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
            hidden, channels = self.gate.hidden, self.gated_channels
            macs = gate_macs(self.width, channels, hidden)
            costs.append(LayerCost(f"{path}/gate", macs + hidden + channels, macs))
        return costs


class ConvFSENet(Network):
    """The network: magnitudes (B, T, bins) in, gain (B, T, bins) in 0 to 1 out. Causal.

    Attributes:
        bins: frequency bins F.
        width: residual width B.
        inner: inner width H.
        stacks: how often the dilations 1, 2, 4, ... restart.
        blocks: blocks per stack.
        taps: taps K of the depthwise convs.
        block: "quantization_friendly" (1x1 - norm - ReLU - depthwise - norm - ReLU - 1x1) or
            "original" (PReLU - dropout - norm in the place of norm - ReLU).
        features: "compressed", (|X| + 1e-9)^0.3, or "magnitude", |X|.
        dropout_rate: of the original block, in training.
        gate: the gates, or None for the static network.
        exits: rising indices of blocks behind which an exit sits, beside the one behind the last.
        exit_index: of the exits, the last one included: a program of this exit alone, without the
            blocks behind it; None computes all.
    """

    bins: int = 257
    width: int = 128
    inner: int = 256
    stacks: int = 3
    blocks: int = 3
    taps: int = 3
    block: Literal["quantization_friendly", "original"] = "quantization_friendly"
    features: Literal["compressed", "magnitude"] = "compressed"
    dropout_rate: float = 0.0
    gate: GateConfig | None = None
    exits: tuple[int, ...] = ()
    exit_index: int | None = None

    def setup(self) -> None:
        _check("block", self.block, BLOCKS)
        _check("features", self.features, FEATURES)
        self.front = Pointwise(self.width)
        self.tcn = self._tcn()
        self.heads = {
            block: ExitHead(self.bins, name=name) for block, name in self._heads().items()
        }

    @nn.nowrap
    def _heads(self) -> dict[int, str]:
        """Names of the heads that run, by the block that each sits behind.

        Raises:
            ValueError: on exits that are no rising indices of blocks, or one that is not there.
        """
        last = self.stacks * self.blocks - 1
        if any(b <= a for a, b in zip((-1, *self.exits), (*self.exits, last), strict=True)):
            raise ValueError(f"exits must be rising indices below {last}, got {self.exits}")
        heads = {**{block: f"exit{block}" for block in self.exits}, last: "back"}
        if self.exit_index is None:
            return heads
        if not 0 <= self.exit_index < len(heads):
            raise ValueError(
                f"expected an exit_index of {len(heads)} exits or None, got {self.exit_index}"
            )
        block = tuple(heads)[self.exit_index]
        return {block: heads[block]}

    @property
    def _running(self) -> int:
        """Blocks that run."""
        return max(self._heads()) + 1

    @nn.nowrap
    def _tcn(self) -> list[TCNBlock]:
        return [
            TCNBlock(
                self.width,
                self.inner,
                self.taps,
                2 ** (index % self.blocks),
                self.block,
                self.dropout_rate,
                self.gate,
                name=f"block{index}",
            )
            for index in range(self.stacks * self.blocks)
        ]

    def __call__(
        self,
        frames: jax.Array,
        state: tuple[BlockState, ...] | None = None,
        *,
        train: bool = False,
        gates: Sequence[jax.Array] | None = None,
        key: jax.Array | None = None,
        noise: jax.Array | float | None = None,
    ) -> tuple[tuple[BlockState, ...], jax.Array, Aux]:
        """Gains of a block of frames.

        Args:
            frames: magnitudes (B, T, bins), T >= 1.
            state: from `init_state` or the call before; None starts anew.
            train: normalise by the batch and update the running statistics
                (`mutable=["batch_stats"]`).
            gates: gates to use in place of the network's own, one entry a block that broadcasts
                to (B, T, C): controls, and replay of another engine's decisions.
            key: for the noise on the scores and for dropout; without it there is neither.
            noise: scale of the logistic noise on the scores; None for none.

        Returns:
            The next state, the gain (B, T, bins) and `Aux`.

        Raises:
            ValueError: on a wrong number of bins, or of replayed gates.
        """
        if frames.ndim != 3 or frames.shape[-1] != self.bins:
            raise ValueError(f"expected frames (B, T, {self.bins}), got {frames.shape}")
        tcn = self.tcn[: self._running]
        if gates is not None and (self.gate is None or len(gates) != len(tcn)):
            raise ValueError(
                f"expected gates for {len(tcn) if self.gate else 0} blocks, got {len(gates)}"
            )
        if state is None:
            state = tuple(block.init_state(frames.shape[0]) for block in self.tcn)
        x = compress(frames) if self.features == "compressed" else frames
        x = nn.relu(self.front(x))
        states, all_gates, all_scores, gains = [], [], [], []
        for index, block in enumerate(tcn):
            block_state, x, gate, scores = block(
                state[index],
                x,
                train=train,
                replayed=None if gates is None else gates[index],
                key=None if key is None else jax.random.fold_in(key, index),
                noise=noise,
            )
            states.append(block_state)
            if gate is not None:
                all_gates.append(gate)
                all_scores.append(scores)
            if index in self.heads:
                gains.append(self.heads[index](x))
        # A fixed exit leaves the state of the blocks behind it as it is.
        next_state = (*states, *state[len(states) :])
        exits = tuple(gains) if self.exits else ()
        return next_state, gains[-1], Aux(tuple(all_gates), tuple(all_scores), exits)

    @nn.nowrap
    def init_state(self, batch_size: int) -> tuple[BlockState, ...]:
        """State before the first frame."""
        return tuple(block.init_state(batch_size) for block in self._tcn())

    @property
    def receptive_field_frames(self) -> int:
        """Past frames that a gain depends on, the present one not counted.

        In a gated block a gate looks window - 1 frames back. At the output site that runs beside
        the conv (the longer of the two counts); at the inner site the past that the conv sees was
        itself gated, so both add up.
        """
        total = 0
        for index in range(self._running):
            conv = (self.taps - 1) * 2 ** (index % self.blocks)
            pool = self.gate.window - 1 if self.gate else 0
            inner = self.gate is not None and self.gate.site == "inner"
            total += conv + pool if inner else max(conv, pool)
        return total

    @nn.nowrap
    def cost(self) -> list[LayerCost]:
        """Costs of the layers that run, per frame: of all of them, or of the fixed exit's."""
        costs, heads = [pointwise_cost("front", self.bins, self.width)], self._heads()
        for index, block in enumerate(self._tcn()[: self._running]):
            costs += block.costs(f"block{index}", index)
            if index in heads:
                costs.append(pointwise_cost(heads[index], self.width, self.bins))
        return costs
