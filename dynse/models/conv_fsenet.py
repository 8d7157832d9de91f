"""Conv-FSENet, a temporal convolutional network that estimates a gain, with gated channels.

    h = relu(x W_in + b_in)                     x: (compressed) magnitude, 257 bins
    h <- h + g * f(h)   for every block         `dynse.models.tcn_block`
    gain = sigmoid(h W_out + b_out)             to be multiplied with the noisy spectrum

Miccini et al., "Scalable Speech Enhancement with Dynamic Channel Pruning", arXiv 2412.17121; the
paper has it causal and seeing ahead.

Exits (ours): a head like the last matrix behind any block gives a gain from the h there.

    net = ConvFSENet(exits=(2, 5, 8))                    every exit's gain, in `Aux.exits`
    net.clone(exit_index=1)                              the program of one exit
    EarlyExit(net, Budget())                             an exit per frame (`dynse.exits`)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import flax.linen as nn
import jax

from dynse.audio.features import compress
from dynse.exits.heads import AllExits, ExitHead
from dynse.layers.conv import Pointwise, pointwise_cost
from dynse.layers.cost import LayerCost
from dynse.models.network import Aux, Network
from dynse.models.tcn_block import BlockState, GateConfig, Reach, TCNBlock, check_choice

# By "block0", "block1", ...
State = Mapping[str, BlockState]

BLOCKS = ("quantization_friendly", "original")
FEATURES = ("compressed", "magnitude")


class ConvFSENet(Network):
    """The network: magnitudes (B, T, bins) in, gain (B, T, bins) in 0 to 1 out.

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
        exits: rising indices of the blocks behind which an exit sits, the last block among them;
            () for the output alone.
        exit_index: of the exits: a program of this one alone, without the blocks behind it; None
            computes all.
        causal: else it sees as far ahead as back (the gate one frame less where its window is
            even), takes whole signals and has no state.
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
    causal: bool = True

    def setup(self) -> None:
        check_choice("block", self.block, BLOCKS)
        check_choice("features", self.features, FEATURES)
        if not self.causal and self.taps % 2 == 0:
            raise ValueError(f"a net that sees ahead needs an odd number of taps, got {self.taps}")
        self.front = Pointwise(self.width)
        self.tcn = self._tcn()
        self.heads = {
            block: ExitHead(self.bins, name=name) for block, name in self._heads().items()
        }

    @nn.nowrap
    def _heads(self) -> dict[int, str]:
        """Names of the heads that run, by the block that each sits behind.

        Raises:
            ValueError: on exits that are no rising indices of blocks up to the last, or an
                `exit_index` that is not there.
        """
        last = self.stacks * self.blocks - 1
        exits = self.exits or (last,)
        if list(exits) != sorted(set(exits)) or exits[0] < 0 or exits[-1] != last:
            raise ValueError(
                f"exits must be rising indices of blocks, the last one {last}, got {exits}"
            )
        heads = {**{block: f"exit{block}" for block in exits}, last: "back"}
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
                self.causal,
                name=f"block{index}",
            )
            for index in range(self.stacks * self.blocks)
        ]

    def __call__(
        self,
        frames: jax.Array,
        state: State | None = None,
        *,
        train: bool = False,
        gates: Sequence[jax.Array] | None = None,
        key: jax.Array | None = None,
        noise: jax.Array | float | None = None,
        softness: jax.Array | float | None = None,
    ) -> tuple[State, jax.Array, Aux]:
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
            softness: how soft the gates are, 0 to 1; None for hard ones.

        Returns:
            The next state, the gain (B, T, bins) and `Aux`.

        Raises:
            ValueError: on a wrong number of bins, or of replayed gates; on a state where the net
                sees ahead.
        """
        done, scores, x = self._through(frames, state, train, gates, key, noise, softness)
        exits = done.gains if self.exits else ()
        return done.state, done.gains[-1], Aux(done.gates, scores, exits, x if train else ())

    def all_exits(self, frames: jax.Array, state: State | None = None) -> AllExits:
        """Arguments as of a call; the features are the front end's output."""
        return self._through(frames, state)[0]

    def _through(
        self,
        frames: jax.Array,
        state: State | None,
        train: bool = False,
        gates: Sequence[jax.Array] | None = None,
        key: jax.Array | None = None,
        noise: jax.Array | float | None = None,
        softness: jax.Array | float | None = None,
    ) -> tuple[AllExits, tuple[jax.Array, ...], jax.Array]:
        """Arguments as of a call; beside the exits the scores, and what the last head reads."""
        if frames.ndim != 3 or frames.shape[-1] != self.bins:
            raise ValueError(f"expected frames (B, T, {self.bins}), got {frames.shape}")
        tcn = self.tcn[: self._running]
        if gates is not None and (self.gate is None or len(gates) != len(tcn)):
            raise ValueError(
                f"expected gates for {len(tcn) if self.gate else 0} blocks, got {len(gates)}"
            )
        if state is not None:
            self._check_causal()
        else:
            state = {block.name: block.init_state(frames.shape[0]) for block in self.tcn}
        x = compress(frames) if self.features == "compressed" else frames
        x = front = nn.relu(self.front(x))
        states, all_gates, all_scores, gains = {}, [], [], []
        for index, block in enumerate(tcn):
            states[block.name], x, gate, scores = block(
                state[block.name],
                x,
                front=front,
                train=train,
                replayed=None if gates is None else gates[index],
                key=None if key is None else jax.random.fold_in(key, index),
                noise=noise,
                softness=softness,
            )
            if gate is not None:
                all_gates.append(gate)
                all_scores.append(scores)
            if index in self.heads:
                gains.append(self.heads[index](x))
        # A fixed exit leaves the state of the blocks behind it as it is.
        next_state = {**state, **states} if self.causal else {}
        done = AllExits(next_state, tuple(gains), front, tuple(all_gates))
        return done, tuple(all_scores), x

    @nn.nowrap
    def init_state(self, batch_size: int) -> State:
        """State before the first frame.

        Raises:
            ValueError: where the net sees ahead.
        """
        self._check_causal()
        return {block.name: block.init_state(batch_size) for block in self._tcn()}

    @nn.nowrap
    def _check_causal(self) -> None:
        if not self.causal:
            raise ValueError("a net that sees ahead has no state: it takes whole signals")

    @property
    def receptive_field_frames(self) -> int:
        """Past frames that a gain depends on, the present one not counted."""
        return self._reach.past

    @property
    def latency_frames(self) -> int:
        """Frames that the gain lags behind the input: 0; below it, so many are seen ahead."""
        return -self._reach.ahead

    @property
    def _reach(self) -> Reach:
        """Of the whole.

        At the output site a gate runs beside the conv: the longer of the two counts. At the inner
        site what the conv sees was itself gated, so both add up. Gates that see the front end add
        nothing to each other: the first one, behind which the most convs come, counts.
        """
        inner = self.gate is not None and self.gate.site == "inner"
        blocks = self._tcn()[: self._running]
        if self.gate is not None and self.gate.source == "front":
            convs = [block.conv_reach for block in blocks]
            first = [blocks[0].gate_reach, *convs[0 if inner else 1 :]]
            return Reach(*map(max, _total(convs), _total(first)))
        longest = [
            map(sum if inner else max, zip(block.conv_reach, block.gate_reach, strict=True))
            for block in blocks
        ]
        return _total(longest)

    @nn.nowrap
    def cost(self) -> list[LayerCost]:
        """Costs of the layers that run, per frame: of all of them, or of the fixed exit's."""
        costs, heads = [pointwise_cost("front", self.bins, self.width)], self._heads()
        for index, block in enumerate(self._tcn()[: self._running]):
            costs += block.costs(f"block{index}", index)
            if index in heads:
                costs.append(pointwise_cost(heads[index], self.width, self.bins))
        return costs

    @nn.nowrap
    def memory_cost(self) -> list[LayerCost]:
        """Costs of the front end and the blocks."""
        heads = self._heads().values()
        return [cost for cost in self.cost() if cost.path not in heads]

    @property
    def policy_features(self) -> int:
        """Width of what an exit policy may see before its decision: of the front end's output."""
        return self.width


def _total(reaches: Iterable[Sequence[int]]) -> Reach:
    """Of layers behind each other."""
    return Reach(*map(sum, zip(*reaches, strict=True)))
