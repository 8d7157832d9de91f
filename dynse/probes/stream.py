"""Probes that run beside a gated network, in its own `step`.

    s_t = sum of the weights of the channels that are open in frame t
    y_t = bias + (s_t + s_(t-1) + ... + s_(t-k+1)) / k,     s_t = 0 before the start

which is the probe on the causal average of the gates, with K numbers a frame kept in place of the
channels. The sums of the last frames are added afresh, as the gates' own pooling does: any split
into blocks is the same.

All probes are one matrix over the channels that any of them reads, since under XLA each operation
costs more than what it computes; for the same reason it is a product here, where an engine adds
(`dynse.probes.additions`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynse.gating.step import init_moving_average, moving_average
from dynse.layers.cost import LayerCost
from dynse.probes.linear import LinearProbe


class Columns(NamedTuple):
    """The outputs of probes of one window: their names and numbers of outputs, in order."""

    window: int
    names: tuple[str, ...]
    outputs: tuple[int, ...]


class ProbeStack(NamedTuple):
    """All probes as one.

    Attributes:
        channels: (U,) int32, read by one probe at least.
        weights: (U, sum of K) float32, 0 where a probe does not read the channel.
        bias: (sum of K,) float32.
    """

    channels: jax.Array
    weights: jax.Array
    bias: jax.Array


def stack_probes(probes: Mapping[str, LinearProbe]) -> tuple[tuple[Columns, ...], ProbeStack]:
    """Put probes side by side.

    Args:
        probes: by name, at least one.

    Returns:
        What the columns are, a hashable entry a window, and the arrays.

    Raises:
        ValueError: there is no probe.
    """
    if not probes:
        raise ValueError("expected at least one probe, got none")
    names = sorted(probes, key=lambda name: (probes[name].window, name))
    channels = np.unique(np.concatenate([probes[name].channels for name in names]))
    weights = []
    for name in names:
        probe = probes[name]
        spread = np.zeros((len(channels), len(probe.bias)), np.float32)
        spread[np.searchsorted(channels, probe.channels)] = probe.weights
        weights.append(spread)
    layout = []
    for window in sorted({probe.window for probe in probes.values()}):
        members = tuple(name for name in names if probes[name].window == window)
        layout.append(Columns(window, members, tuple(len(probes[name].bias) for name in members)))
    bias = jnp.concatenate([probes[name].bias for name in names])
    stack = ProbeStack(jnp.asarray(channels), jnp.asarray(np.concatenate(weights, 1)), bias)
    return tuple(layout), stack


def init_probe_state(layout: Sequence[Columns], batch_size: int) -> tuple[jax.Array, ...]:
    """State before the first frame: of each window k the sums of past frames, (B, k - 1, K)."""
    return tuple(
        init_moving_average(batch_size, sum(columns.outputs), columns.window) for columns in layout
    )


def probe_step(
    layout: Sequence[Columns],
    stack: ProbeStack,
    state: tuple[jax.Array, ...],
    gates: Sequence[jax.Array],
) -> tuple[tuple[jax.Array, ...], dict[str, jax.Array]]:
    """One block of frames.

    Args:
        layout: from `stack_probes`, static.
        stack: from there too.
        state: from `init_probe_state` or the call before.
        gates: over blocks (B, T, C_i), a network's `aux.gates`.

    Returns:
        The next state, and of each probe its outputs (B, T, K); `decide` makes classes of them.
        A channel that the network does not have makes them NaN.

    Raises:
        ValueError: the network has no gates.
    """
    if not gates:
        raise ValueError("expected the gates of a gated network, got none")
    bits = jnp.take(jnp.concatenate(gates, axis=-1), stack.channels, axis=-1)
    sums = jnp.matmul(bits, stack.weights, precision="highest")
    states, predictions, start = [], {}, 0
    for columns, past in zip(layout, state, strict=True):
        stop = start + sum(columns.outputs)
        past, mean = moving_average(past, sums[..., start:stop], columns.window)
        states.append(past)
        cuts = np.cumsum(columns.outputs)[:-1]
        values = jnp.split(mean + stack.bias[start:stop], cuts, axis=-1)
        predictions |= zip(columns.names, values, strict=True)
        start = stop
    return tuple(states), predictions


class ProbedState(NamedTuple):
    """States of the network and of its probes."""

    net: Any
    probes: tuple[jax.Array, ...]


class ProbedAux(NamedTuple):
    """What a network with probes tells beside its gain.

    Attributes:
        gates: over blocks (B, T, C) of zeros and ones.
        scores: over blocks (B, T, C), before the step.
        predictions: of each probe its outputs (B, T, K).
    """

    gates: tuple[jax.Array, ...]
    scores: tuple[jax.Array, ...]
    predictions: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class ProbedNet:
    """A gated network with probes, to be used like the network itself; `add_probes` makes one.

    Its variables are those of the network and a `ProbeStack` under "probes". Its gain, latency,
    receptive field and MACs are the network's; a probe's output looks k - 1 frames further back.

    Attributes:
        net: the network: its `apply` gives (state, gain, aux) with `aux.gates` and `aux.scores`.
        layout: of the probes.
    """

    net: Any
    layout: tuple[Columns, ...]

    def init_state(self, batch_size: int) -> ProbedState:
        """State before the first frame."""
        return ProbedState(
            self.net.init_state(batch_size), init_probe_state(self.layout, batch_size)
        )

    def step(
        self, variables: Any, state: ProbedState, frames: jax.Array
    ) -> tuple[ProbedState, jax.Array, ProbedAux]:
        """One block of frames: (state, frames) -> (next state, gain, aux)."""
        return self.apply(variables, frames, state)

    def apply(
        self, variables: Any, frames: jax.Array, state: ProbedState | None = None, **options: Any
    ) -> tuple[ProbedState, jax.Array, ProbedAux]:
        """As the network's `apply`, whose options it hands on; a state of None starts anew."""
        if state is None:
            state = self.init_state(frames.shape[0])
        of_net = {name: value for name, value in variables.items() if name != "probes"}
        net_state, gain, aux = self.net.apply(of_net, frames, state.net, **options)
        probe_state, predictions = probe_step(
            self.layout, variables["probes"], state.probes, aux.gates
        )
        told = ProbedAux(aux.gates, aux.scores, predictions)
        return ProbedState(net_state, probe_state), gain, told

    @property
    def latency_frames(self) -> int:
        """Of the network."""
        return self.net.latency_frames

    @property
    def receptive_field_frames(self) -> int | None:
        """Of the network's gain."""
        return self.net.receptive_field_frames

    def cost(self) -> list[LayerCost]:
        """Of the network: probes need no multiplication (`additions_per_frame`)."""
        return self.net.cost()


def add_probes(
    net: Any, variables: Mapping[str, Any], probes: Mapping[str, LinearProbe]
) -> tuple[ProbedNet, dict[str, Any]]:
    """A network with probes, and the variables of both."""
    layout, stack = stack_probes(probes)
    return ProbedNet(net, layout), {**variables, "probes": stack}
