"""One search for bit widths on one task: float net, integer net, NSGA-II, scores, record.

    float net -> ranges and scales -> search on its own split -> front
    front and simple nets -> smallest comparable on the validation split -> scores on the test split

What is chosen on the validation split is chosen on several copies of it, with the noise that the
training draws: some hundred sequences as they are cannot tell half a point of accuracy (ours).

The simple nets need no search: 2 to 8 bits everywhere, and 2 to 8 bits for the matrices alone.
They are in the first population. A run leaves checkpoints and generations in its folder and goes
on from there.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from dynse.evaluation.bit_records import (
    KINDS,
    BitRecord,
    Point,
    budget_scores,
    smallest_comparable,
)
from dynse.evaluation.scores import commit, machine
from dynse.quantization import (
    GRU_OPERATIONS,
    IntegerNet,
    gene_names,
    mac_bits,
    requantize,
    weight_bits,
)
from dynse.search import NSGA2, batched, hypervolume, search
from dynse.search.loop import SearchResult
from dynse.training.bit_tasks import (
    BitTask,
    finetuner,
    float_net,
    float_outputs,
    float_scores,
    full_genome,
    integer_scores,
    quantize,
    search_error,
    train_float,
)
from dynse.training.checkpoints import Checkpoints
from dynse.training.loop import check_identity
from dynse.training.sequences import SequenceTraining, with_input_noise

WIDTHS = range(2, 9)
GENES = len(GRU_OPERATIONS)
MATRICES = 6  # the first genes: W_ir ... W_hn
COPIES = 8  # of the validation split


@dataclasses.dataclass(frozen=True)
class FloatNet:
    """The float net of a task.

    Attributes:
        hidden: units of the GRU.
        training: how it is trained.
    """

    hidden: int
    training: SequenceTraining


@dataclasses.dataclass(frozen=True)
class BitSearch:
    """How widths are searched, and what is fine-tuned of what was found.

    Attributes:
        population: genomes of a generation.
        generations: the first population included.
        finetuning: how a net is trained on at its widths.
        finetuned: points of the front that are, spread evenly over it, beside the one that is
            taken and the homogeneous ones; 0 for no fine-tuning at all.
        calibration: method of the ranges of activations; least squares is ours (min-max is usual):
            it is far better at 2 and 3 bits, and so for simple nets as well as for mixed ones.
        weights: method of the scales of weights, likewise.
        error: what is minimised beside the size, "distance", "loss" or "score", see
            `search_error`.
        bit_operations: a third objective, bit operations per frame.
        chunk: genomes evaluated side by side; `benchmarks/search.py` measures others.
    """

    population: int = 64
    generations: int = 60
    finetuning: SequenceTraining = SequenceTraining(epochs=5, learning_rate=5e-4)
    finetuned: int = 6
    calibration: str = "mse"
    weights: str = "mse"
    error: str = "distance"
    bit_operations: bool = False
    chunk: int = 8

    def describe(self, net: FloatNet, seed: int) -> dict[str, Any]:
        """What decides a record, but for the data: their fingerprint stands beside."""
        content = dataclasses.asdict(self) | {"task": dataclasses.asdict(net), "seed": seed}
        del content["chunk"]  # how many genomes run side by side changes no result
        return json.loads(json.dumps(content))


def run_bit_search(
    task: BitTask,
    config: BitSearch,
    net_config: FloatNet,
    *,
    seed: int,
    run_dir: pathlib.Path,
    console: Console,
) -> BitRecord:
    """Train, quantise, search, choose, fine-tune and score, or go on in the folder.

    Args:
        task: what the nets are for.
        config: of the search.
        net_config: of the float net.
        seed: of the float net, the search and the fine-tuning.
        run_dir: the folder.
        console: for the progress bars.

    Raises:
        ValueError: where the folder holds another run.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    check_identity(run_dir, _identity(task, config, net_config, seed))
    params, training_s = _float_params(task, net_config, seed, run_dir, console)
    net = quantize(task, params, method=config.calibration, weights=config.weights)
    simple = simple_genomes()
    teacher = float_outputs(task, net_config.hidden, params, task.search)
    found = _search(task, net, teacher, simple, config, seed, run_dir, console)
    genomes = {**simple, "mixed": _front(found)}
    sizes = {kind: np.array([_size_kb(net, g) for g in of]) for kind, of in genomes.items()}

    score_one = jax.jit(lambda genome, net, rows: integer_scores(task, net, genome, rows))

    def scores_of(genomes: np.ndarray, net: IntegerNet, rows: Any) -> np.ndarray:
        return np.stack([np.asarray(score_one(genome, net, rows)) for genome in genomes])

    copies = noisy_copies(task.valid, net_config.training.input_noise, seed)

    def valid_scores_of(genomes: np.ndarray, net: IntegerNet) -> np.ndarray:
        return np.mean([scores_of(genomes, net, rows) for rows in copies], axis=0)

    valid = {kind: valid_scores_of(of, net) for kind, of in genomes.items()}
    test = {kind: scores_of(of, net, task.test) for kind, of in genomes.items()}
    taken = {
        kind: smallest_comparable(
            sizes[kind],
            valid[kind],
            valid["homogeneous"][-1],
            task.margins,
            task.groups["valid"],
        )
        for kind in KINDS
    }

    train_on = finetuner(task, net, config.finetuning)
    tuned: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    for kind, index in _to_finetune(len(genomes["mixed"]), taken["mixed"], config.finetuned):
        genome = genomes[kind][index]
        title = f"{task.name}, {kind} {index} tuned"
        better, _ = train_on(params, genome, seed=seed, title=title, console=console)
        integer = requantize(net, better)
        tuned[kind, index] = (
            valid_scores_of(genome[None], integer)[0],
            scores_of(genome[None], integer, task.test)[0],
        )

    def point(kind: str, index: int) -> Point:
        means = [float(scores.mean()) for scores in tuned.get((kind, index), ())] or [None, None]
        return Point(
            genome=tuple(map(int, genomes[kind][index])),
            size_kb=float(sizes[kind][index]),
            mega_bit_operations=_mega_bit_operations(net, genomes[kind][index]),
            valid=float(valid[kind][index].mean()),
            test=float(test[kind][index].mean()),
            tuned_valid=means[0],
            tuned_test=means[1],
        )

    float_test = np.asarray(float_scores(task, net_config.hidden, params, task.test))
    eight = len(WIDTHS) - 1
    test_scores = {"float": float_test, "8 bit": test["homogeneous"][eight]}
    test_scores |= {kind: test[kind][i] for kind, i in taken.items() if i is not None}
    for name, key in (("8 bit", ("homogeneous", eight)), ("mixed", ("mixed", taken["mixed"]))):
        if key in tuned:
            test_scores[f"{name}, tuned"] = tuned[key][1]
    budget = {
        kind: budget_scores(
            sizes[kind], valid[kind], test[kind], *sizes["homogeneous"][[0, eight]].tolist()
        )
        for kind in KINDS
    }
    errors = {kind: _errors(task, net, teacher, of, config.error) for kind, of in genomes.items()}
    missed = {kind: -scores.mean(1) for kind, scores in test.items()}
    return BitRecord(
        task=task.name,
        seed=seed,
        score_name=task.score_name,
        margins=task.margins,
        operations=gene_names((task.layers[0],)),
        float_size_kb=sum(leaf.size for leaf in jax.tree.leaves(params)) * 4 / 1e3,
        float_test=float(float_test.mean()),
        points={kind: tuple(point(kind, i) for i in range(len(genomes[kind]))) for kind in KINDS},
        taken=taken,
        hypervolume=tuple(map(float, found.hypervolume)),
        hypervolumes={"search": _volumes(errors, sizes), "test": _volumes(missed, sizes)},
        test_scores={name: _rounded(values) for name, values in test_scores.items()},
        budget_scores={name: _rounded(values) for name, values in budget.items()},
        test_groups=task.groups["test"],
        config=config.describe(net_config, seed),
        fingerprint=task.fingerprint,
        seconds={
            "training": round(training_s, 1),
            "search": round(float(found.seconds.sum()), 1),
            "genomes_per_s": round(found.genomes.shape[1] / float(np.median(found.seconds)), 2),
        },
        machine=machine(),
        commit=commit(),
    )


