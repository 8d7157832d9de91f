"""What a network hears, read from the gates it computes anyway: voice, F0, noise, SNR, gender.

    python experiments/probe_gates.py                     # trains a small DynCP first, minutes
    python experiments/probe_gates.py --preset smoke      # under a minute, shows that all works
    python experiments/probe_gates.py --preset mini --corpus FOLDER --runs RUN ...

Linear and logistic predictors on binary gates, fitted on training mixtures, chosen on validation
mixtures and scored on voices and recordings that neither the network nor they have seen; beside
them the same predictors on log-mel bands, scores, activations, random gates and the gates of an
untrained network, the WebRTC voice detector, and a pitch tracker on the noisy signal. RUN is the
folder of a net that train_dyncp.py has trained. It ends with report.html: tables, score against
number of channels, weights per block, and what was heard, drawn under a spectrogram.

Miccini et al., "From Diet to Free Lunch", arXiv 2602.10666.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro
from rich.console import Console
from train_dyncp import PRESETS as DYNCP_PRESETS

from dynse.data.bank import Corpus
from dynse.data.pitch import Pitch, bank_pitch
from dynse.data.testsets import TestSet, read_csv, render
from dynse.evaluation.report import write_report
from dynse.evaluation.scores import commit, machine
from dynse.evaluation.sections import Report, Section, Text
from dynse.evaluation.statistics import Interval
from dynse.layers.cost import total_active_macs
from dynse.probes.conditions import score_by_snr
from dynse.probes.pictures import probe_pictures
from dynse.probes.records import (
    ProbeRecord,
    cost_table,
    load_probe_record,
    save_probe_record,
    score_tables,
    verification_table,
)
from dynse.probes.rivals import Rivals, score_rivals
from dynse.probes.rows import MixtureRows, mixture_rows
from dynse.probes.sets import (
    draw_mixtures,
    draw_noise_mixtures,
    noise_classes,
    quiet_mixtures,
)
from dynse.probes.study import (
    FEATURES,
    OF_NET,
    Splits,
    TaskResult,
    can_study,
    study_task,
    verify_speakers,
)
from dynse.probes.tasks import (
    F0,
    FRAME_SNR,
    GENDER,
    SNR,
    VOICE,
    noise_task,
)
from dynse.progress import progress_bar
from dynse.training.runs import RunConfig, load_run, train_run, variables_digest
from dynse.training.start import open_experiment

HERE = pathlib.Path(__file__).resolve().parent
SPLITS = ("train", "valid", "test")
QUIET = 30.0, 3  # dB, at which every third test mixture is heard again


class Mixtures(NamedTuple):
    """Of one split: over all noises, and over the noise classes to be told apart."""

    general: TestSet
    of_classes: TestSet


@dataclasses.dataclass(frozen=True)
class Config:
    """What an experiment is.

    Attributes:
        corpus: "synthetic", "smoke" or a folder.
        per_snr: mixtures at each of five SNRs by split, for frames and speakers.
        noise_per_snr: the same for the noise classes, dealt over those alone.
        recordings: that a noise class needs in the train and test splits each.
        features: what else is read, by its names in `study`.
        opponents: an untrained net, the voice detector and the pitch tracker are scored as well.
        test_set: CSV of a fixed test set for the frames; None draws one.
        mixture_s: shortest and longest of a drawn mixture.
    """

    corpus: str
    per_snr: Mapping[str, int]
    noise_per_snr: Mapping[str, int]
    recordings: int
    features: tuple[str, ...] = FEATURES
    opponents: bool = True
    test_set: str | None = None
    mixture_s: tuple[float, float] = (4.0, 5.0)


PRESETS: Mapping[str, Config] = {
    "default": Config(
        corpus="synthetic",
        per_snr={"train": 40, "valid": 8, "test": 16},
        noise_per_snr={"train": 48, "valid": 16, "test": 16},
        recordings=1,
    ),
    "smoke": Config(
        corpus="smoke",
        per_snr={"train": 2, "valid": 2, "test": 2},
        noise_per_snr={"train": 2, "valid": 2, "test": 2},
        recordings=1,
        features=("log-mel",),
        mixture_s=(3.0, 4.0),
    ),
    "mini": Config(
        corpus="",
        per_snr={"train": 60, "valid": 12, "test": 0},
        noise_per_snr={"train": 87, "valid": 18, "test": 100},
        recordings=3,
        test_set=str(HERE / "testsets" / "dynse-mini-test-v1.csv"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Read signal properties from the gates of trained nets."""

    preset: Literal["default", "smoke", "mini"] = "default"
    """default: embedded corpus, minutes; smoke: under a minute; mini: a folder corpus."""
    run_dir: pathlib.Path | None = None
    """Where everything goes, runs/probes-PRESET if not given; finished nets are not done again."""
    runs: tuple[pathlib.Path, ...] = ()
    """Folders of trained gated nets; without one a net is trained as train_dyncp.py does."""
    corpus: pathlib.Path | None = None
    """Folder with clean/SPLIT/SPEAKER/* and noise/SPLIT/CLASS/* (SPLIT train, valid, test)."""
    cache_dir: pathlib.Path | None = None
    """Where decoded corpora and F0 are kept; ~/.cache/dynse if not given."""
    gates_only: bool = False
    """Read nothing else, and score no opponent."""
    seed: int = 0
    """Of the mixtures that are drawn, of the embedded corpus and of a net trained here."""


