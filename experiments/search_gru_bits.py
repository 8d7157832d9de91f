"""A GRU in integers, a bit width for each of its 17 operations, found by a genetic search.

    python experiments/search_gru_bits.py                     # embedded tasks, minutes on 2 cores
    python experiments/search_gru_bits.py --preset smoke      # half a minute, shows that all works
    python experiments/search_gru_bits.py --preset mini --corpus FOLDER    # hours on 2 cores

For each task it trains a small float GRU, calibrates it, lets NSGA-II search the bit widths for
score against size on the validation split (2 to 8 bits everywhere are in the first population),
takes the smallest net that is comparable to 8 bits, fine-tunes some of the front, and scores all
of them on the test split, which the search never saw. It ends with report.html: the fronts beside
the homogeneous points, hypervolume over generations, bits per operation, tables. Started again on
the same folder it goes on where it stopped. Default: about 8 minutes on a laptop CPU.

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
    BitRecord,
    Point,
    hypervolume_table,
    load_bit_record,
    record_points,
    save_bit_record,
    smallest_comparable,
    taken_table,
)
from dynse.evaluation.fronts import bits_figure, front_figure, hypervolume_figure
from dynse.evaluation.report import Figure, Report, Text, write_report
from dynse.evaluation.scores import commit, machine
from dynse.quantization import (
    GRU_OPERATIONS,
    IntegerNet,
    gene_names,
    homogeneous,
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
    train_float,
)
from dynse.training.checkpoints import Checkpoints
from dynse.training.loop import check_identity
from dynse.training.sequences import SequenceTraining
from dynse.training.start import start_experiment

WIDTHS = range(2, 9)
GENES = len(GRU_OPERATIONS)
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
        finetuning: how a point of the front is trained on.
        finetuned: points of the front that are, spread evenly over it; the one that is taken
            always is where this is not 0.
        calibration: method of the ranges of activations.
        weights: method of the scales of weights.
        bit_operations: a third objective, bit operations per frame.
        chunk: genomes evaluated side by side.
        corpus: "synthetic" or a folder.
    """

    tasks: Mapping[str, TaskConfig]
    population: int = 64
    generations: int = 60
    finetuning: SequenceTraining = SequenceTraining(epochs=5, learning_rate=5e-4)
    finetuned: int = 6
    calibration: str = "minmax"
    weights: str = "minmax"
    bit_operations: bool = False
    chunk: int = 4
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
    """default: minutes on embedded tasks; smoke: half a minute; mini: 64 genomes x 60 generations
    on a folder corpus with clean/, noise/ and digits/."""
    run_dir: pathlib.Path | None = None
    """Where everything goes, runs/bits-PRESET if not given; an interrupted run goes on there."""
    corpus: pathlib.Path | None = None
    """Folder with clean/SPLIT/SPEAKER/*, noise/SPLIT/CLASS/* and digits/SPEAKER/*."""
    cache_dir: pathlib.Path | None = None
    """Where decoded corpora are kept; ~/.cache/dynse if not given."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of splits, nets and searches; every task is run once with each."""
    tasks: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Run these tasks of the preset alone; may be given several times."""
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
            described = _describe(config, task_config, seed)
            if path.exists() and load_bit_record(path).config == described:
                records.append(load_bit_record(path))
                continue
            task = _task(name, config, arguments.cache_dir, seed)
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
    table = taken_table(records)
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
    identity = _describe(config, task_config, seed) | {"data": task.fingerprint}
    run_dir.mkdir(parents=True, exist_ok=True)
    check_identity(run_dir, identity)
    params, training_s = _float_params(task, task_config, seed, run_dir, console)
    net = quantize(task, params, method=config.calibration, weights=config.weights)

    score_one = jax.jit(lambda genome, net, rows: integer_scores(task, net, genome, rows))

    def scores_of(genomes: np.ndarray, net: IntegerNet, rows: Any) -> np.ndarray:
        return np.stack([np.asarray(score_one(genome, net, rows)) for genome in genomes])

    baseline = np.stack([np.asarray(homogeneous((task.layers[0],), bits)) for bits in WIDTHS])
    # The search minimises: the score is turned round.
    worst = -float(scores_of(baseline, net, task.valid).mean(1).min())
    reference = [worst, 1.05 * _size_kb(net, baseline[-1])]
    if config.bit_operations:
        reference.append(1.05 * _mega_bit_operations(net, baseline[-1]))

    def evaluate_one(genome: jax.Array, net: IntegerNet, rows: Any) -> jax.Array:
        full = full_genome(genome)
        objectives = [
            -integer_scores(task, net, genome, rows).mean(),
            weight_bits(net, full) / 8e3,
            mac_bits(net, full) / 1e6,
        ]
        return jnp.stack(objectives[: len(reference)])

    evaluate = batched(evaluate_one, chunk=config.chunk)
    started = time.perf_counter()
    found = search(
        NSGA2((min(WIDTHS),) * GENES, (max(WIDTHS),) * GENES, population=config.population),
        lambda genomes: evaluate(genomes, net, task.valid),
        generations=config.generations,
        key=jax.random.key(seed),
        seeds=baseline,
        reference=np.array(reference),
        identity=identity,
        run_dir=run_dir,
        console=console,
        title=f"{task.name}, search",
    )
    search_s = time.perf_counter() - started

    order = np.argsort(found.front_objectives[:, 1], kind="stable")
    genomes = np.concatenate([baseline, found.front_genomes[order]])
    valid, test = (scores_of(genomes, net, rows) for rows in (task.valid, task.test))
    count = len(baseline)
    sizes = np.array([_size_kb(net, genome) for genome in genomes])
    taken = smallest_comparable(
        sizes[count:], valid[count:], valid[count - 1], task.margins, task.groups["valid"]
    )
    train_on = finetuner(task, net, config.finetuning)
    tuned = {}
    for index in _to_finetune(len(order), taken, config.finetuned):
        genome = genomes[count + index]
        better, _ = train_on(
            params, genome, seed=seed, title=f"{task.name}, fine-tuning", console=console
        )
        tuned[index] = scores_of(genome[None], requantize(net, better), task.test)[0]
    points = [
        Point(
            genome=tuple(map(int, genome)),
            size_kb=float(sizes[index]),
            mega_bit_operations=_mega_bit_operations(net, genome),
            valid=float(valid[index].mean()),
            test=float(test[index].mean()),
            finetuned=float(tuned[index - count].mean()) if index - count in tuned else None,
        )
        for index, genome in enumerate(genomes)
    ]
    float_test = np.asarray(float_scores(task, task_config.hidden, params, task.test))
    test_scores = {"float": float_test, "8 bit": test[count - 1]}
    if taken is not None:
        test_scores["taken"] = test[count + taken]
        if taken in tuned:
            test_scores["taken, fine-tuned"] = tuned[taken]
    return BitRecord(
        task=task.name,
        seed=seed,
        score_name=task.score_name,
        margins=task.margins,
        operations=gene_names((task.layers[0],)),
        float_size_kb=sum(leaf.size for leaf in jax.tree.leaves(params)) * 4 / 1e3,
        float_test=float(float_test.mean()),
        homogeneous=tuple(points[:count]),
        front=tuple(points[count:]),
        taken=taken,
        hypervolume=tuple(map(float, found.hypervolume)),
        hypervolumes={
            split: _volumes(scores, sizes, count)
            for split, scores in (("valid", valid), ("test", test))
        },
        test_scores={
            name: tuple(round(float(value), 3) for value in values)
            for name, values in test_scores.items()
        },
        test_groups=task.groups["test"],
        config=_describe(config, task_config, seed),
        fingerprint=task.fingerprint,
        seconds=_seconds(training_s, search_s, found),
        machine=machine(),
        commit=commit(),
    )


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


def _to_finetune(count: int, taken: int | None, wanted: int) -> list[int]:
    """Indices spread evenly over a front of `count` points, the taken one among them."""
    if wanted == 0:
        return []
    spread = np.linspace(0, count - 1, min(wanted, count)).round().astype(int).tolist()
    return sorted({*spread, *([] if taken is None else [taken])})


def _volumes(scores: np.ndarray, sizes: np.ndarray, count: int) -> dict[str, float]:
    """Hypervolume of the first `count` nets (homogeneous) and of the others (mixed)."""
    objectives = np.stack([-scores.mean(1), sizes], axis=1)
    reference = np.array([objectives[:count, 0].max(), 1.05 * sizes[:count].max()])
    return {
        "homogeneous": float(hypervolume(objectives[:count], reference)),
        "mixed": float(hypervolume(objectives[count:], reference)),
    }


def _size_kb(net: IntegerNet, genome: np.ndarray) -> float:
    return float(weight_bits(net, full_genome(jnp.asarray(genome)))) / 8e3


def _mega_bit_operations(net: IntegerNet, genome: np.ndarray) -> float:
    return float(mac_bits(net, full_genome(jnp.asarray(genome)))) / 1e6


def _seconds(training_s: float, search_s: float, found: SearchResult) -> dict[str, float]:
    evaluated = found.genomes.shape[0] * found.genomes.shape[1]
    return {
        "training": round(training_s, 1),
        "search": round(search_s, 1),
        "genomes_per_s": round(evaluated / search_s, 2),
    }


def _describe(config: Config, task_config: TaskConfig, seed: int) -> dict[str, Any]:
    content = dataclasses.asdict(config) | {"task": dataclasses.asdict(task_config), "seed": seed}
    # How many genomes run side by side changes no result; the corpus is known by its fingerprint.
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
    return dataclasses.replace(config, bit_operations=arguments.bit_operations)


def _task(name: str, config: Config, cache_dir: pathlib.Path | None, seed: int) -> BitTask:
    """The data of a task; the seed splits the digits that are read row by row."""
    folder = pathlib.Path(config.corpus)
    match name:
        case "rows":
            return classification_task(row_digits(seed))
        case "words":
            return classification_task(synthetic_words(cache_dir=cache_dir))
        case "digits":
            return classification_task(spoken_digits(folder / "digits", cache_dir=cache_dir))
        case "digits-held-out":
            held_out = ("lucas", "theo")
            return classification_task(
                spoken_digits(folder / "digits", held_out=held_out, cache_dir=cache_dir)
            )
        case "noise":
            fewest = 1 if config.corpus == "synthetic" else 3
            corpus = _corpus(config, NOISE_MINUTES, cache_dir)
            return classification_task(noise_classes(corpus, min_recordings=fewest), grouped=True)
        case "gains":
            return enhancement_task(gain_task(_corpus(config, SyntheticSize(), cache_dir)))
    raise ValueError(f"no task {name!r}")


def _corpus(config: Config, minutes: SyntheticSize, cache_dir: pathlib.Path | None) -> Corpus:
    if config.corpus == "synthetic":
        return synthetic_corpus(minutes=minutes, cache_dir=cache_dir)
    return folder_corpus(config.corpus, cache_dir=cache_dir, name="dynse-mini")


def _report(preset: str, records: list[BitRecord]) -> Report:
    first = {record.task: record for record in reversed(records)}
    curves: dict[str, list[np.ndarray]] = {}
    for record in records:
        curves.setdefault(record.task, []).append(np.array(record.hypervolume))
    fronts = {name: np.array([p.genome for p in r.front]) for name, r in first.items()}
    sections = [
        Text("What is compared", _WHAT),
        taken_table(records),
        hypervolume_table(records),
        Figure(
            "Fronts",
            front_figure(
                {name: record_points(record) for name, record in first.items()},
                scores={name: record.score_name for name, record in first.items()},
                floats={name: record.float_test for name, record in first.items()},
                chosen={
                    name: (r.front[r.taken].size_kb, r.front[r.taken].test)
                    for name, r in first.items()
                    if r.taken is not None
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
    "- mixed: a width for each operation, found by NSGA-II on the validation split.\n"
    "- taken: the smallest mixed net that is comparable to 8 bits there.\n"
    "- fine-tuned: points of the front trained on for their widths."
)
_WORDS = {
    "front": "Nets of which none is both smaller and better than another.",
    "genome": "The list of bit widths, one for each operation.",
    "hypervolume": "The area that a front covers between itself and a fixed bad point: larger is "
    "better, and no point of the front can be left out without loss.",
    "interval": "[low, high]: were the same test repeated with other sequences of this kind, the "
    "mean would lie between these in 95 of 100 cases.",
    "kB": "1000 bytes: weights at their widths and biases at 32 bits.",
}


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
