"""A GRU in integers, a bit width for each of its 17 operations, found by a genetic search.

    python experiments/search_gru_bits.py                     # embedded tasks
    python experiments/search_gru_bits.py --preset smoke      # half a minute, shows that all works
    python experiments/search_gru_bits.py --preset mini --corpus FOLDER    # hours on 2 cores

For each task it trains a small float GRU, calibrates it, lets NSGA-II search the bit widths for
error against size on training data, takes the smallest net that is comparable to 8 bits on the
validation split, fine-tunes some of the front, and scores all of them on the test split.
Beside the mixed nets stand those that need no search: 2 to 8 bits everywhere, and 2 to 8 bits for
the matrices alone; both are in the first population. It ends with report.html: fronts, hypervolume
over generations, bits per operation, tables. Started again on the same folder it goes on where it
stopped.

Miccini et al., "Towards a tailored mixed-precision sub-8-bit quantization scheme for Gated
Recurrent Units using Genetic Algorithms", arXiv 2402.12263.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from dynse.data.bank import Corpus
from dynse.data.folders import folder_corpus
from dynse.data.gain_sequences import gain_task
from dynse.data.noise_sequences import noise_classes
from dynse.data.sequences import row_digits
from dynse.data.spoken_digits import spoken_digits
from dynse.data.synthetic import SyntheticSize, synthetic_corpus
from dynse.data.synthetic_words import synthetic_words
from dynse.evaluation.bit_records import (
    KINDS,
    BitRecord,
    Point,
    budget_scores,
    front_table,
    load_bit_record,
    record_points,
    save_bit_record,
    smallest_comparable,
    taken_table,
    task_table,
)
from dynse.evaluation.fronts import bits_figure, front_figure, hypervolume_figure
from dynse.evaluation.report import Figure, Report, Text, write_report
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
    classification_task,
    enhancement_task,
    finetuner,
    float_net,
    float_scores,
    full_genome,
    integer_scores,
    quantize,
    search_error,
    train_float,
)
from dynse.training.checkpoints import Checkpoints
from dynse.training.loop import check_identity
from dynse.training.sequences import SequenceTraining
from dynse.training.start import start_experiment

WIDTHS = range(2, 9)
GENES = len(GRU_OPERATIONS)
MATRICES = 6  # the first genes: W_ir ... W_hn
# Many short recordings: what a class of noise has in common needs more than one or two of them.
NOISE_MINUTES = SyntheticSize(train=16, valid=4, test=8, recording_s=3)


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """A task and the net for it.

    Attributes:
        hidden: units of the GRU.
        training: of the float net.
    """

    hidden: int
    training: SequenceTraining


@dataclasses.dataclass(frozen=True)
class Config:
    """What an experiment is.

    Attributes:
        tasks: by name, of `_task`.
        population: genomes of a generation.
        generations: the first population included.
        finetuning: how a net is trained on at its widths.
        finetuned: points of the front that are, spread evenly over it, beside the one that is
            taken and the homogeneous ones; 0 for no fine-tuning at all.
        calibration: method of the ranges of activations; least squares is ours (min-max is usual):
            it is far better at 2 and 3 bits, and so for simple nets as well as for mixed ones.
        weights: method of the scales of weights, likewise.
        error: what is minimised beside the size, "loss" or "score", see `search_error`.
        bit_operations: a third objective, bit operations per frame.
        chunk: genomes evaluated side by side; `benchmarks/search.py` measures others.
        corpus: "synthetic" or a folder.
    """

    tasks: Mapping[str, TaskConfig]
    population: int = 64
    generations: int = 60
    finetuning: SequenceTraining = SequenceTraining(epochs=5, learning_rate=5e-4)
    finetuned: int = 6
    calibration: str = "mse"
    weights: str = "mse"
    error: str = "loss"
    bit_operations: bool = False
    chunk: int = 8
    corpus: str = "synthetic"


ROWS = TaskConfig(32, SequenceTraining(epochs=60, input_noise=0.1))
SPEECH = TaskConfig(64, SequenceTraining(epochs=40, input_noise=0.3))
NOISE = TaskConfig(64, SequenceTraining(epochs=20, input_noise=0.3))
GAINS = TaskConfig(48, SequenceTraining(epochs=40, batch_size=16))
PRESETS: Mapping[str, Config] = {
    "default": Config(
        tasks={"rows": ROWS, "words": SPEECH, "noise": NOISE, "gains": GAINS},
        population=32,
        generations=20,
        finetuned=3,
    ),
    "smoke": Config(
        tasks={"rows": TaskConfig(8, SequenceTraining(epochs=4))},
        population=16,
        generations=4,
        finetuned=1,
        finetuning=SequenceTraining(epochs=1, learning_rate=5e-4),
    ),
    "mini": Config(
        tasks={
            "rows": ROWS,
            "digits": SPEECH,
            "digits-held-out": SPEECH,
            "noise": NOISE,
            "gains": GAINS,
        },
        corpus="",
    ),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Search the bit widths of a GRU on sequential tasks, write the report."""

    preset: Literal["default", "smoke", "mini"] = "default"
    """default: embedded tasks; smoke: half a minute; mini: 64 genomes x 60 generations
    on a folder corpus with clean/, noise/ and digits/."""
    run_dir: pathlib.Path | None = None
    """Where everything goes, runs/bits-PRESET if not given; an interrupted run goes on there."""
    corpus: pathlib.Path | None = None
    """Folder with clean/SPLIT/SPEAKER/*, noise/SPLIT/CLASS/* and digits/SPEAKER/*."""
    cache_dir: pathlib.Path | None = None
    """Where decoded corpora are kept; ~/.cache/dynse if not given."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of nets and searches, and of what is drawn for the data (the split of the written
    digits, voices, noises and mixtures; recordings in a folder have their splits). Every task is
    run once with each."""
    tasks: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Run these tasks of the preset alone; may be given several times."""
    population: int | None = None
    """Genomes of a generation, in place of the preset's."""
    generations: int | None = None
    """Generations, in place of the preset's; more than before go on with the search."""
    finetuned: int | None = None
    """Points of the front to fine-tune, in place of the preset's; 0 for none."""
    calibration: Literal["minmax", "percentile", "mse"] | None = None
    """Method of the ranges of activations, in place of the preset's."""
    weights: Literal["minmax", "mse"] | None = None
    """Method of the scales of weights, in place of the preset's."""
    error: Literal["loss", "score"] | None = None
    """What is minimised beside the size, in place of the preset's; score is the paper's."""
    bit_operations: bool = False
    """Search for few bit operations per frame as well: a third objective."""


