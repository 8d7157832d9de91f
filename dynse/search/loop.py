"""The search from first to last generation: progress, archive, resumption.

The archive is every genome that was evaluated with its objectives. With a run folder it is kept
in `search.npz`, with the state, and written whole after each generation. Started again on the same
folder, a search goes on after the last generation there and ends bit-identical to one that was
never stopped; the archive of another configuration is refused. The number of generations is not
part of the configuration: more of them continue the same search.
"""

from __future__ import annotations

import io
import json
import pathlib
import time
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from dynse.atomic import write_whole
from dynse.progress import progress_bar
from dynse.search.hypervolume import hypervolume
from dynse.search.nsga2 import NSGA2, SearchState
from dynse.search.sorting import pareto_front

ARCHIVE = "search.npz"


class SearchResult(NamedTuple):
    """What a search of N generations of P genomes found.

    Attributes:
        genomes: (N, P, G) int32, all that were evaluated, in order.
        objectives: (N, P, M) float32, theirs.
        front_genomes: (K, G), of all evaluated those that none dominates.
        front_objectives: (K, M), theirs, sorted by the first objective.
        seconds: (N,) that each generation took, compilation in the first after a start included.
        hypervolume: (N,) of all evaluated up to and with each generation; float64.
        reference: (M,) that it is measured from.
        state: after the last generation.
    """

    genomes: np.ndarray
    objectives: np.ndarray
    front_genomes: np.ndarray
    front_objectives: np.ndarray
    seconds: np.ndarray
    hypervolume: np.ndarray
    reference: np.ndarray
    state: SearchState


def search(
    algorithm: NSGA2,
    evaluate: Callable[[jax.Array], Any],
    *,
    generations: int,
    key: jax.Array,
    seeds: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    identity: Mapping[str, Any] | None = None,
    run_dir: str | pathlib.Path | None = None,
    console: Console | None = None,
    title: str = "search",
) -> SearchResult:
    """Search, or go on where the last search in this folder stopped.

    Args:
        algorithm: 2 or 3 objectives.
        evaluate: `(P, G) int32 -> (P, M)` objectives, minimised; NaN where one failed. The same
            genome must always get the same. They are kept in float32.
        generations: in all, the first population included.
        key: decides the whole search.
        seeds: (S, G) genomes of the first population.
        reference: (M,) of the hypervolume; None: a tenth of the first population's range of each
            objective beyond its worst finite value, which is ours.
        identity: what else decides the outcome (the task, the model), as JSON: an archive with
            another one is refused.
        run_dir: folder of the archive, made where it is missing; None keeps none.
        console: where to draw the progress bar.
        title: name on the bar.

    Raises:
        ValueError: where the folder's archive is of another configuration, longer than
            `generations` or no archive; where `evaluate` gives another shape; where the whole
            first population failed and no reference is given.
    """
    if generations < 1:
        raise ValueError(f"generations must be at least 1, got {generations}")
    if algorithm.objectives not in (2, 3):  # before hours of evaluation, not after
        raise ValueError(f"expected 2 or 3 objectives, got {algorithm.objectives}")
    path = None if run_dir is None else pathlib.Path(run_dir) / ARCHIVE
    state = algorithm.init(key, seeds)
    configuration = _configuration(algorithm, key, seeds, reference, identity)
    genomes: list[np.ndarray] = []
    objectives: list[np.ndarray] = []
    seconds: list[float] = []
    if path is not None and path.exists():
        state, genomes, objectives, seconds = _load(path, configuration, key)
        if len(genomes) > generations:
            raise ValueError(
                f"{path} holds {len(genomes)} generations, more than the {generations} asked for"
            )
    tracker = _Tracker(reference)
    for rows in zip(genomes, objectives, strict=True):
        tracker.add(*rows)
    with progress_bar(console) as progress:
        bar = progress.add_task(
            title, total=generations, completed=len(genomes), status="compiling"
        )
        while len(genomes) < generations:
            started = time.perf_counter()
            state, asked = algorithm.ask(state)
            told = np.asarray(evaluate(asked), np.float32)
            state = algorithm.tell(state, asked, told)
            genomes.append(np.asarray(asked))
            objectives.append(told)
            tracker.add(genomes[-1], told)
            seconds.append(time.perf_counter() - started)
            if path is not None:
                _save(path, configuration, state, genomes, objectives, seconds)
            speed = len(told) / seconds[-1]
            status = f"hypervolume {tracker.volumes[-1]:.6g}  {speed:.1f} genomes/s"
            progress.update(bar, advance=1, status=status)
    return SearchResult(
        genomes=np.stack(genomes),
        objectives=np.stack(objectives),
        front_genomes=tracker.genomes,
        front_objectives=tracker.objectives,
        seconds=np.array(seconds),
        hypervolume=np.array(tracker.volumes),
        reference=tracker.reference,
        state=state,
    )


