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
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from train_dyncp import PRESETS as DYNCP_PRESETS

from dynse.data.bank import Bank, Corpus
from dynse.data.drawing import make_test_set
from dynse.data.labels import SHAPE, label_mixture
from dynse.data.named import named_corpus
from dynse.data.pitch import bank_pitch
from dynse.data.testsets import TestSet, read_csv, render
from dynse.evaluation.probe_figures import map_figure, score_figure, weight_figure
from dynse.evaluation.probe_strip import strip_figure
from dynse.evaluation.report import write_report
from dynse.evaluation.scores import commit, machine
from dynse.evaluation.sections import Figure, Report, Section, Text
from dynse.evaluation.statistics import Interval
from dynse.layers.cost import total_active_macs
from dynse.probes.features import activation_rates, causal_average
from dynse.probes.linear import decide, outputs
from dynse.probes.records import (
    ProbeRecord,
    cost_table,
    load_probe_record,
    save_probe_record,
    score_tables,
    verification_table,
)
from dynse.probes.rivals import MODES, tracked_f0, webrtc_voice
from dynse.probes.rows import MixtureRows, mixture_rows
from dynse.probes.study import (
    FEATURES,
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
    Rows,
    noise_task,
    score_estimates,
)
from dynse.progress import progress_bar
from dynse.training.runs import RunConfig, load_run, train_run, variables_digest
from dynse.training.start import start_experiment

HERE = pathlib.Path(__file__).resolve().parent
Rivals = Mapping[str, Mapping[str, Mapping[str, Interval]]]  # task -> name -> score -> interval


@dataclasses.dataclass(frozen=True)
class Config:
    """What an experiment is.

    Attributes:
        corpus: "synthetic", "smoke" or a folder.
        per_snr: mixtures at each of five SNRs by split, for frames and speakers.
        noise_per_snr: the same for the noise classes, dealt over those alone.
        recordings: that a noise class needs in the train and test splits each.
        features: what else is read, by its names in `study`.
        test_set: CSV of a fixed test set for the frames; None draws one.
        mixture_s: shortest and longest of a drawn mixture.
    """

    corpus: str
    per_snr: Mapping[str, int]
    noise_per_snr: Mapping[str, int]
    recordings: int
    features: tuple[str, ...] = FEATURES
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
        noise_per_snr={"train": 87, "valid": 18, "test": 34},
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
    seed: int = 0
    """Of the mixtures that are drawn, of the embedded corpus and of a net trained here."""


