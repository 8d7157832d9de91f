"""What probes cost inside the step of a gated network: additions, and time.

    python benchmarks/probes.py                     # about a minute on two cores

The causal 128/256 Conv-FSENet with nine gated blocks and random parameters, alone and with probes
of random weights: voice activity alone, and five of them (voice activity, F0, SNR and gender with
one output, noise class with nine), 64 and 202 channels each. One compiled step of one frame, as a
device calls it, and one of 62 frames (a second of audio), of one row; the dispatch of the call and
the arrays that it takes and returns are part of both.

First it checks, frame by frame and in one block, that the gain and the gates have the same bits
with and without probes, and that the predictions are those of the probes on the gates.

Counts: additions a frame of each probe, and of all as a share of the network's active MACs.

Times: the nets take turns in random order; a round is the median over its turns. The share is what
probes add to the network's time of the same round, as median and quartiles over rounds. The
network a second time, compiled anew, says how small a share can be told from none. Beside them the
additions alone, as an engine would do them: a compiled loop over the channels that are read which
adds the weights, to all outputs, of the open ones, as a share of the network's time for a frame.
Writes benchmarks/results/probes.json.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import tyro

from dynse.evaluation.scores import commit, machine
from dynse.layers.cost import total_active_macs
from dynse.models.conv_fsenet import ConvFSENet, GateConfig
from dynse.probes import (
    LinearProbe,
    add_probes,
    additions_per_frame,
    frame_bits,
    make_probe,
    outputs,
    stack_probes,
)
from dynse.training.loop import write_json

NET = ConvFSENet(gate=GateConfig(bias=0.0))
OUTPUTS = {"voice": 1, "f0": 1, "snr": 1, "gender": 1, "noise": 9}
KINDS = {"voice": "logistic", "f0": "ridge", "snr": "ridge"}
SETS = {"voice": ("voice",), "five": tuple(OUTPUTS)}
CHANNELS = (64, 202)
AVERAGED = ("gender", "noise")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Count and time probes."""

    rounds: int = 60
    """Medians and quartiles are over these."""
    turns: int = 20
    """Calls of each net in a round."""
    frames: tuple[int, ...] = (1, 62)
    """Frames of a step; of the first the additions alone are a share."""
    window: int = 1
    """Frames that gender and noise class are averaged over."""
    out: pathlib.Path = pathlib.Path(__file__).parent / "results" / "probes.json"
    """Where the figures go."""


def main(arguments: Arguments) -> dict[str, Any]:
    """Check, count, measure, print, write."""
    frames = max(arguments.frames)
    signal = np.exp(1.5 * np.random.default_rng(0).normal(size=(1, frames, NET.bins)) - 1)
    signal = jax.numpy.asarray(signal, "float32")
    variables = jax.jit(NET.init)(jax.random.key(0), signal)
    gates = jax.jit(NET.apply)(variables, signal)[2].gates
    kept = [float(gate.mean()) for gate in gates]
    bits, active_macs = frame_bits(gates), total_active_macs(NET.cost(), kept)

    nets, counts = {"net": (NET, variables), "net again": (NET, variables)}, {}
    for channels in CHANNELS:
        for name, members in SETS.items():
            probes = _draw(members, channels, bits.shape[-1], arguments.window)
            name = f"{name}, {channels} channels"
            nets[name] = add_probes(NET, variables, probes)
            counts[name] = _count(probes, bits, active_macs)
            for block in {1, frames}:
                _check_equal(name, *nets[name], variables, probes, signal, block)

    times = {}
    for block in arguments.frames:
        calls = {
            name: _compile(*net, net[0].init_state(1), signal[:, :block])
            for name, net in nets.items()
        }
        times[f"{block} frames"] = _summary(_time(calls, arguments.rounds, arguments.turns))
    sums, first = {}, arguments.frames[0]
    net_us = times[f"{first} frames"]["net"]["median_us"] / first
    for name, members in SETS.items():
        for channels in CHANNELS:
            probes = _draw(members, channels, bits.shape[-1], 1)
            sums[f"{name}, {channels} channels"] = _time_sums(probes, bits[0], net_us, arguments)
    content = {
        "machine": machine(),
        "commit": commit(),
        "rounds": arguments.rounds,
        "turns": arguments.turns,
        "window": arguments.window,
        "kept": round(float(np.mean(kept)), 3),
        "active_macs_per_frame": round(active_macs),
        "additions": counts,
        "times": times,
        "additions_alone": sums,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, content)
    for name, values in counts.items():
        print(f"{name:24s} {values}")
    for block, rows in times.items():
        for name, values in rows.items():
            print(f"{block:10s} {name:24s} {values}")
    for name, values in sums.items():
        print(f"additions  {name:24s} {values}")
    return content


def _draw(names: tuple[str, ...], count: int, total: int, window: int) -> dict[str, LinearProbe]:
    """Probes of so many random channels, with random weights."""
    draw, probes = np.random.default_rng(count), {}
    for name in names:
        channels = np.sort(draw.choice(total, count, replace=False))
        probes[name] = make_probe(
            channels,
            draw.normal(size=(count, OUTPUTS[name])),
            draw.normal(size=OUTPUTS[name]),
            kind=KINDS.get(name, "logistic"),
            window=window if name in AVERAGED else 1,
        )
    return probes


