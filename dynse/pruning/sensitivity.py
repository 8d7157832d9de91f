"""Sensitivity of a net's tensors, and how far each can be pruned (Algorithm 1 of Tan and Wang).

For each tensor alone and ratios beta = 0, 5, ..., 100 %: zero the beta % of its groups that are
smallest, of those still non-zero; the increase I = L - L0 of the validation loss tells what that
costs. At the first beta with I > alpha the tensor's ratio is the beta before it; if there is none,
100 %. An increase that is not a number is above any alpha. At beta = 0 it is 0.

A candidate is a vector of thresholds, one a tensor. The tensors advance together, each by one ratio
or, where few tensors are left, by several, and one whose ratio is found asks for no more. Bisection
of the grid needs log2(21) evaluations a tensor instead, and finds the same ratio where the increase
crosses alpha once.

The loss is traced once and cut into `stages`. The net as it is runs once; a candidate runs again
what its masks change, not the layers before the pruned one nor a branch beside it. Thresholds are
traced: all tensors, ratios and iterations share one compilation of each stage, mapped over a chunk
of candidates.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynse.pruning.groups import Groups, get_tensor, named_tensors
from dynse.pruning.masks import group_magnitudes, ratio_thresholds
from dynse.pruning.stages import Stages

Sweep = Callable[[Any, Mapping[str, jax.Array], np.ndarray, Iterable[Any]], np.ndarray]


class Sensitivity(NamedTuple):
    """What Algorithm 1 found.

    Attributes:
        ratios: path to percent of the groups still non-zero that may go.
        thresholds: path to the threshold on the groups' l1 norm that prunes them.
        curves: path to ratio to increase of the loss, of all ratios that were evaluated.
        loss: L0.
    """

    ratios: dict[str, int]
    thresholds: dict[str, float]
    curves: dict[str, dict[int, float]]
    loss: float

    @property
    def evaluations(self) -> int:
        """How often the validation loss was asked for, L0 included."""
        return 1 + sum(len(curve) - 1 for curve in self.curves.values())

    @property
    def falls(self) -> dict[str, tuple[int, ...]]:
        """Path to the ratios at which the increase is below that of the evaluated ratio before.

        Of tensors whose curve was found monotone there is no entry. Below alpha a fall is
        harmless; one from above alpha means that bisection may have missed the first crossing.
        """
        found = {}
        for path, curve in self.curves.items():
            pairs = itertools.pairwise(sorted(curve))
            falls = tuple(after for before, after in pairs if curve[after] < curve[before])
            if falls:
                found[path] = falls
        return found


def make_sweep(loss: Callable[[Any, Any], jax.Array], *, chunk: int = 1, workers: int = 1) -> Sweep:
    """The map over candidates. Made once for a net: each sweep has its own compilation.

    Args:
        loss: `(params, batch) -> ()`, traceable: the validation loss of one batch. Not jitted as a
            whole, which would make it one stage.
        chunk: candidates of the same tensors side by side in one program; it bounds the memory. One
            at a time is fastest on a CPU, several fill an accelerator.
        workers: chunks at a time, each from a thread of its own: on a CPU, a scan over frames
            leaves all cores but one idle. What `with jax...` sets for the caller does not hold in
            them.

    Returns:
        `sweep(params, magnitudes, thresholds, batches) -> (P,)` float64: the mean over the batches
        of the loss of each candidate. `magnitudes` is from `group_magnitudes`; `thresholds` is
        (P, L), its columns in the order of the sorted paths. `batches` is iterated over once, each
        batch a pytree of arrays of the same shapes: the whole validation set as a list of one, or a
        reader of many. Batches count the same, so they should hold the same number of frames. What
        passes between the stages must fit into memory for the net as it is and each candidate at a
        time. Of the last batch it is kept: if that and the parameters are the same JAX arrays in
        the next call, the net as it is runs only once.

    Raises:
        ValueError: where chunk or workers is not positive; the sweep, where there is no batch.
    """
    if chunk < 1 or workers < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}; workers too, got {workers}")
    # A function of its own: JAX keeps what it traced for as long as the function lives.
    trace = jax.jit(lambda params, batch: loss(params, batch)).trace
    cut = functools.cache(Stages)
    last, own = [], {}
    seconds = {}  # that a block took the last time, by its changed columns

    def run(stages, inputs):
        nonlocal last, own
        if len(last) != 1 + len(inputs) or not all(map(operator.is_, last, [stages, *inputs])):
            own = {}  # its memory goes before the next is taken
            last, own = [stages, *inputs], stages.run(inputs)
        return own

    def sweep(params, magnitudes, thresholds, batches):
        params = jax.device_put(params)
        tensors, paths = named_tensors(params), sorted(magnitudes)
        places = tuple(list(tensors).index(path) for path in paths)
        blocks = list(_blocks(thresholds, chunk))
        total, seen = np.zeros(len(thresholds)), 0

        def evaluate(stages, own, block):
            started = time.perf_counter()
            changes = {}
            for column, limits in block[1].items():
                path = paths[column]
                changes[places[column]] = _prune(magnitudes[path], tensors[path], limits)
            losses = stages.run_changed(own, changes, 0 if chunk > 1 else None)
            # Asynchronous, what several threads ask of a CPU is done one after the other.
            jax.block_until_ready(losses)
            seconds[tuple(block[1])] = time.perf_counter() - started
            return losses

        # Batches outside: each is read and moved to the device once.
        for batch in batches:
            # The longest first, so that the workers end together.
            blocks.sort(key=lambda block: seconds.get(tuple(block[1]), math.inf), reverse=True)
            batch = jax.device_put(batch)
            stages = cut(trace(params, batch).jaxpr, places)  # of the same shapes the same object
            one = functools.partial(evaluate, stages, run(stages, jax.tree.leaves((params, batch))))
            if workers == 1:
                losses = list(map(one, blocks))
            else:
                with ThreadPoolExecutor(workers) as pool:
                    losses = list(pool.map(one, blocks))
            for (rows, _), values in zip(blocks, losses, strict=True):
                values = np.broadcast_to(np.asarray(values, np.float64), chunk)
                total[rows] += values[: len(rows)]
            seen += 1
        if not seen:
            raise ValueError("expected at least one batch, got none")
        return total / seen

    return sweep


def _blocks(
    thresholds: np.ndarray, chunk: int
) -> Iterator[tuple[list[int], dict[int, np.ndarray]]]:
    """Rows that are evaluated side by side, and by changed column their thresholds.

    Those are () for chunk 1 and else (chunk,), the last row repeated where there are fewer.
    """

    def changed(row):
        return tuple(np.flatnonzero(thresholds[row]).tolist())

    for columns, rows in itertools.groupby(range(len(thresholds)), changed):
        rows = list(rows)
        for start in range(0, len(rows), chunk):
            block = rows[start : start + chunk]
            filled = np.pad(block, (0, chunk - len(block)), mode="edge")
            yield block, {column: thresholds[filled, column].squeeze() for column in columns}


@jax.jit
def _prune(magnitudes, tensor, thresholds):
    """The tensor, or with thresholds (C,) so many of them, without the groups up to these."""
    thresholds = thresholds.reshape(thresholds.shape + (1,) * tensor.ndim)
    return jnp.where(magnitudes > thresholds, tensor, 0)


def analyze_sensitivity(
    sweep: Sweep,
    params: Any,
    groups: Groups,
    batches: Iterable[Any],
    *,
    alpha: float,
    step: int = 5,
    at_once: int = 6,
    bisect: bool = False,
) -> Sensitivity:
    """Algorithm 1: how many percent of each tensor's groups may go.

    Args:
        sweep: from `make_sweep`.
        params: pytree of arrays; what is zero is pruned already.
        groups: path to the axes within a group; `unstructured(groups)` for single weights.
        batches: of the validation set, as `sweep` wants them; iterated over several times.
        alpha: largest increase of the loss, not negative.
        step: percent between ratios; divides 100.
        at_once: candidates, at least, that are evaluated before it is looked at which tensors are
            done: one of each, or where fewer tensors are left as many of each as it takes. More of
            them keep workers busy, and chunks full, with what may be in vain.
        bisect: halve the grid instead, one candidate a tensor.

    Raises:
        ValueError: on a negative alpha, a step that is none, or no candidate at once.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha must not be negative, got {alpha}")
    if step < 1 or 100 % step or at_once < 1:
        raise ValueError(
            "expected a step that divides 100 and at least 1 candidate at once, "
            f"got {step} and {at_once}"
        )
    params = jax.device_put(params)
    grid = list(range(0, 101, step))
    magnitudes = group_magnitudes(params, groups)
    paths = sorted(groups)
    columns = {path: column for column, path in enumerate(paths)}
    tables = {path: ratio_thresholds(magnitudes[path], grid) for path in paths}
    curves = {path: {0: 0.0} for path in paths}
    # Indices of the grid: the last ratio known to be within alpha, the first known to be above.
    # A tensor that is all zero has nothing to evaluate: 100 % of nothing may go.
    within = {path: 0 if tables[path][-1] > 0 else len(grid) - 1 for path in paths}
    above = dict.fromkeys(paths, len(grid))

    def ask():
        asked = []
        left = [path for path in paths if within[path] + 1 < above[path]]
        for path in left:
            low, high = within[path] + 1, above[path]
            ahead = range(low, min(low - (-at_once // len(left)), high))
            asked += [(path, index) for index in ([(low + high - 1) // 2] if bisect else ahead)]
        return asked

    base = None
    while (asked := ask()) or base is None:
        rows = np.zeros((len(asked) + (base is None), len(paths)), np.float32)
        for row, (path, index) in zip(rows, asked, strict=False):
            row[columns[path]] = tables[path][index]
        losses = sweep(params, magnitudes, rows, batches).tolist()
        if base is None:  # the first time the last row, with no threshold, is the net as it is
            base = losses.pop()
        for (path, index), value in zip(asked, losses, strict=True):
            curves[path][grid[index]] = increase = value - base
            if index < above[path]:
                side = within if increase <= alpha else above
                side[path] = index
    return Sensitivity(
        ratios={path: grid[within[path]] for path in paths},
        thresholds={path: float(tables[path][within[path]]) for path in paths},
        curves=curves,
        loss=base,
    )


def with_common_threshold(params: Any, groups: Groups, found: Sensitivity) -> Sensitivity:
    """As many weights pruned, but by one threshold for all tensors: what Algorithm 1 is held to.

    Groups are compared by the mean magnitude of their weights. Ours: the papers do not say how
    their one threshold was chosen; here the number of weights is Algorithm 1's on the same net.

    Args:
        params: as `analyze_sensitivity` had them.
        groups: path to the axes within a group.
        found: what it gave.

    Returns:
        With the threshold of each tensor, its largest magnitude that goes, and the percent of its
        groups that do, rounded.
    """
    magnitudes, sizes = {}, {}
    for path, values in group_magnitudes(params, groups).items():
        sizes[path] = get_tensor(params, path).size // values.size
        magnitudes[path] = np.asarray(values)[np.asarray(values) > 0]
    means = np.concatenate([magnitudes[path] / sizes[path] for path in groups])
    weights = np.concatenate([np.full(len(magnitudes[path]), sizes[path]) for path in groups])
    going = sum(
        sizes[path] * np.count_nonzero(magnitudes[path] <= found.thresholds[path])
        for path in groups
    )
    order = np.argsort(means)
    count = np.searchsorted(np.cumsum(weights[order]), going, side="right")
    limit = means[order[count - 1]] if count else 0.0
    # Not the limit times the size of a group, which may be rounded below the group's own magnitude.
    thresholds = {
        path: float(values[values / sizes[path] <= limit].max(initial=0.0))
        for path, values in magnitudes.items()
    }
    ratios = {
        path: round(100 * float((values <= thresholds[path]).mean())) if values.size else 100
        for path, values in magnitudes.items()
    }
    return found._replace(ratios=ratios, thresholds=thresholds)