def main(arguments: Arguments) -> list[BitRecord]:
    """Train, search, score, report; gives the records."""
    console = start_experiment(arguments.cache_dir)
    config = _configure(arguments)
    run_dir = arguments.run_dir or pathlib.Path("runs") / f"bits-{arguments.preset}"
    records = []
    for seed in arguments.seeds:
        for name, task_config in config.tasks.items():
            path = run_dir / "records" / f"{name}-seed{seed}.json"
            task = _task(name, config, arguments.cache_dir, seed)
            if path.exists():
                found = load_bit_record(path)
                described = _describe(config, task_config, seed)
                if found.config == described and found.fingerprint == task.fingerprint:
                    records.append(found)
                    continue
            record = run_task(
                dataclasses.replace(task, name=name),
                config,
                task_config,
                seed=seed,
                run_dir=run_dir / f"{name}-seed{seed}",
                console=console,
            )
            save_bit_record(path, record)
            records.append(record)
    table = task_table(records)
    console.print(f"{table.title}\n{table.markdown()}", markup=False)
    console.print(f"Report: {write_report(run_dir, _report(arguments.preset, records))}")
    return records


def run_task(
    task: BitTask,
    config: Config,
    task_config: TaskConfig,
    *,
    seed: int,
    run_dir: pathlib.Path,
    console: Console,
) -> BitRecord:
    """Float net, integer net, search, scores: one record."""
    run_dir.mkdir(parents=True, exist_ok=True)
    check_identity(run_dir, _identity(task, config, task_config, seed))
    params, training_s = _float_params(task, task_config, seed, run_dir, console)
    net = quantize(task, params, method=config.calibration, weights=config.weights)
    score_one = jax.jit(lambda genome, net, rows: integer_scores(task, net, genome, rows))

    def scores_of(genomes: np.ndarray, net: IntegerNet, rows: Any) -> np.ndarray:
        return np.stack([np.asarray(score_one(genome, net, rows)) for genome in genomes])

    simple = {
        "homogeneous": np.repeat(np.array(WIDTHS)[:, None], GENES, axis=1),
        "matrices only": np.full((len(WIDTHS), GENES), max(WIDTHS)),
    }
    simple["matrices only"][:, :MATRICES] = np.array(WIDTHS)[:, None]
    found = _search(task, net, simple, config, seed, run_dir, console)

    genomes = {**simple, "mixed": _front(found)}
    sizes = {kind: np.array([_size_kb(net, g) for g in of]) for kind, of in genomes.items()}
    valid = {kind: scores_of(of, net, task.valid) for kind, of in genomes.items()}
    test = {kind: scores_of(of, net, task.test) for kind, of in genomes.items()}
    reference = valid["homogeneous"][-1]
    taken = {
        kind: smallest_comparable(
            sizes[kind], valid[kind], reference, task.margins, task.groups["valid"]
        )
        for kind in KINDS
    }

    train_on = finetuner(task, net, config.finetuning)
    tuned: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    for kind, index in _to_finetune(len(genomes["mixed"]), taken["mixed"], config.finetuned):
        genome = genomes[kind][index]
        better, _ = train_on(
            params, genome, seed=seed, title=f"{task.name}, {kind} {index} tuned", console=console
        )
        integer = requantize(net, better)
        tuned[kind, index] = tuple(
            scores_of(genome[None], integer, rows)[0] for rows in (task.valid, task.test)
        )

    def point(kind: str, index: int) -> Point:
        tuned_valid, tuned_test = tuned.get((kind, index), (None, None))
        return Point(
            genome=tuple(map(int, genomes[kind][index])),
            size_kb=float(sizes[kind][index]),
            mega_bit_operations=_mega_bit_operations(net, genomes[kind][index]),
            valid=float(valid[kind][index].mean()),
            test=float(test[kind][index].mean()),
            tuned_valid=None if tuned_valid is None else float(tuned_valid.mean()),
            tuned_test=None if tuned_test is None else float(tuned_test.mean()),
        )

    float_test = np.asarray(float_scores(task, task_config.hidden, params, task.test))
    last = len(WIDTHS) - 1
    test_scores = {"float": float_test, "8 bit": test["homogeneous"][-1]}
    test_scores |= {kind: test[kind][i] for kind, i in taken.items() if i is not None}
    for name, key in (("8 bit", ("homogeneous", last)), ("mixed", ("mixed", taken["mixed"]))):
        if key in tuned:
            test_scores[f"{name}, tuned"] = tuned[key][1]
    budget = {
        kind: budget_scores(
            sizes[kind], valid[kind], test[kind], *sizes["homogeneous"][[0, -1]].tolist()
        )
        for kind in KINDS
    }
    errors = {kind: _errors(task, net, of, config.error) for kind, of in genomes.items()}
    missed = {kind: -scores.mean(1) for kind, scores in test.items()}
    return BitRecord(
        task=task.name,
        seed=seed,
        score_name=task.score_name,
        margins=task.margins,
        operations=gene_names((task.layers[0],)),
        float_size_kb=sum(leaf.size for leaf in jax.tree.leaves(params)) * 4 / 1e3,
        float_test=float(float_test.mean()),
        points={
            kind: tuple(point(kind, index) for index in range(len(genomes[kind]))) for kind in KINDS
        },
        taken=taken,
        hypervolume=tuple(map(float, found.hypervolume)),
        hypervolumes={"search": _volumes(errors, sizes), "test": _volumes(missed, sizes)},
        test_scores={name: _rounded(values) for name, values in test_scores.items()},
        budget_scores={name: _rounded(values) for name, values in budget.items()},
        test_groups=task.groups["test"],
        config=_describe(config, task_config, seed),
        fingerprint=task.fingerprint,
        seconds={
            "training": round(training_s, 1),
            "search": round(float(found.seconds.sum()), 1),
            "genomes_per_s": round(found.genomes.shape[1] / float(np.median(found.seconds)), 2),
        },
        machine=machine(),
        commit=commit(),
    )