def main(arguments: Arguments) -> list[ProbeRecord]:
    """Probe every net, report; gives the records."""
    config = _configure(arguments)
    console, run_dir, corpus, fixed = open_experiment(
        "probes", arguments, config.corpus, config.test_set
    )
    runs = arguments.runs or (_train(arguments.preset, corpus, run_dir, arguments.seed, console),)
    try:
        classes = noise_classes(corpus, config.recordings)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    sets = {split: _mixtures(corpus, split, config, classes, fixed) for split in SPLITS}
    pitch = {
        split: bank_pitch(corpus.speech[split], cache_dir=arguments.cache_dir) for split in SPLITS
    }
    records: list[ProbeRecord] = []
    figures: list[Section] = []
    for folder in runs:
        model, variables, run = load_run(folder)
        name = f"{folder.name}-seed{run.seed}"
        path = run_dir / "records" / f"{name}.json"
        described = _describe(run, variables, config, arguments.seed)
        if path.exists():
            found = load_probe_record(path)
            if found.config == described and found.corpus_fingerprint == corpus.fingerprint:
                records.append(found)
                continue
        if records:  # what is read from the input alone is the same for every net
            rivals = _of_input(records[0])
            features = tuple(name for name in config.features if name in OF_NET)
        else:
            test = sets["test"].general
            rivals = score_rivals(corpus, test, pitch["test"]) if config.opponents else {}
            features = config.features
        record, sections = probe_net(
            folder.name,
            model,
            variables,
            run,
            corpus,
            sets,
            pitch,
            classes,
            features=features,
            untrained=config.opponents,
            rivals=rivals,
            console=console,
            described=described,
        )
        save_probe_record(path, record)
        records.append(record)
        figures = figures or sections
    tables = [*score_tables(records), cost_table(records), verification_table(records)]
    for table in tables:
        console.print(f"{table.title}\n{table.markdown()}", markup=False)
    intro = (
        f"Preset {arguments.preset}, corpus {corpus.name} ({corpus.fingerprint[:8]}). Machine: "
        f"{', '.join(f'{key} {value}' for key, value in machine().items())}."
    )
    report = Report("What the gates tell", intro, [Text("What is read", _WHAT), *tables, *figures])
    if figures:  # else the report of the start that probed a net has them
        console.print(f"Report: {write_report(run_dir, report)}")
    return records


def _mixtures(
    corpus: Corpus, split: str, config: Config, classes: Sequence[str], fixed: str | None
) -> Mixtures:
    if split == "test" and fixed is not None:
        general = read_csv(fixed)
    else:
        general = draw_mixtures(
            corpus, split, per_snr=config.per_snr[split], mixture_s=config.mixture_s
        )
    of_classes = draw_noise_mixtures(
        corpus, split, classes, per_snr=config.noise_per_snr[split], mixture_s=config.mixture_s
    )
    return Mixtures(general, of_classes)


def _of_input(record: ProbeRecord) -> Rivals:
    """The part of a record that another net would have as well."""
    of_net = ("random gates", "untrained gates", *OF_NET)
    return {
        task: {
            name: found
            for name, found in by_name.items()
            if name not in of_net and not name.startswith("gates")
        }
        for task, by_name in record.scores.items()
    }


