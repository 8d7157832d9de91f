"""What a bank costs that stays on the host.

    python benchmarks/reader.py                     # about five minutes on two cores

In one process on one machine, of a bank of random samples in a file of its own, 16 x 2 s a batch:
batches a second of the reader alone, from a memory map whose pages were dropped before each round
and once more from the same pages; and the whole train step of the causal 128/256 net with its
crops read ahead, read without a thread, and drawn from the same bank on the device, in interleaved
rounds. Medians and quartiles. All three train the same net: their losses are checked equal bit for
bit, and so are the crops. Writes benchmarks/results/reader.json.
"""

from __future__ import annotations

import dataclasses
import itertools
import mmap
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import tyro

from dynse.data.bank import Bank
from dynse.data.mixing import HostSource, MixingConfig, Source, device_source, host_source
from dynse.evaluation.scores import commit, machine
from dynse.training.crops import CropDraw
from dynse.training.loop import write_json
from dynse.training.memory import keep_freed_memory
from dynse.training.nets import ConvFSENetConfig
from dynse.training.runs import RunConfig, new_state, train_crops, train_step

CHUNK_S = 600


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Time the reader."""

    hours: float = 8.0
    """Of audio in the bank; 115 MB each. The device must hold it."""
    speakers: int = 100
    """Groups of the bank."""
    rounds: int = 15
    """Medians and quartiles are over these."""
    batches: int = 20
    """Read in each round of the reader alone."""
    steps: int = 2
    """Train steps in each round."""
    small: bool = False
    """A net of a few thousand parameters and batches of 2 x 0.5 s, to try the script."""
    folder: pathlib.Path | None = None
    """Where the bank is written for the time being; the system's temporary folder if not given."""
    out: pathlib.Path = pathlib.Path(__file__).parent / "results" / "reader.json"
    """Where the figures go."""


def main(arguments: Arguments) -> dict[str, Any]:
    """Measure, print, write."""
    kept = keep_freed_memory()
    config = RunConfig()
    if arguments.small:
        net = ConvFSENetConfig(width=6, inner=8, stacks=1, blocks=2)
        config = RunConfig(net=net, mixing=MixingConfig(batch_size=2, crop_s=0.5))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = pathlib.Path(folder) / "samples"
        _write(path, arguments)
        with open(path, "rb") as file:
            bank = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            source = _source(bank, arguments)
            times = _reader_times(bank, file.fileno(), _crops(config, source), arguments)
            times |= _step_times(source, config, arguments)
    seconds_of_audio = config.mixing.batch_size * config.mixing.crop_s
    results = {name: _summary(values, seconds_of_audio) for name, values in times.items()}
    content = {
        "machine": machine(),
        "commit": commit(),
        "memory_kept": kept,
        "hours": arguments.hours,
        "speakers": arguments.speakers,
        "rounds": arguments.rounds,
        "batch": [config.mixing.batch_size, config.mixing.crop_s],
        "times": results,
        "losses_equal": True,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, content)
    for name, values in results.items():
        print(f"{name:28s} {values}")
    return content


def _reader_times(
    bank: mmap.mmap, file: int, read: CropDraw, arguments: Arguments
) -> dict[str, list[float]]:
    """Seconds a batch of speech and noise, one a round: from the disk, and the same ones again."""
    times: dict[str, list[float]] = {"reader, pages dropped": [], "reader, pages in memory": []}
    for index in range(arguments.rounds + 1):
        _drop_pages(bank, file)
        for own in times.values():
            started = time.perf_counter()
            for batch in range(arguments.batches):
                read(index * arguments.batches + batch)
            own.append((time.perf_counter() - started) / arguments.batches)
    return {name: own[1:] for name, own in times.items()}  # the first compiles


def _step_times(
    source: HostSource, config: RunConfig, arguments: Arguments
) -> dict[str, list[float]]:
    """Seconds a step, one a round, of each way to get its crops."""
    host, device = _crops(config, source), _crops(config, device_source(source))
    for left, right in zip(jax.tree.leaves(host(0)), jax.tree.leaves(device(0)), strict=True):
        np.testing.assert_array_equal(left, right)
    ways: dict[str, Callable[[], Iterator[Any]]] = {
        "step, on the device": lambda: device.each(itertools.count()),
        "step, read ahead": lambda: host.each(itertools.count()),
        "step, read in between": lambda: map(host, itertools.count()),
    }
    step = train_step(config)
    coming = {name: way() for name, way in ways.items()}
    states = {name: new_state(config) for name in ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(arguments.rounds + 1):
        losses = {}
        for name, crops in coming.items():
            started = time.perf_counter()
            for _ in range(arguments.steps):
                states[name], metrics = step(states[name], *next(crops))
                jax.block_until_ready(states[name])
            elapsed = (time.perf_counter() - started) / arguments.steps
            if index:  # the first compiles
                times[name].append(elapsed)
            losses[name] = float(metrics["loss"])
        if len(set(losses.values())) != 1:
            raise RuntimeError(f"the losses differ after {index + 1} rounds: {losses}")
    coming["step, read ahead"].close()
    return times


def _crops(config: RunConfig, source: Source | HostSource) -> CropDraw:
    return train_crops(config, source, source)


def _write(path: pathlib.Path, arguments: Arguments) -> None:
    """Noise, in pieces: the bank need not fit into memory."""
    draw = np.random.default_rng(0)
    left = round(arguments.hours * 3600 * 16000)
    with open(path, "wb") as file:
        while left:
            count = min(left, CHUNK_S * 16000)
            draw.integers(-8000, 8000, count, np.int16).tofile(file)
            left -= count
        file.flush()
        os.fsync(file.fileno())


def _source(bank: mmap.mmap, arguments: Arguments) -> HostSource:
    samples = np.frombuffer(bank, np.int16)
    offsets = np.linspace(0, len(samples), arguments.speakers + 1).astype(np.int64)
    names = tuple(f"{index:06d}" for index in range(arguments.speakers))
    return host_source(Bank(samples, offsets, names, names))


def _drop_pages(bank: mmap.mmap, file: int) -> None:
    """Have the kernel forget the file's pages; where it cannot (macOS, tmpfs), they stay."""
    if hasattr(os, "posix_fadvise"):
        bank.madvise(mmap.MADV_DONTNEED)  # what a process has mapped is not dropped
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _summary(values: list[float], seconds_of_audio: float) -> dict[str, Any]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return {
        "median_ms": round(1000 * median, 3),
        "quartiles_ms": [round(1000 * low, 3), round(1000 * high, 3)],
        "batches_per_s": round(1 / median, 2),
        "times_real_time": round(seconds_of_audio / median, 1),
    }


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