def simple_genomes() -> dict[str, np.ndarray]:
    """Genomes (7, 17) that need no search, from 2 to 8 bits, by kind."""
    widths = np.array(WIDTHS)[:, None]
    matrices = np.full((len(WIDTHS), GENES), max(WIDTHS))
    matrices[:, :MATRICES] = widths
    return {"homogeneous": np.repeat(widths, GENES, axis=1), "matrices only": matrices}


def _search(
    task: BitTask,
    net: IntegerNet,
    teacher: jax.Array,
    simple: Mapping[str, np.ndarray],
    config: BitSearch,
    seed: int,
    run_dir: pathlib.Path,
    console: Console,
) -> SearchResult:
    """NSGA-II from the simple nets, or what an earlier start has left of it."""
    eight = simple["homogeneous"][-1]
    worst = float(_errors(task, net, teacher, simple["homogeneous"], config.error).max())
    reference = [worst, 1.05 * _size_kb(net, eight), 1.05 * _mega_bit_operations(net, eight)]
    objectives = 3 if config.bit_operations else 2

    def evaluate_one(
        genome: jax.Array, net: IntegerNet, rows: Any, teacher: jax.Array
    ) -> jax.Array:
        full = full_genome(genome)
        values = [
            search_error(task, net, genome, rows, teacher, config.error),
            weight_bits(net, full) / 8e3,
            mac_bits(net, full) / 1e6,
        ]
        return jnp.stack(values[:objectives])

    evaluate = batched(evaluate_one, chunk=config.chunk)
    algorithm = NSGA2(
        (min(WIDTHS),) * GENES,
        (max(WIDTHS),) * GENES,
        objectives=objectives,
        population=config.population,
    )
    return search(
        algorithm,
        lambda genomes: evaluate(genomes, net, task.search, teacher),
        generations=config.generations,
        key=jax.random.key(seed),
        seeds=np.unique(np.concatenate(list(simple.values())), axis=0),
        reference=np.array(reference[:objectives]),
        identity={"data": task.fingerprint, "error": config.error},
        run_dir=run_dir,
        console=console,
        title=f"{task.name}, search",
    )


