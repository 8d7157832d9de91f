"""A GRU in integers, a bit width for each of its 17 operations, found by a genetic search.

    python experiments/search_gru_bits.py                     # embedded tasks
    python experiments/search_gru_bits.py --preset smoke      # half a minute, shows that all works
    python experiments/search_gru_bits.py --preset mini --corpus FOLDER    # hours on 2 cores

For each task it trains a small float GRU, calibrates it, lets NSGA-II search the bit widths for
little distance to the float net's outputs and few bytes, on sequences kept for that, takes the
smallest net that is comparable to 8 bits on the validation split, fine-tunes some of the front,
and scores all of them on the test split.
Beside the mixed nets stand those that need no search: 2 to 8 bits everywhere, and 2 to 8 bits for
the matrices alone; both are in the first population. It ends with report.html: fronts, hypervolume
over generations, bits per operation, tables. Started again on the same folder it goes on where it
stopped.

Miccini et al., "Towards a tailored mixed-precision sub-8-bit quantization scheme for Gated
Recurrent Units using Genetic Algorithms", arXiv 2402.12263.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import tyro

from dynse.data.bank import Corpus
from dynse.data.folders import folder_corpus
from dynse.data.gain_sequences import gain_task
from dynse.data.noise_sequences import noise_classes
from dynse.data.sequences import row_digits
from dynse.data.spoken_digits import spoken_digits
from dynse.data.synthetic import SyntheticSize, synthetic_corpus
from dynse.data.synthetic_words import synthetic_words
from dynse.evaluation.bit_records import BitRecord, load_bit_record, save_bit_record
from dynse.evaluation.bit_tables import front_table, record_points, taken_table, task_table
from dynse.evaluation.fronts import bits_figure, front_figure, hypervolume_figure
from dynse.evaluation.report import Figure, Report, Text, write_report
from dynse.evaluation.scores import machine
from dynse.quantization import GRU_OPERATIONS
from dynse.training.bit_runs import BitSearch, FloatNet, run_bit_search
from dynse.training.bit_tasks import BitTask, classification_task, enhancement_task
from dynse.training.sequences import SequenceTraining
from dynse.training.start import start_experiment

# Many short recordings: what a class of noise has in common needs more than one or two of them.
NOISE_MINUTES = SyntheticSize(train=16, valid=4, test=8, recording_s=3)


@dataclasses.dataclass(frozen=True)
class Config:
    """What an experiment is.

    Attributes:
        tasks: the float net of each task, by a name of `_task`.
        search: of each task.
        corpus: "synthetic" or a folder.
    """

    tasks: Mapping[str, FloatNet]
    search: BitSearch = BitSearch()
    corpus: str = "synthetic"


ROWS = FloatNet(32, SequenceTraining(epochs=60, input_noise=0.1))
SPEECH = FloatNet(64, SequenceTraining(epochs=40, input_noise=0.3))
NOISE = FloatNet(64, SequenceTraining(epochs=20, input_noise=0.3))
GAINS = FloatNet(48, SequenceTraining(epochs=40, batch_size=16))
PRESETS: Mapping[str, Config] = {
    "default": Config(
        tasks={"rows": ROWS, "words": SPEECH, "noise": NOISE, "gains": GAINS},
        search=BitSearch(population=32, generations=20, finetuned=3),
    ),
    "smoke": Config(
        tasks={"rows": FloatNet(8, SequenceTraining(epochs=4))},
        search=BitSearch(
            population=16,
            generations=4,
            finetuned=1,
            finetuning=SequenceTraining(epochs=1, learning_rate=5e-4),
        ),
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
    error: Literal["distance", "loss", "score"] | None = None
    """What is minimised beside the size, in place of the preset's distance to the float net;
    score is the paper's."""
    bit_operations: bool = False
    """Search for few bit operations per frame as well: a third objective."""


def main(arguments: Arguments) -> list[BitRecord]:
    """Train, search, score, report; gives the records."""
    console = start_experiment(arguments.cache_dir)
    config = _configure(arguments)
    run_dir = arguments.run_dir or pathlib.Path("runs") / f"bits-{arguments.preset}"
    records = []
    for seed in arguments.seeds:
        for name, net in config.tasks.items():
            path = run_dir / "records" / f"{name}-seed{seed}.json"
            task = _task(name, config, arguments.cache_dir, seed)
            if path.exists():
                found = load_bit_record(path)
                described = config.search.describe(net, seed)
                if found.config == described and found.fingerprint == task.fingerprint:
                    records.append(found)
                    continue
            record = run_bit_search(
                dataclasses.replace(task, name=name),
                config.search,
                net,
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
    search = dataclasses.replace(config.search, bit_operations=arguments.bit_operations, **given)
    return dataclasses.replace(config, search=search)


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
            corpus = _corpus(config, NOISE_MINUTES, cache_dir, seed)
            fewest = {"min_recordings": 3, "valid_recordings": 8, "valid_per_class": 72}
            task = noise_classes(corpus, **({} if corpus.name == "synthetic" else fewest))
            return classification_task(task, grouped=True)
        case "gains":
            corpus = _corpus(config, SyntheticSize(), cache_dir, seed)
            per_snr = 16 if corpus.name == "synthetic" else 48
            return enhancement_task(gain_task(corpus, seed=seed, valid_per_snr=per_snr))
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
    "- mixed: a width for each operation, found by NSGA-II on sequences kept for the search.\n"
    "- taken: the smallest net of a kind that is comparable to 8 bits on the validation split.\n"
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
