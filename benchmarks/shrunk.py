"""What a net pruned in whole groups gains where its units have vanished: MACs, and time.

    python experiments/compress.py --preset mini --corpus FOLDER --net fdnn --pipeline C2
    python benchmarks/shrunk.py --packed runs/compress-mini/fdnn-C2-seed0/iteration-3/pruned.packed

Of each packed file (an FDNN or an LSTM) the net as it is, its zeros multiplied like all else, and
the narrower net without the units that nothing is left of (`dynse.pruning.shrink`). Checked first
is that both give the same output, to 1e-5 of the largest magnitude. Timed are one frame, each
waiting for the one before, and a block of 401 frames; one row, the parameters arguments of the
compiled program. Medians and quartiles over interleaved rounds in one process; the speed-ups are
medians of the rounds' own ratios. Writes benchmarks/results/shrunk.json.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from dynse.evaluation.scores import commit, machine
from dynse.layers.cost import total_macs
from dynse.pruning import groups_by_rank, pruned_macs
from dynse.pruning.runs import load_packed_run, shrunk_run
from dynse.training.loop import write_json
from dynse.training.memory import keep_freed_memory

TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Time nets before and after their empty units are gone."""

    packed: tuple[pathlib.Path, ...]
    """Packed files of FDNNs and LSTMs."""
    block: int = 401
    """Frames of a block: 4 s."""
    calls: int = 50
    """Frames on end in each round, and a block."""
    rounds: int = 30
    """Interleaved rounds."""
    out: pathlib.Path = pathlib.Path(__file__).parent / "results" / "shrunk.json"
    """Where the figures go."""


def main(arguments: Arguments) -> dict[str, Any]:
    """Shrink, check, time, print, write."""
    kept = keep_freed_memory()
    nets = {}
    for path in arguments.packed:
        name = "/".join(path.resolve().parts[-3:])
        nets[name] = measure(path, arguments)
        print(name, nets[name])
    content = {
        "machine": machine(),
        "commit": commit(),
        "memory_kept": kept,
        "block": arguments.block,
        "calls": arguments.calls,
        "rounds": arguments.rounds,
        "nets": nets,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, content)
    return content


def measure(path: pathlib.Path, arguments: Arguments) -> dict[str, Any]:
    """Figures of one file.

    Raises:
        SystemExit: where its network is no chain, or the narrower one gives another output.
    """
    model, variables, run = load_packed_run(path)
    if (narrow := shrunk_run(run, variables)) is None:
        raise SystemExit(f"{path}: expected an FDNN or an LSTM, got {run.net.kind}")
    small_run, small_variables = narrow
    small = small_run.net.build(run.stft.bins)
    draw = np.random.default_rng(0).normal(size=(1, arguments.block, run.stft.bins))
    block = jnp.asarray(np.abs(draw), jnp.float32)
    timed = {
        (name, frames): _Timed(net, values, block[:, :frames])
        for name, net, values in (("dense", model, variables), ("shrunk", small, small_variables))
        for frames in (1, arguments.block)
    }
    expected, found = (timed[name, arguments.block].output() for name in ("dense", "shrunk"))
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= TOLERANCE:
        raise SystemExit(f"{path}: the narrower net is off by {error:.1e} of the largest output")

    calls = {1: arguments.calls, arguments.block: 1}
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in timed}
    for _ in range(arguments.rounds + 1):
        for (name, frames), one in timed.items():
            seconds[name, frames].append(one.run(calls[frames]))
    times: dict[str, Any] = {}
    for frames, label in ((1, "frame"), (arguments.block, "block")):
        dense, shrunk = (np.array(seconds[name, frames][1:]) for name in ("dense", "shrunk"))
        times[label] = {
            "dense_us": _quartiles(1e6 * dense),
            "shrunk_us": _quartiles(1e6 * shrunk),
            "times_faster": _quartiles(dense / shrunk),
        }
    groups = groups_by_rank(variables["params"])
    return {
        "net": run.net.kind,
        "hidden": list(run.net.hidden),
        "hidden_shrunk": list(small_run.net.hidden),
        "macs": total_macs(model.cost()),
        "macs_of_weights_not_zero": int(pruned_macs(model.cost(), variables["params"], groups)),
        "macs_shrunk": total_macs(small.cost()),
        "largest_error": error,
        **times,
    }


class _Timed:
    """A compiled step on blocks of one length."""

    def __init__(self, net: Any, variables: Any, frames: jax.Array) -> None:
        self.variables = jax.device_put(dict(variables))
        self.frames, self.state = frames, net.init_state(1)

        def step(variables: Any, state: Any, frames: jax.Array) -> tuple[Any, jax.Array]:
            return net.step(variables, state, frames)[:2]

        self.step = jax.jit(step).lower(self.variables, self.state, frames).compile()

    def output(self) -> np.ndarray:
        """Of the first block."""
        return np.asarray(self.step(self.variables, self.state, self.frames)[1])

    def run(self, calls: int) -> float:
        """Mean seconds of a call; each waits for the one before."""
        started, state = time.perf_counter(), self.state
        for _ in range(calls):
            state, output = self.step(self.variables, state, self.frames)
            output.block_until_ready()
        return (time.perf_counter() - started) / calls


def _quartiles(values: np.ndarray) -> list[float]:
    """First quartile, median, third."""
    return [float(f"{value:.4g}") for value in np.quantile(values, [0.25, 0.5, 0.75])]


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