def probe_net(
    name: str,
    model: Any,
    variables: Mapping[str, Any],
    run: RunConfig,
    corpus: Corpus,
    sets: Mapping[str, Mixtures],
    pitch: Mapping[str, Pitch],
    classes: Sequence[str],
    *,
    features: Sequence[str],
    untrained: bool,
    rivals: Rivals,
    console: Console,
    described: Mapping[str, Any],
) -> tuple[ProbeRecord, list[Section]]:
    """All tasks of one network: the record and its pictures."""
    frame = np.zeros((1, 1, model.bins), np.float32)
    fresh = jax.jit(model.init)(jax.random.key(run.seed + 1), frame)

    def hear(of: Any, mixtures: TestSet) -> list[MixtureRows]:
        return list(mixture_rows(model, of, corpus, mixtures, pitch[mixtures.split], stft=run.stft))

    def hear_all(of: Any, kind: str) -> Splits:
        return Splits(*(hear(of, getattr(sets[split], kind)) for split in SPLITS))

    noise = noise_task(classes)
    results: dict[str, TaskResult] = {}
    extra: dict[str, Mapping[str, Interval]] = {}
    with progress_bar(console) as progress:
        bar = progress.add_task(f"{name}: listening", total=6, status="")
        heard = hear_all(variables, "general")
        by_fresh = hear_all(fresh, "general") if untrained else None
        quiet = hear(variables, quiet_mixtures(sets["test"].general, *QUIET))
        for task in (VOICE, F0, FRAME_SNR, GENDER, SNR):
            progress.update(bar, description=f"{name}: {task.name}")
            if not can_study(task, heard):
                console.print(f"{task.name}: not every split has all of its classes; left out")
                progress.advance(bar)
                continue
            found = study_task(task, heard, by_fresh, seed=run.seed, features=features)
            extra[task.name] = {**found.extra, **score_by_snr(task, found.probe, quiet)}
            results[task.name] = found
            progress.advance(bar)
        verification = {
            f"{name}, {pairs}": found
            for name, splits, feature in (
                ("gates", heard, "gates"),
                ("log-mel", heard, "log-mel"),
                ("untrained gates", by_fresh, "gates"),
            )
            if splits is not None
            for pairs, found in verify_speakers(splits, feature).items()
        }
        examples = heard.test[:: -(-len(heard.test) // 3)]
        macs = _active_macs(model, heard.test)
        counts = _counts(heard)
        del heard, by_fresh, quiet
        progress.update(bar, description=f"{name}: {noise.name}")
        of_noise = hear_all(variables, "of_classes")
        by_fresh = hear_all(fresh, "of_classes") if untrained else None
        found = study_task(noise, of_noise, by_fresh, seed=run.seed, features=features)
        results[noise.name], extra[noise.name] = found, found.extra
        counts["noise classes"] = {"names": list(classes), **_counts(of_noise)}
        progress.advance(bar)
    scores = {task: {**result.scores, **rivals.get(task, {})} for task, result in results.items()}
    record = ProbeRecord(
        net=name,
        seed=run.seed,
        scores=scores,
        paths={task: result.path for task, result in results.items()},
        enough={task: result.enough for task, result in results.items()},
        additions={task: result.additions for task, result in results.items()},
        extra=extra,
        verification=verification,
        active_macs=macs,
        counts=counts,
        config=described,
        corpus_fingerprint=corpus.fingerprint,
        machine=machine(),
        commit=commit(),
    )
    specs = {spec.id: spec for spec in sets["test"].general}
    noisy = [render(specs[one.id], corpus).noisy for one in examples]
    pictures = probe_pictures(
        record, results, of_noise, examples, noisy, classes, blocks=_blocks(model)
    )
    return record, pictures


def _blocks(model: Any) -> int:
    return model.stacks * model.blocks


def _active_macs(model: Any, heard: Sequence[MixtureRows]) -> float:
    """Per frame, at the mean of each gate over the mixtures."""
    kept = np.concatenate([one.gates for one in heard]).mean(0)
    return float(
        total_active_macs(model.cost(), [b.mean() for b in np.split(kept, _blocks(model))])
    )


def _counts(heard: Splits) -> dict[str, Any]:
    return {
        split: {
            "mixtures": len(found),
            "speakers": len({one.labels.speaker for one in found}),
            "noise recordings": len({one.labels.noise_recording for one in found}),
            "noise sources": len({one.labels.noise_source for one in found}),
        }
        for split, found in (("train", heard.train), ("valid", heard.valid), ("test", heard.test))
    }


def _train(
    preset: str, corpus: Corpus, run_dir: pathlib.Path, seed: int, console: Console
) -> pathlib.Path:
    """A DynCP of train_dyncp.py's preset of this name, without its time limit."""
    if preset == "mini":
        raise SystemExit(
            "preset mini needs --runs, the folders of nets that train_dyncp.py trained"
        )
    recipe = DYNCP_PRESETS[preset]
    run = dataclasses.replace(recipe.run, net=recipe.nets["dyncp"], seed=seed)
    train_run(run_dir / "dyncp", run, corpus, title="dyncp", console=console)
    return run_dir / "dyncp"


def _configure(arguments: Arguments) -> Config:
    config = PRESETS[arguments.preset]
    if arguments.gates_only:
        config = dataclasses.replace(config, features=(), opponents=False)
    return config


def _describe(
    run: RunConfig, variables: Mapping[str, Any], config: Config, seed: int
) -> dict[str, Any]:
    """What decides a record, but for the corpus."""
    content = {"run": dataclasses.asdict(run), "probes": dataclasses.asdict(config), "seed": seed}
    del content["probes"]["corpus"], content["probes"]["test_set"]
    return json.loads(json.dumps({**content, "variables": variables_digest(variables)}))


_WHAT = (
    "- gates: bits of a frame (voice, F0, frame SNR), or their mean over a mixture (others).\n"
    "- scores, activations: of the same network, as real numbers.\n"
    "- log-mel: 64 bands of the noisy input; log-mel 18: with the 17 frames before, as many "
    "numbers as there are gates.\n"
    "- random gates, untrained gates: what is read where nothing was learnt.\n"
    "- balanced accuracy: the mean over the classes of the share that is right; saying always the "
    "same gives one half, or 1 / classes.\n"
    "- R2: the share of the variance that is explained, of log2 F0 in voiced frames and of the SNR "
    "in dB, limited to -20 to 30 in a frame."
)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