def noisy_copies(rows: Any, noise: float, seed: int) -> list[Any]:
    """Copies of rows with noise of this standard deviation on the features; 0: the rows alone."""
    if not noise:
        return [rows]
    keys = jax.random.split(jax.random.key(seed), COPIES)
    return [with_input_noise(rows, noise, key) for key in keys]


def _front(found: SearchResult) -> np.ndarray:
    """The genomes of the front by size, one for each pair of error and size.

    Most operations have no say in the size, so many genomes come to the same.
    """
    _, first = np.unique(found.front_objectives.round(6), axis=0, return_index=True)
    by_size = first[np.argsort(found.front_objectives[first, 1], kind="stable")]
    return found.front_genomes[by_size]


def _float_params(
    task: BitTask, config: FloatNet, seed: int, run_dir: pathlib.Path, console: Console
) -> tuple[Any, float]:
    """The float net, trained or as an earlier start has left it, and the seconds it took."""
    checkpoints = Checkpoints(run_dir)
    try:
        if checkpoints.step("best") is None:
            started = time.perf_counter()
            params, _ = train_float(
                task, config.hidden, config.training, seed=seed, console=console
            )
            checkpoints.save(
                "best", 0, {"params": params, "s": jnp.float32(time.perf_counter() - started)}
            )
        model = float_net(task, config.hidden)
        like = jax.eval_shape(model.init, jax.random.key(0), task.train[0][:1])["params"]
        state = checkpoints.restore("best", {"params": like, "s": jnp.float32(0)})
        return state["params"], float(state["s"])
    finally:
        checkpoints.close()


def _errors(
    task: BitTask, net: IntegerNet, teacher: jax.Array, genomes: np.ndarray, kind: str
) -> np.ndarray:
    """Errors (P,) of genomes on what the search looks at."""

    @jax.jit
    def one(genome: jax.Array, net: IntegerNet, rows: Any, teacher: jax.Array) -> jax.Array:
        return search_error(task, net, genome, rows, teacher, kind)

    return np.array([float(one(genome, net, task.search, teacher)) for genome in genomes])


def _volumes(errors: Mapping[str, np.ndarray], sizes: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Hypervolume of each kind, from the worst homogeneous error and 1.05 times the size of 8 bits.

    Points worse than that reference add nothing.
    """
    reference = np.array([errors["homogeneous"].max(), 1.05 * sizes["homogeneous"][-1]])
    return {
        kind: float(hypervolume(np.stack([errors[kind], sizes[kind]], axis=1), reference))
        for kind in KINDS
    }


def _to_finetune(count: int, taken: int | None, wanted: int) -> list[tuple[str, int]]:
    """Kind and index of the nets to train on: all homogeneous ones, some of a front of `count`."""
    if wanted == 0:
        return []
    spread = np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist()
    mixed = sorted({*spread, *([] if taken is None else [taken])})
    return [("homogeneous", i) for i in range(len(WIDTHS))] + [("mixed", i) for i in mixed]


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in values)


def _size_kb(net: IntegerNet, genome: np.ndarray) -> float:
    return float(weight_bits(net, full_genome(jnp.asarray(genome)))) / 8e3


def _mega_bit_operations(net: IntegerNet, genome: np.ndarray) -> float:
    return float(mac_bits(net, full_genome(jnp.asarray(genome)))) / 1e6


def _identity(task: BitTask, config: BitSearch, net_config: FloatNet, seed: int) -> dict[str, Any]:
    """What decides the float net, the integer net and what a genome scores."""
    content = {
        "task": dataclasses.asdict(net_config),
        "data": task.fingerprint,
        "seed": seed,
        "calibration": config.calibration,
        "weights": config.weights,
    }
    return json.loads(json.dumps(content))