def main(arguments: Arguments) -> list[ProbeRecord]:
    """Probe every net, report; gives the records."""
    console = start_experiment(arguments.cache_dir)
    config = _configure(arguments)
    run_dir = arguments.run_dir or pathlib.Path("runs") / f"probes-{arguments.preset}"
    run_dir.mkdir(parents=True, exist_ok=True)
    corpus = named_corpus(
        config.corpus,
        seed=arguments.seed,
        cache_dir=arguments.cache_dir,
        name="dynse-mini" if arguments.preset == "mini" else None,
    )
    runs = arguments.runs or (_train(arguments.preset, corpus, run_dir, arguments.seed, console),)
    classes = noise_classes(corpus, config.recordings)
    sets = {
        split: mixture_sets(corpus, split, config, classes) for split in ("train", "valid", "test")
    }
    rivals: Rivals | None = None
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
        rivals = rivals or score_rivals(corpus, sets["test"][0], arguments.cache_dir)
        record, sections = probe_net(
            folder.name,
            model,
            variables,
            run,
            corpus,
            sets,
            classes,
            features=config.features,
            rivals=rivals,
            console=console,
            cache_dir=arguments.cache_dir,
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


def noise_classes(corpus: Corpus, fewest: int) -> list[str]:
    """Classes with so many recordings in both the train and the test split."""
    train, test = (Counter(corpus.noise[split].groups) for split in ("train", "test"))
    found = [name for name in sorted(train) if min(train[name], test[name]) >= fewest]
    if len(found) < 2:
        raise SystemExit(
            f"expected two noise classes or more with {fewest} recordings in the train and test "
            f"splits each, got {found}"
        )
    return found


def mixture_sets(
    corpus: Corpus, split: str, config: Config, classes: Sequence[str]
) -> list[TestSet]:
    """The mixtures of a split: over all noises, and over the noise classes to be told apart."""
    short, long = config.mixture_s
    drawn = {"min_s": short, "max_s": long}
    if split == "test" and config.test_set is not None:
        general = read_csv(config.test_set)
    else:
        general = make_test_set(
            corpus, split, name="probes", seed=2, per_snr=config.per_snr[split], **drawn
        )
    noise = {split: _of_classes(corpus.noise[split], classes)}
    special = make_test_set(
        dataclasses.replace(corpus, noise=noise),
        split,
        name="noise-classes",
        seed=3,
        per_snr=config.noise_per_snr[split],
        **drawn,
    )
    return [general, special]


def _of_classes(bank: Bank, classes: Sequence[str]) -> Bank:
    """The recordings of these groups alone."""
    chosen = [index for index, group in enumerate(bank.groups) if group in classes]
    samples = [bank.samples[bank.offsets[i] : bank.offsets[i + 1]] for i in chosen]
    return Bank(
        np.concatenate(samples),
        np.concatenate([[0], np.cumsum([len(part) for part in samples])]),
        tuple(bank.names[index] for index in chosen),
        tuple(bank.groups[index] for index in chosen),
    )


def probe_net(
    name: str,
    model: Any,
    variables: Mapping[str, Any],
    run: RunConfig,
    corpus: Corpus,
    sets: Mapping[str, Sequence[TestSet]],
    classes: Sequence[str],
    *,
    features: Sequence[str],
    rivals: Rivals,
    console: Console,
    cache_dir: pathlib.Path | None,
    described: Mapping[str, Any],
) -> tuple[ProbeRecord, list[Section]]:
    """All tasks of one network: the record and its pictures."""
    frame = np.zeros((1, 1, model.bins), np.float32)
    fresh = jax.jit(model.init)(jax.random.key(run.seed + 1), frame)
    pitch = {split: bank_pitch(corpus.speech[split], cache_dir=cache_dir) for split in sets}

    def hear(of: Any, kind: int) -> Splits:
        found = {}
        for split, (general, special) in sets.items():
            chosen = (general, special)[kind]
            rows = mixture_rows(model, of, corpus, chosen, pitch[split], stft=run.stft)
            found[split] = list(rows)
        return Splits(**found)

    noise = noise_task(classes)
    results: dict[str, TaskResult] = {}
    with progress_bar(console) as progress:
        bar = progress.add_task(f"{name}: listening", total=6, status="")
        heard, untrained = hear(variables, 0), hear(fresh, 0)
        for task in (VOICE, F0, FRAME_SNR, GENDER, SNR):
            progress.update(bar, description=f"{name}: {task.name}")
            if not can_study(task, heard):
                console.print(f"{task.name}: not every split has all of its classes; left out")
                progress.advance(bar)
                continue
            results[task.name] = study_task(
                task, heard, untrained, seed=run.seed, features=features
            )
            progress.advance(bar)
        verification = verify_speakers(heard)
        examples = heard.test[:: -(-len(heard.test) // 3)]
        macs = _active_macs(model, heard.test)
        counts = _counts(heard)
        del heard, untrained
        progress.update(bar, description=f"{name}: {noise.name}")
        of_noise, untrained = hear(variables, 1), hear(fresh, 1)
        results[noise.name] = study_task(
            noise, of_noise, untrained, seed=run.seed, features=features
        )
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
        extra={task: result.extra for task, result in results.items()},
        verification=verification,
        active_macs=macs,
        counts=counts,
        config=described,
        corpus_fingerprint=corpus.fingerprint,
        machine=machine(),
        commit=commit(),
    )
    figures = _figures(
        record, results, of_noise, examples, corpus, sets["test"][0], classes, _blocks(model)
    )
    return record, figures


def score_rivals(corpus: Corpus, test_set: TestSet, cache_dir: pathlib.Path | None) -> Rivals:
    """The WebRTC detector at each mode and pYIN, both on the noisy test mixtures."""
    pitch = bank_pitch(corpus.speech["test"], cache_dir=cache_dir)
    labels = [label_mixture(spec, corpus, pitch) for spec in test_set]
    noisy = [render(spec, corpus).noisy for spec in test_set]
    frames = [len(one.frames.voice) for one in labels]
    groups = {
        task: np.repeat([getattr(one, task.drawn) for one in labels], frames)
        for task in (VOICE, F0)
    }
    voice = np.concatenate([one.frames.voice for one in labels])
    rows = Rows(voice, voice, groups[VOICE])
    found: dict[str, dict[str, Any]] = {VOICE.name: {}, F0.name: {}}
    try:
        for mode in MODES:
            said = np.concatenate([webrtc_voice(signal, mode) for signal in noisy])
            found[VOICE.name][f"WebRTC detector, mode {mode}"] = score_estimates(VOICE, said, rows)
    except ModuleNotFoundError:
        found[VOICE.name] = {}
    f0_hz = np.concatenate([one.frames.f0_hz for one in labels])
    voiced = f0_hz > 0
    tracked = np.concatenate([tracked_f0(signal) for signal in noisy])[voiced]
    # Where the tracker finds no pitch, the mean of what it finds elsewhere is its best guess.
    known = tracked > 0
    guess = np.log2(tracked[known]).mean() if known.any() else 0.0
    estimate = np.where(known, np.log2(np.where(known, tracked, 1.0)), guess)
    rows = Rows(f0_hz[voiced], np.log2(f0_hz[voiced]), groups[F0][voiced])
    found[F0.name]["pYIN on the noisy signal"] = score_estimates(F0, estimate, rows)
    return found


def _figures(
    record: ProbeRecord,
    results: Mapping[str, TaskResult],
    of_noise: Splits,
    examples: Sequence[MixtureRows],
    corpus: Corpus,
    test_set: TestSet,
    classes: Sequence[str],
    blocks: int,
) -> list[Section]:
    """Score against channels, weights per block, a map of mixtures, and what was heard."""
    per_block = [gate.shape[-1] for gate in np.split(examples[0].gates, blocks, axis=1)]
    width = sum(per_block)
    weights = {}
    for task, result in results.items():
        full = np.zeros((width, result.probe.weights.shape[1]), np.float32)
        full[np.asarray(result.probe.channels)] = result.probe.weights
        weights[task] = np.abs(full).max(1) if full.shape[1] > 1 else full[:, 0]
    references = {
        task: {
            kind: next(iter(found.values())).mean
            for kind, found in by_kind.items()
            if kind in ("majority or mean", "log-mel", "log-mel 18")
        }
        for task, by_kind in record.scores.items()
    }
    rates = np.stack([activation_rates(one.gates) for one in of_noise.test])
    sections: list[Section] = [
        Figure(
            "Score against number of channels",
            score_figure(
                record.paths,
                enough=record.enough,
                reference=references,
                scores={task: next(iter(found["gates"])) for task, found in record.scores.items()},
            ),
            "The channels are chosen on training mixtures, one after the other.",
        ),
        Figure(
            "Weights of every channel",
            weight_figure(weights, per_block),
            "Of the noise class the largest absolute weight over the classes.",
        ),
        Figure(
            "Mixtures by the rates of their gates",
            map_figure(rates, np.array([one.labels.noise_class for one in of_noise.test])),
            "t-SNE of the test mixtures: what lies near has like gates.",
        ),
    ]
    specs = {spec.id: spec for spec in test_set}
    for mixture in examples:
        noisy = render(specs[mixture.id], corpus).noisy
        sections.append(
            Figure(
                f"Heard in {mixture.id}",
                _strip(mixture, noisy, results, classes),
                f"{mixture.labels.noise_class} at {mixture.labels.snr_db:g} dB.",
            )
        )
    return sections


def _strip(
    mixture: MixtureRows,
    noisy: np.ndarray,
    results: Mapping[str, TaskResult],
    classes: Sequence[str],
) -> bytes:
    """What the probes say frame by frame, under the spectrogram."""
    told = {task: outputs(result.probe, mixture.gates) for task, result in results.items()}
    voice = np.asarray(decide(results[VOICE.name].probe, told[VOICE.name]))
    # The noise class was learnt from rates over a mixture: from the last second here.
    recent = causal_average(mixture.gates, 62)
    recent *= 62 / np.minimum(np.arange(1, len(recent) + 1), 62)[:, None]
    logits = np.asarray(outputs(results["noise class"].probe, recent))
    if logits.shape[1] == 1:  # of two classes the first has logit 0
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    labels = mixture.labels.frames
    f0_hz = 2.0 ** np.asarray(told[F0.name])[:, 0]
    return strip_figure(
        noisy,
        stft=SHAPE,
        voice_true=labels.voice,
        voice=voice,
        f0_true=labels.f0_hz,
        f0=np.where(voice, f0_hz, 0),
        snr_true=labels.snr_db,
        snr=np.asarray(told[FRAME_SNR.name])[:, 0],
        class_names=classes,
        class_scores=np.asarray(jax.nn.softmax(logits, axis=-1)),
        class_true=mixture.labels.noise_class if mixture.labels.noise_class in classes else None,
    )


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
    if arguments.corpus is not None:
        config = dataclasses.replace(config, corpus=str(arguments.corpus))
    if not config.corpus:
        raise SystemExit(f"preset {arguments.preset} needs --corpus FOLDER")
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
