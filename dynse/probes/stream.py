"""Probes that run beside a gated network, in its own `step`.

    s_t = sum of the weights of the channels that are open in frame t
    y_t = bias + (s_t + s_(t-1) + ... + s_(t-k+1)) / k,     s_t = 0 before the start

which is the probe on the causal average of the gates, with K numbers a frame kept in place of the
channels. The sums of the last frames are added afresh, as the gates' own pooling does: any split
into blocks is the same.

All probes are one matrix over all channels, with zeros where a probe does not read: under XLA each
operation and each array that goes in or out costs more than what few probes compute. For the same
reason it is a product here, where an engine adds (`dynse.probes.additions`), and all predictions
are one array (`benchmarks/probes.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
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
        weights: (sum of K, all channels) float32, 0 where a probe does not read the channel.
        bias: (sum of K,) float32.
    """

    weights: jax.Array
    bias: jax.Array


# Not frozen: each call of a compiled step makes one, and a frozen one takes longer to make.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(eq=False, slots=True)
class Predictions(Mapping[str, Any]):
    """Of each probe, by name, its outputs (B, T, K); `decide` makes classes of them.

    A mapping over one array. Outside of jit bring it to the host first (`jax.device_get`): a slice
    of an array on a device is a program of its own.

    Attributes:
        outputs: (B, T, sum of K).
        layout: what its columns are.
    """

    outputs: Any
    layout: tuple[Columns, ...] = dataclasses.field(metadata={"static": True})

    def __getitem__(self, name: str) -> Any:
        start = 0
        for columns in self.layout:
            for other, count in zip(columns.names, columns.outputs, strict=True):
                if other == name:
                    return self.outputs[..., start : start + count]
                start += count
        raise KeyError(f"{name!r}; the probes are {', '.join(self)}")

    def __iter__(self) -> Iterator[str]:
        return (name for columns in self.layout for name in columns.names)

    def __len__(self) -> int:
        return sum(len(columns.names) for columns in self.layout)


def stack_probes(
    probes: Mapping[str, LinearProbe], channels: int
) -> tuple[tuple[Columns, ...], ProbeStack]:
    """Put probes side by side.

    Args:
        probes: by name, at least one.
        channels: of all gates of the network.

    Returns:
        What the columns are, a hashable entry a window, and the arrays.

    Raises:
        ValueError: there is no probe, or one reads a channel that is not there.
    """
    if not probes:
        raise ValueError("expected at least one probe, got none")
    names = sorted(probes, key=lambda name: (probes[name].window, name))
    weights = []
    for name in names:
        probe = probes[name]
        highest = int(np.max(probe.channels, initial=-1))
        if highest >= channels:
            raise ValueError(f"probe {name!r} reads channel {highest} of a network with {channels}")
        spread = np.zeros((len(probe.bias), channels), np.float32)
        spread[:, probe.channels] = np.transpose(probe.weights)
        weights.append(spread)
    layout = []
    for window in sorted({probe.window for probe in probes.values()}):
        members = tuple(name for name in names if probes[name].window == window)
        layout.append(Columns(window, members, tuple(len(probes[name].bias) for name in members)))
    bias = jnp.concatenate([probes[name].bias for name in names])
    return tuple(layout), ProbeStack(jnp.asarray(np.concatenate(weights)), bias)


def init_probe_state(layout: Sequence[Columns], batch_size: int) -> tuple[jax.Array, ...]:
    """State before the first frame: of each window k > 1 the sums of past frames, (B, k - 1, K)."""
    return tuple(
        init_moving_average(batch_size, sum(columns.outputs), columns.window)
        for columns in layout
        if columns.window > 1
    )


def probe_step(
    layout: Sequence[Columns],
    stack: ProbeStack,
    state: tuple[jax.Array, ...],
    gates: Sequence[jax.Array],
) -> tuple[tuple[jax.Array, ...], Predictions]:
    """One block of frames.

    Args:
        layout: from `stack_probes`, static.
        stack: from there too.
        state: from `init_probe_state` or the call before.
        gates: over blocks (B, T, C_i), a network's `aux.gates`.

    Returns:
        The next state and the predictions.

    Raises:
        ValueError: the gates have not as many channels as `stack_probes` was told.
    """
    widths = [gate.shape[-1] for gate in gates]
    if sum(widths) != stack.weights.shape[1]:
        raise ValueError(
            f"expected gates of {stack.weights.shape[1]} channels in all, got blocks of {widths}"
        )
    bits = jnp.concatenate(gates, axis=-1)
    sums = jnp.einsum("btc,kc->btk", bits, stack.weights, precision="highest")
    states, means, start = [], [], 0
    for columns in layout:
        stop = start + sum(columns.outputs)
        mean = sums[..., start:stop]
        if columns.window > 1:
            past, mean = moving_average(state[len(states)], mean, columns.window)
            states.append(past)
        means.append(mean)
        start = stop
    outputs = jnp.concatenate(means, axis=-1) + stack.bias
    return tuple(states), Predictions(outputs, tuple(layout))


class ProbedState(NamedTuple):
    """States of the network and of its probes."""

    net: Any
    probes: tuple[jax.Array, ...]


class ProbedAux(NamedTuple):
    """What a network with probes tells beside its gain.

    Attributes:
        gates: over blocks (B, T, C) of zeros and ones.
        scores: over blocks (B, T, C), before the step.
        predictions: of each probe, by name, its outputs (B, T, K).
    """

    gates: tuple[jax.Array, ...]
    scores: tuple[jax.Array, ...]
    predictions: Predictions


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
    """A network with probes, and the variables of both.

    Raises:
        ValueError: the network has no gates, there is no probe, or one reads a channel that the
            network does not have.
    """
    channels = {layer.gate: layer.channels for layer in net.cost() if layer.gate is not None}
    if not channels:
        raise ValueError("expected a gated network, got one without gates")
    layout, stack = stack_probes(probes, sum(channels.values()))
    return ProbedNet(net, layout), {**variables, "probes": stack}
