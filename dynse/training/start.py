"""What every experiment does first: memory, precision, compiled programs; folder and corpus."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import NamedTuple, Protocol

import jax
from rich.console import Console

from dynse.data.bank import Corpus
from dynse.data.cache import default_cache_dir
from dynse.data.named import is_drawn_from, named_corpus
from dynse.data.testsets import read_csv
from dynse.training.memory import keep_freed_memory
from dynse.training.mesh import join_processes

NVIDIA = pathlib.Path("/proc/driver/nvidia")


def start_experiment(cache_dir: str | os.PathLike[str] | None = None) -> Console:
    """Set JAX up and print the devices; to be called before anything is computed.

    Where the environment names several processes, they train together (`dynse.training.mesh`); what
    is not trained each does for itself.

    Freed memory stays in the process, float32 matmuls are float32 on accelerators too, and
    compiled programs are kept in the cache, so that what resumes does not compile again.

    Args:
        cache_dir: where caches are; the default place if None.

    Returns:
        The console to print and to draw progress on.
    """
    keep_freed_memory()
    join_processes()
    jax.config.update("jax_default_matmul_precision", "float32")
    cache = pathlib.Path(cache_dir) if cache_dir is not None else default_cache_dir()
    jax.config.update("jax_compilation_cache_dir", str(cache / "programs"))
    console = Console(quiet=jax.process_index() > 0)
    devices = jax.devices()
    console.print(f"devices: {', '.join(str(device) for device in devices)}")
    if devices[0].platform == "cpu" and NVIDIA.exists():
        console.print("An NVIDIA GPU is here but JAX does not use it: pip install 'jax[cuda13]'")
    return console


class Arguments(Protocol):
    """What an experiment on speech and noise is told."""

    preset: str
    run_dir: pathlib.Path | None
    corpus: pathlib.Path | None
    cache_dir: pathlib.Path | None
    seed: int


class Opened(NamedTuple):
    """What it then has.

    Attributes:
        console: to print on.
        run_dir: where everything goes.
        corpus: decoded.
        test_set: CSV of the preset's fixed test set, None where the corpus is another.
    """

    console: Console
    run_dir: pathlib.Path
    corpus: Corpus
    test_set: str | None


def open_experiment(
    name: str, arguments: Arguments, corpus: str, test_set: str | None = None
) -> Opened:
    """Start an experiment, make its folder and read its corpus.

    Args:
        name: of the experiment; where no folder is given, it is runs/NAME-PRESET.
        arguments: of the experiment.
        corpus: the preset's, as `named_corpus` takes it, or "" where a folder must be given.
        test_set: CSV of the preset's fixed test set, which tells the name of its corpus as well.

    Raises:
        SystemExit: where there is no corpus.
    """
    if arguments.corpus is not None:
        corpus = str(arguments.corpus)
    if not corpus:
        raise SystemExit(f"preset {arguments.preset} needs --corpus FOLDER")
    console = start_experiment(arguments.cache_dir)
    run_dir = arguments.run_dir or pathlib.Path("runs") / f"{name}-{arguments.preset}"
    run_dir.mkdir(parents=True, exist_ok=True)
    found = named_corpus(corpus, seed=arguments.seed, cache_dir=arguments.cache_dir)
    if test_set is not None:
        mixtures = read_csv(test_set)
        if is_drawn_from(mixtures, found):
            found = dataclasses.replace(found, name=mixtures.corpus)
        else:
            console.print(f"{corpus} is not {mixtures.corpus}: a test set of its own is drawn")
            test_set = None
    if found.skipped:
        console.print(f"{len(found.skipped)} files skipped, first: {found.skipped[0]}")
    return Opened(console, run_dir, found, test_set)