class _Tracker:
    """The front and its hypervolume, generation by generation."""

    def __init__(self, reference: np.ndarray | None) -> None:
        self.reference = None if reference is None else np.asarray(reference, np.float64)
        self.volumes: list[float] = []

    def add(self, genomes: np.ndarray, objectives: np.ndarray) -> None:
        if self.reference is None:
            self.reference = _reference_beyond(objectives)
        if self.volumes:
            genomes = np.concatenate([self.genomes, genomes])
            objectives = np.concatenate([self.objectives, objectives])
        self.genomes, self.objectives = pareto_front(genomes, objectives)
        self.volumes.append(hypervolume(self.objectives, self.reference))


def _reference_beyond(objectives: np.ndarray) -> np.ndarray:
    finite = np.asarray(objectives, np.float64)
    finite = finite[np.isfinite(finite).all(1)]
    if not len(finite):
        raise ValueError(
            "no genome of the first population has finite objectives: evaluate() fails for all of "
            "them, or a reference must be given"
        )
    lowest, highest = finite.min(0), finite.max(0)
    return highest + (highest - lowest) / 10


def _configuration(algorithm, key, seeds, reference, identity) -> dict[str, Any]:
    def plain(array):
        return None if array is None else np.asarray(array).tolist()

    content = {
        "algorithm": repr(algorithm),
        "key": [str(jax.random.key_impl(key)), plain(jax.random.key_data(key))],
        "seeds": plain(seeds),
        "reference": plain(reference),
        "identity": identity,
    }
    return json.loads(json.dumps(content))


def _save(path, configuration, state, genomes, objectives, seconds) -> None:
    fields = state._replace(key=jax.random.key_data(state.key))._asdict()
    content = io.BytesIO()
    np.savez(
        content,
        configuration=np.array(json.dumps(configuration)),
        genomes=np.stack(genomes),
        objectives=np.stack(objectives),
        seconds=np.array(seconds),
        **{f"state_{name}": np.asarray(value) for name, value in fields.items()},
    )
    write_whole(path, content.getvalue())


def _load(path, configuration, key):
    """State; genomes, objectives and seconds per generation. Of the key its kind is looked at."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            arrays = dict(content)
        found = json.loads(str(arrays["configuration"]))
        fields = {name: arrays[f"state_{name}"] for name in SearchState._fields}
        genomes, objectives = list(arrays["genomes"]), list(arrays["objectives"])
        seconds = arrays["seconds"].tolist()
    except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no archive of a search: {error!r}") from error
    if found != configuration:
        changed = sorted(name for name in configuration if found.get(name) != configuration[name])
        raise ValueError(
            f"{path} holds a search of another configuration (different: {', '.join(changed)}): "
            "choose another folder, or delete it"
        )
    data = fields.pop("key")
    state = SearchState(
        **jax.tree.map(jax.numpy.asarray, fields),
        key=jax.random.wrap_key_data(data, impl=jax.random.key_impl(key)),
    )
    return state, genomes, objectives, seconds