def _search(
    task: BitTask,
    net: IntegerNet,
    simple: Mapping[str, np.ndarray],
    config: Config,
    seed: int,
    run_dir: pathlib.Path,
    console: Console,
) -> SearchResult:
    """NSGA-II from the simple nets, or what an earlier start has left of it."""
    eight = simple["homogeneous"][-1]
    worst = float(_errors(task, net, simple["homogeneous"], config.error).max())
    reference = [worst, 1.05 * _size_kb(net, eight), 1.05 * _mega_bit_operations(net, eight)]
    objectives = 3 if config.bit_operations else 2

    def evaluate_one(genome: jax.Array, net: IntegerNet, rows: Any) -> jax.Array:
        full = full_genome(genome)
        values = [
            search_error(task, net, genome, rows, config.error),
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
        lambda genomes: evaluate(genomes, net, task.search),
        generations=config.generations,
        key=jax.random.key(seed),
        seeds=np.unique(np.concatenate(list(simple.values())), axis=0),
        reference=np.array(reference[:objectives]),
        identity={"data": task.fingerprint, "error": config.error},
        run_dir=run_dir,
        console=console,
        title=f"{task.name}, search",
    )


def _front(found: SearchResult) -> np.ndarray:
    """The genomes of the front by size, one for each pair of error and size.

    Most operations have no say in the size, so many genomes come to the same.
    """
    _, first = np.unique(found.front_objectives.round(6), axis=0, return_index=True)
    by_size = first[np.argsort(found.front_objectives[first, 1], kind="stable")]
    return found.front_genomes[by_size]


