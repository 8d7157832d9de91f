"""Is the integer GRU the int64 oracle, and how fast is it?

    python benchmarks/integer_gru.py                # about a minute on two cores

Counts: a net of a dense layer, two GRUs and a sigmoid layer, at random genomes (each operation's
width drawn alone), on inputs as calibrated and far outside of it, with calibrated weights and with
weights ten times larger; each result is compared bit for bit with the NumPy int64 oracle of
tests/quantization/oracle.py. A GRU step is one frame of one row through one GRU. At least
`--gru-steps` are done; the mismatches must be 0.

Times: the integer GRU beside `dynse.layers.gru` in float32, one jitted program each, as
microseconds a frame of one row, medians and quartiles over interleaved rounds.
Writes benchmarks/results/integer_gru.json.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from dynse.atomic import write_whole
from dynse.evaluation.scores import commit, machine
from dynse.layers.gru import gru
from dynse.quantization import (
    DenseLayer,
    GRULayer,
    apply_integer,
    build,
    calibrate,
    genome_length,
    homogeneous,
    init_state,
    quantize_input,
)
from dynse.training.memory import keep_freed_memory

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))
from quantization import nets
from quantization.oracle import Oracle

LAYERS = (
    DenseLayer("fc1", "relu"),
    GRULayer("gru1"),
    GRULayer("gru2"),
    DenseLayer("fc2", "sigmoid"),
)
INPUTS, HIDDEN, OUTPUTS = 12, 24, 6


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compare and time the integer GRU."""

    gru_steps: int = 1_200_000
    """At least this many GRU steps are compared."""
    rows: int = 500
    """Rows of a batch."""
    frames: int = 20
    """Frames of a batch."""
    rounds: int = 15
    """Interleaved rounds of the timing; medians and quartiles are over these."""
    sizes: tuple[tuple[int, int, int], ...] = ((40, 64, 64), (257, 400, 8))
    """(inputs, hidden, rows) that are timed."""
    out: pathlib.Path = pathlib.Path(__file__).parent / "results" / "integer_gru.json"
    """Where the figures go."""


def main(arguments: Arguments) -> dict[str, Any]:
    """Count, time, print, write."""
    kept = keep_freed_memory()
    results = {
        "machine": machine(),
        "commit": commit(),
        "memory_kept": kept,
        "equality": compare(arguments),
        "times": [time_size(*size, arguments) for size in arguments.sizes],
    }
    print(json.dumps({key: results[key] for key in ("equality", "times")}, indent=1))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(arguments.out, json.dumps(results, indent=1) + "\n")
    if results["equality"]["mismatches"]:
        raise SystemExit("the integer net is not the oracle")
    return results


def compare(arguments: Arguments) -> dict[str, Any]:
    """GRU steps until there are enough, and how many of the output's codes differ."""
    kinds = [integer_net(spread) for spread in (1.0, 10.0)]
    run = jax.jit(apply_integer)
    steps, mismatches, compared, clipped, results, genomes = 0, 0, 0, 0, 0, 0
    while steps < arguments.gru_steps:
        draw = np.random.default_rng(genomes)
        net = kinds[genomes % len(kinds)]
        genome = draw.integers(2, 9, genome_length(LAYERS)).astype(np.int32)
        x = nets.signal(genomes, arguments.rows, arguments.frames, INPUTS)
        x[::4] *= 30  # far outside of what was calibrated
        qx = np.asarray(quantize_input(net, x))
        state = init_state(net, genome, arguments.rows)
        last, q = run(net, genome, state, qx)
        oracle = Oracle(net, genome)
        expected_last, expected = oracle(state, qx)
        for own, other in [(q, expected), *zip(last[1:3], expected_last[1:3], strict=True)]:
            mismatches += int((np.asarray(own) != other).sum())
            compared += other.size
        steps += 2 * arguments.rows * arguments.frames
        clipped, results = clipped + oracle.saturated, results + oracle.results
        genomes += 1
    return {
        "gru_steps": steps,
        "genomes": genomes,
        "codes_compared": compared,
        "mismatches": mismatches,
        "fraction_saturated": round(clipped / results, 4),
    }


def integer_net(spread: float) -> Any:
    """A net calibrated at ordinary weights, built with weights `spread` times as large."""
    calibrated, built = (float_params(factor) for factor in (1.0, spread))
    ranges = calibrate(LAYERS, calibrated, [nets.signal(0, 16, 60, INPUTS)])
    return build(LAYERS, built, ranges)


def float_params(spread: float) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return {
        "fc1": nets.dense_params(draw, INPUTS, HIDDEN, spread),
        "gru1": nets.gru_params(draw, HIDDEN, HIDDEN, 2 * spread),
        "gru2": nets.gru_params(draw, HIDDEN, HIDDEN, 2 * spread),
        "fc2": nets.dense_params(draw, HIDDEN, OUTPUTS, spread),
    }


def time_size(inputs: int, hidden: int, rows: int, arguments: Arguments) -> dict[str, Any]:
    """Microseconds a frame of one row, integer and float."""
    frames = 60
    layers = (GRULayer("gru"),)
    params = {"gru": nets.gru_params(np.random.default_rng(0), inputs, hidden)}
    x = jnp.asarray(nets.signal(0, rows, frames, inputs))
    net = build(layers, params, calibrate(layers, params, [x]))
    genome = homogeneous(layers, 6)
    qx, state = quantize_input(net, x), init_state(net, genome, rows)
    integer, floating = jax.jit(apply_integer), jax.jit(gru)
    zeros = jnp.zeros((rows, hidden))
    calls = {
        "integer": functools.partial(integer, net, genome, state, qx),
        "float32": functools.partial(floating, params["gru"], zeros, x),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(arguments.rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append((time.perf_counter() - started) * 1e6 / rows / frames)
    quartiles = {
        name: [round(float(value), 3) for value in np.quantile(values, (0.25, 0.5, 0.75))]
        for name, values in times.items()
    }
    return {
        "inputs": inputs,
        "hidden": hidden,
        "rows": rows,
        "microseconds_a_row_frame_quartiles": quartiles,
        "integer_over_float32": round(quartiles["integer"][1] / quartiles["float32"][1], 2),
    }


if __name__ == "__main__":
    main(tyro.cli(Arguments))