def _count(probes: Mapping[str, LinearProbe], bits: Any, active_macs: float) -> dict[str, Any]:
    """Additions a frame, each probe's and all, and their share of the network's active MACs."""
    each = {name: additions_per_frame(probe, bits) for name, probe in probes.items()}
    total = sum(each.values())
    return {
        "per_frame": {name: round(value, 1) for name, value in each.items()},
        "all_per_frame": round(total, 1),
        "percent_of_active_macs": round(100 * total / active_macs, 3),
    }


def _check_equal(
    what: str,
    probed: Any,
    all_variables: Any,
    variables: Any,
    probes: Mapping[str, LinearProbe],
    signal: jax.Array,
    block: int,
) -> None:
    """Gain and gates are the network's, bit for bit, the predictions those of the probes."""
    step, alone = jax.jit(probed.step), jax.jit(NET.step)
    state, expected_state = probed.init_state(1), NET.init_state(1)
    told, bits = [], []
    for start in range(0, signal.shape[1], block):
        frames = signal[:, start : start + block]
        state, gain, aux = step(all_variables, state, frames)
        expected_state, expected, expected_aux = alone(variables, expected_state, frames)
        for own, other in zip((gain, *aux.gates), (expected, *expected_aux.gates), strict=True):
            if not np.array_equal(own, other):
                raise RuntimeError(f"{what}, blocks of {block}: not the gain and gates of the net")
        told.append(jax.device_get(aux.predictions))
        bits.append(frame_bits(expected_aux.gates)[0])
    features = np.concatenate(bits).astype(np.float64)
    for name, probe in probes.items():
        padded = np.concatenate([np.zeros((probe.window - 1, features.shape[1])), features])
        windows = np.lib.stride_tricks.sliding_window_view(padded, probe.window, axis=0)
        offline = np.asarray(outputs(probe, windows.mean(-1)))
        streamed = np.concatenate([part[name][0] for part in told])
        difference = np.abs(streamed - offline).max()
        if not difference < 1e-4:
            raise RuntimeError(f"{what}, {name}, blocks of {block}: off by {difference:.1e}")


def _compile(net: Any, variables: Any, state: Any, frames: jax.Array) -> Callable[[], Any]:
    # A function of its own each time: jit would hand out the program of an equal one.
    step = jax.jit(lambda variables, state, frames: net.step(variables, state, frames))
    return lambda: jax.block_until_ready(step(variables, state, frames))


def _time(calls: Mapping[str, Callable], rounds: int, turns: int) -> dict[str, np.ndarray]:
    """Microseconds of a call, by round."""
    times = {name: np.zeros((rounds, turns)) for name in calls}
    for call in calls.values():
        call()
    # In random order, each after a call of its own that is not timed: what ran before decides what
    # lies in the caches.
    draw, names = np.random.default_rng(0), list(calls)
    for index in np.ndindex(rounds, turns):
        for name in draw.permutation(names):
            calls[name]()
            started = time.perf_counter()
            calls[name]()
            times[name][index] = 1e6 * (time.perf_counter() - started)
    return {name: np.median(values, axis=1) for name, values in times.items()}


def _time_sums(
    probes: Mapping[str, LinearProbe], bits: Any, net_us: float, arguments: Arguments
) -> dict[str, Any]:
    """Time of a loop that adds weights, checked against the probes; bits (T, S) of all frames."""
    import numba

    _, stack = stack_probes(probes, bits.shape[-1])
    bits, bias = np.asarray(bits), np.asarray(stack.bias)
    channels = np.flatnonzero(np.any(stack.weights, axis=0))
    rows, width = np.ascontiguousarray(np.transpose(stack.weights)[channels]), len(bias)

    @numba.njit
    def add(bits, channels, rows, sums):
        for i in range(len(channels)):
            if bits[channels[i]]:
                for k in range(width):  # a constant: compiled to few instructions
                    sums[k] += rows[i, k]

    found = np.tile(bias, (len(bits), 1))
    for frame, sums in zip(bits, found, strict=True):
        add(frame, channels, rows, sums)
    expected = np.concatenate([outputs(probes[name], bits) for name in sorted(probes)], axis=1)
    if not np.abs(found - expected).max() < 1e-4:
        raise RuntimeError("the loop's sums are not those of the probes")
    rounds = np.zeros(arguments.rounds)
    for index in range(len(rounds)):
        started = time.perf_counter()
        for _ in range(arguments.turns):
            for frame, sums in zip(bits, found, strict=True):
                add(frame, channels, rows, sums)
        spent = time.perf_counter() - started
        rounds[index] = 1e6 * spent / (arguments.turns * len(bits))
    low, median, high = np.quantile(rounds, [0.25, 0.5, 0.75]).round(3).tolist()
    share = round(100 * median / net_us, 3)
    return {"median_us": median, "quartiles_us": [low, high], "percent_of_net": share}


def _summary(times: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Median and quartiles of a call's time and of its share beyond the network's."""
    rows = {}
    for name, values in times.items():
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).round(1).tolist()
        rows[name] = {"median_us": median, "quartiles_us": [low, high]}
        if name != "net":
            shares = 100 * (values / times["net"] - 1)
            low, median, high = np.quantile(shares, [0.25, 0.5, 0.75]).round(2).tolist()
            rows[name] |= {"added_percent": median, "added_percent_quartiles": [low, high]}
    return rows


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
