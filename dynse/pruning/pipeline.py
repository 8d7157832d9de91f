"""A net's compression in a folder: Algorithm 2 with a code book after every iteration, resumable.

    iteration-0/    the trained net, nothing pruned; clustered alone
    iteration-K/    sensitivity.json     what Algorithm 1 found
                    pruned.packed        the net pruned and fine-tuned
                    pruned.json          its scores
                    clustered.packed     the same clustered by Algorithm 3: the compressed net
                    clustered.json       clusters of each tensor

Each JSON file is written last, whole, and says that its step is done: started again on the same
folder, the loop goes on behind the last of them and ends with the same nets. The packed files are
the nets themselves, so the state between two iterations is what a user would load.

That every iteration is clustered, and not the last alone, is ours: it gives quality against rate
as a curve, and in iteration 0 what clustering does by itself. Pruning goes on from the weights
that are not clustered, as published.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dynse.atomic import write_whole
from dynse.pruning.accounting import Sizes, sizes
from dynse.pruning.clustering import Clustering
from dynse.pruning.groups import Groups
from dynse.pruning.iterate import PruningState, StopRule, prune, start_pruning
from dynse.pruning.masks import masks_by_thresholds
from dynse.pruning.packed import load_packed, save_packed
from dynse.pruning.sensitivity import Sensitivity

PREFIX = "params/"


class Stage(NamedTuple):
    """A net after some iterations.

    Attributes:
        state: pruned and fine-tuned.
        sizes: of the net as it is there.
        clustered: the same variables clustered.
        clustered_sizes: of those.
        clusters: path to K; 0 for a tensor without weights.
        impacts: path to the increase of the loss by that tensor's code book alone.
        path: of the packed file of the clustered net.
    """

    state: PruningState
    sizes: Sizes
    clustered: Any
    clustered_sizes: Sizes
    clusters: dict[str, int]
    impacts: dict[str, float]
    path: Path


def compress(
    folder: str | os.PathLike[str],
    variables: Mapping[str, Any],
    groups: Groups,
    *,
    analyze: Callable[[Any], Sensitivity],
    finetune: Callable[[Any, Any, int], Any],
    score: Callable[[Any], Mapping[str, float]],
    cluster: Callable[[Any], Clustering],
    rule: StopRule,
    before: Any = None,
    metadata: Any = None,
) -> Iterator[Stage]:
    """Prune and cluster a net, or go on where the last call on this folder stopped.

    The functions must decide by their arguments alone, or the folder's nets are not theirs.

    Args:
        folder: where everything goes.
        variables: nested dict; "params" are the net's parameters, what stands beside them (running
            statistics) goes into the files and is counted in their size alone.
        groups: path ("params/fc1/kernel") to the axes within a group.
        analyze: `variables -> Sensitivity`, Algorithm 1.
        finetune: `(variables, masks, iteration) -> variables`, pruned weights left at zero.
        score: `variables -> name to value` on the validation set, higher is better.
        cluster: `variables -> Clustering`, Algorithm 3.
        rule: when to stop.
        before: variables whose scores the rule compares with; `variables` if None.
        metadata: kept in the files, what JSON can hold.

    Yields:
        The stage after each iteration, 0 first. The last one is where the rule stopped.

    Raises:
        ValueError: where a path is none of "params", or fine-tuning moved a pruned weight.
    """
    wrong = sorted(path for path in groups if not path.startswith(PREFIX))
    if wrong:
        raise ValueError(f"expected paths below {PREFIX!r}, got {', '.join(wrong)}")
    folder = Path(folder)
    state = None
    while state is None or rule.reason(state) is None:
        iteration = 0 if state is None else state.iteration + 1
        place = folder / f"iteration-{iteration}"
        following = _load_state(place, iteration, groups)
        if following is None:
            if state is None:
                following = start_pruning(variables, groups, score)
                if before is not None:
                    following = following._replace(first_scores=dict(score(before)))
            else:
                following = next(
                    prune(
                        state,
                        groups,
                        analyze=lambda params, place=place: _kept_analysis(place, analyze, params),
                        finetune=finetune,
                        score=score,
                        rule=rule,
                    )
                )
            _save_state(place, following, groups, metadata)
        state = following
        yield _stage(place, state, groups, cluster, metadata)


def _stage(place, state, groups, cluster, metadata):
    """The state with its clustered form, made or read."""
    path, done = place / "clustered.packed", place / "clustered.json"
    if not done.exists():
        found = cluster(state.params)
        save_packed(path, found.params, groups=groups, metadata=metadata)
        clusters = {name: len(book) for name, book in found.codebooks.items()}
        _write(done, {"clusters": clusters, "impacts": found.impacts})
    notes = json.loads(done.read_text())
    clustered = load_packed(path)[0]
    return Stage(
        state=state,
        sizes=_sizes(place / "pruned.packed", state.params, groups, {}),
        clustered=clustered,
        clustered_sizes=_sizes(path, clustered, groups, notes["clusters"]),
        clusters=notes["clusters"],
        impacts=notes["impacts"],
        path=path,
    )


def _sizes(path, variables, groups, clusters) -> Sizes:
    """Of the parameters alone, as published; the file is the whole one."""
    own = {name.removeprefix(PREFIX): axes for name, axes in groups.items()}
    books = {name.removeprefix(PREFIX): range(count) for name, count in clusters.items()}
    return sizes(path, variables["params"], own, books)


def _kept_analysis(place, analyze, params) -> Sensitivity:
    """Algorithm 1, or what it found before: it may take longer than the fine-tuning after it."""
    path = place / "sensitivity.json"
    if not path.exists():
        _write(path, analyze(params)._asdict())
    content = json.loads(path.read_text())
    curves = {
        name: {int(ratio): value for ratio, value in curve.items()}
        for name, curve in content.pop("curves").items()
    }
    return Sensitivity(**content, curves=curves)


def _save_state(place, state, groups, metadata):
    save_packed(place / "pruned.packed", state.params, groups=groups, metadata=metadata)
    notes = {name: getattr(state, name) for name in ("scores", "first_scores", "pruned")}
    _write(place / "pruned.json", notes)


def _load_state(place, iteration, groups) -> PruningState | None:
    done = place / "pruned.json"
    if not done.exists():
        return None
    params = load_packed(place / "pruned.packed")[0]
    sensitivity = _kept_analysis(place, None, params) if iteration else None
    # What is zero was pruned; the next masks are made from the weights in any case.
    masks = masks_by_thresholds(params, groups, {})
    notes = json.loads(done.read_text())
    return PruningState(iteration, params, masks, sensitivity=sensitivity, **notes)


def _write(path, content):
    write_whole(path, json.dumps(content, indent=1) + "\n")
