"""How long a frame takes at each exit, and whether its MACs tell.

    python benchmarks/exits.py                      # seconds, on two quiet cores

One frame of nsNet2 with exits, one jitted program a fixed exit with its own parameters alone, one
row, all in one process; medians and quartiles over interleaved rounds. A line is fitted through
the medians by least squares,

    time = a + b MACs,     a: what a call costs that computes nothing

and the largest distance of an exit from it is stated as a share of the full net's time. Writes
benchmarks/results/exits.json.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from dynse.evaluation.scores import commit, machine
from dynse.layers.cost import total_macs
from dynse.models.early_exit_nsnet2 import EXITS, EarlyExitNsNet2
from dynse.training.loop import write_json
from dynse.training.memory import keep_freed_memory


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Time the exits."""

    split: Literal["none", "duplicate", "divide"] = "none"
    """Of the information flow."""
    hidden: int = 400
    """Width of the first layer and of both GRUs."""
    wide: int = 600
    """Width of the last hidden layers."""
    rounds: int = 30
    """Interleaved rounds."""
    calls: int = 100
    """Frames on end in each round."""
    out: pathlib.Path = pathlib.Path(__file__).parent / "results" / "exits.json"
    """Where the figures go."""


def main(arguments: Arguments) -> dict[str, Any]:
    """Measure, fit, print, write."""
    kept = keep_freed_memory()
    net = EarlyExitNsNet2(
        first=arguments.hidden,
        hidden=arguments.hidden,
        wide=arguments.wide,
        exits=EXITS,
        split=arguments.split,
    )
    draw = np.random.default_rng(0)
    frame = jnp.asarray(np.abs(draw.normal(size=(1, 1, net.bins))), jnp.float32)
    variables = jax.jit(net.init)(jax.random.key(0), frame)
    programs, macs = {}, {}
    for index, name in enumerate(EXITS):
        program = net.clone(exit_index=index)
        programs[name] = _Stream(program, variables, frame)
        macs[name] = total_macs(program.cost())
    times: dict[str, list[float]] = {name: [] for name in EXITS}
    for stream in programs.values():
        stream.run(arguments.calls)
    for _ in range(arguments.rounds):
        for name, stream in programs.items():
            times[name].append(stream.run(arguments.calls))

    medians = np.array([np.median(times[name]) for name in EXITS])
    counts = np.array([macs[name] for name in EXITS], np.float64)
    slope, constant = np.polyfit(counts, medians, 1)
    shares = (medians - constant - slope * counts) / medians[-1]
    results = {
        name: {
            "macs": macs[name],
            "median_us": round(1e6 * float(median), 1),
            "quartiles_us": (1e6 * np.quantile(times[name], [0.25, 0.75])).round(1).tolist(),
            "off_the_line_share_of_full": round(float(share), 4),
        }
        for name, median, share in zip(EXITS, medians, shares, strict=True)
    }
    content = {
        "machine": machine(),
        "commit": commit(),
        "memory_kept": kept,
        **{
            field: getattr(arguments, field)
            for field in ("split", "hidden", "wide", "rounds", "calls")
        },
        "exits": results,
        "line": {"a_us": round(1e6 * constant, 2), "b_us_per_mmac": round(1e12 * slope, 2)},
        "largest_share_of_full_off_the_line": round(float(np.abs(shares).max()), 4),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, content)
    for name, values in results.items():
        print(f"{name:5s} {values}")
    print(f"a = {1e6 * constant:.1f} us a frame, b = {1e12 * slope:.1f} us per MMAC")
    print(f"largest distance from the line: {np.abs(shares).max():.1%} of the full net's time")
    return content


class _Stream:
    """The compiled step of one exit, and its state."""

    def __init__(self, program: Any, variables: Any, frame: jax.Array) -> None:
        own = {cost.path for cost in program.cost()}
        params = {name: leaf for name, leaf in variables["params"].items() if name in own}
        self.variables = {**variables, "params": params}
        self.frame, self.state = frame, program.init_state(1)

        def step(variables: Any, state: Any, frame: jax.Array) -> tuple[Any, jax.Array]:
            return program.step(variables, state, frame)[:2]

        jitted = jax.jit(step, donate_argnums=1)
        self.step = jitted.lower(self.variables, self.state, frame).compile()

    def run(self, calls: int) -> float:
        """Mean seconds of a frame; each waits for the one before."""
        started = time.perf_counter()
        for _ in range(calls):
            self.state, gain = self.step(self.variables, self.state, self.frame)
            gain.block_until_ready()
        return (time.perf_counter() - started) / calls


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