def _float_params(
    task: BitTask, config: TaskConfig, seed: int, run_dir: pathlib.Path, console: Console
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


def _errors(task: BitTask, net: IntegerNet, genomes: np.ndarray, kind: str) -> np.ndarray:
    """Errors (P,) of genomes on what the search looks at."""
    one = jax.jit(lambda genome, net, rows: search_error(task, net, genome, rows, kind))
    return np.array([float(one(genome, net, task.search)) for genome in genomes])


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


def _identity(task: BitTask, config: Config, task_config: TaskConfig, seed: int) -> dict[str, Any]:
    """What decides the float net, the integer net and what a genome scores."""
    content = {
        "task": dataclasses.asdict(task_config),
        "data": task.fingerprint,
        "seed": seed,
        "calibration": config.calibration,
        "weights": config.weights,
    }
    return json.loads(json.dumps(content))


def _describe(config: Config, task_config: TaskConfig, seed: int) -> dict[str, Any]:
    """What decides a record, but for the data: their fingerprint stands beside."""
    content = dataclasses.asdict(config) | {"task": dataclasses.asdict(task_config), "seed": seed}
    # How many genomes run side by side changes no result.
    for name in ("tasks", "chunk", "corpus"):
        del content[name]
    return json.loads(json.dumps(content))


def _configure(arguments: Arguments) -> Config:
    config = PRESETS[arguments.preset]
    if arguments.corpus is not None:
        config = dataclasses.replace(config, corpus=str(arguments.corpus))
    if not config.corpus:
        raise SystemExit(f"preset {arguments.preset} needs --corpus FOLDER")
    unknown = [name for name in arguments.tasks if name not in config.tasks]
    if unknown:
        raise SystemExit(f"no task {unknown[0]!r}; the preset has {', '.join(config.tasks)}")
    if arguments.tasks:
        tasks = {name: config.tasks[name] for name in arguments.tasks}
        config = dataclasses.replace(config, tasks=tasks)
    digits = pathlib.Path(config.corpus) / "digits"
    if any(name.startswith("digits") for name in config.tasks) and not digits.is_dir():
        raise SystemExit(f"the tasks with spoken digits need the folder {digits}")
    options = ("population", "generations", "finetuned", "calibration", "weights", "error")
    given = {name: getattr(arguments, name) for name in options}
    given = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(config, bit_operations=arguments.bit_operations, **given)


def _task(name: str, config: Config, cache_dir: pathlib.Path | None, seed: int) -> BitTask:
    """The data of a task; its intervals draw voices or recordings as a whole where there are many.

    Those of the spoken digits are over clips, and so speak of these six speakers alone.
    """
    digits = pathlib.Path(config.corpus) / "digits"
    match name:
        case "rows":
            return classification_task(row_digits(seed))
        case "words":
            return classification_task(synthetic_words(seed, cache_dir=cache_dir), grouped=True)
        case "digits":
            return classification_task(spoken_digits(digits, cache_dir=cache_dir))
        case "digits-held-out":
            task = spoken_digits(digits, held_out=("lucas", "theo"), cache_dir=cache_dir)
            return classification_task(task)
        case "noise":
            fewest = 1 if config.corpus == "synthetic" else 3
            corpus = _corpus(config, NOISE_MINUTES, cache_dir, seed)
            return classification_task(noise_classes(corpus, min_recordings=fewest), grouped=True)
        case "gains":
            corpus = _corpus(config, SyntheticSize(), cache_dir, seed)
            return enhancement_task(gain_task(corpus, seed=seed, valid_per_snr=16))
    raise ValueError(f"no task {name!r}")


def _corpus(
    config: Config, minutes: SyntheticSize, cache_dir: pathlib.Path | None, seed: int
) -> Corpus:
    if config.corpus == "synthetic":
        return synthetic_corpus(seed=seed, minutes=minutes, cache_dir=cache_dir)
    return folder_corpus(config.corpus, cache_dir=cache_dir)


def _report(preset: str, records: list[BitRecord]) -> Report:
    first: dict[str, BitRecord] = {}
    for record in records:
        first.setdefault(record.task, record)
    curves: dict[str, list[np.ndarray]] = {}
    for record in records:
        curves.setdefault(record.task, []).append(np.array(record.hypervolume))
    fronts = {
        name: np.array([p.genome for p in record.points["mixed"]]) for name, record in first.items()
    }
    sections = [
        Text("What is compared", _WHAT),
        task_table(records),
        taken_table(records),
        front_table(records),
        Figure(
            "Fronts",
            front_figure(
                {name: record_points(record) for name, record in first.items()},
                scores={name: record.score_name for name, record in first.items()},
                floats={name: record.float_test for name, record in first.items()},
                chosen={
                    name: (point.size_kb, point.test)
                    for name, record in first.items()
                    if (point := record.taken_point("mixed")) is not None
                },
            ),
            "Scores on the test split. Numbers: bits everywhere. The first seed of each task.",
        ),
        Figure("Hypervolume over generations", hypervolume_figure(curves)),
        Figure(
            "Bits of every operation over the front",
            bits_figure(fronts, GRU_OPERATIONS),
            "Only the six matrices have a say in the size; the other operations are free to take "
            "the width that serves the score.",
        ),
    ]
    intro = f"Preset {preset}. Machine: {', '.join(f'{k} {v}' for k, v in machine().items())}."
    return Report("A GRU in mixed-precision integers", intro, sections, _WORDS)


_WHAT = (
    "- float: the GRU as it was trained, in float32.\n"
    "- homogeneous: all 17 operations of the GRU in integers of the same 2 to 8 bits.\n"
    "- matrices only: 2 to 8 bits for the six matrices, 8 for all else.\n"
    "- mixed: a width for each operation, found by NSGA-II on training data.\n"
    "- taken: the smallest mixed net that is comparable to 8 bits on the validation split.\n"
    "- fine-tuned: nets trained on at their widths; against 8 bits trained on as well."
)
_WORDS = {
    "front": "Nets of which none is both smaller and better than another.",
    "genome": "The list of bit widths, one for each operation.",
    "hypervolume": "The area between a front and a fixed bad point: larger is better.",
    "interval": "[low, high]: were the same test repeated with other sequences of this kind, the "
    "mean would lie between these in 95 of 100 cases.",
    "kB": "1000 bytes: weights at their widths and biases at 32 bits.",
}


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
