"""Dynamic channel pruning from end to end: train it, measure it, hear it.

    python experiments/train_dyncp.py                     # embedded corpus, minutes on 2 cores
    python experiments/train_dyncp.py --preset smoke      # half a minute, shows that all works
    python experiments/train_dyncp.py --preset mini --corpus FOLDER    # hours on 2 cores
    python experiments/train_dyncp.py --preset paper --corpus FOLDER   # a GPU, 200 epochs

Preset paper trains on the published pairs of VoiceBank+DEMAND where FOLDER holds that corpus.

It trains the dense Conv-FSENet, a narrow static net of the same cost, and DynCP, whose channels
are switched per frame; scores them on held-out voices and noises beside the noisy input, the
oracle stationary Wiener gain and the controls (fixed, random and shuffled gates); and writes
report.md and report.html, with pictures and sound, into the run folder. Started again on the same
folder it goes on where it stopped. The default keeps within ten minutes on two cores.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from dynse.data.augmentation import Augmentation
from dynse.data.bank import Corpus
from dynse.data.mixing import MixingConfig
from dynse.data.named import named_test_sets
from dynse.evaluation.dyncp import DynCPReport
from dynse.evaluation.metric_process import MetricPool
from dynse.evaluation.scoring import NetResult, open_rates, score_net, score_references
from dynse.models.controlled import GateControl
from dynse.training.dyncp_nets import (
    AHEAD,
    COMBINED,
    MINI,
    PUBLISHED,
    SURROGATE_NETS,
    THREE,
    TRIED,
    Taught,
    Trainable,
    TrainedControl,
    TrainedOn,
    dyncp,
    needs,
)
from dynse.training.loop import LoopConfig
from dynse.training.nets import ConvFSENetConfig
from dynse.training.plan import plan_steps
from dynse.training.runs import RunConfig, train_run, variables_digest
from dynse.training.start import open_experiment
from dynse.training.step import OptimizerConfig, Teacher


@dataclasses.dataclass(frozen=True)
class Config:
    """What an experiment is.

    Attributes:
        corpus: "synthetic", "smoke" or a folder.
        nets: the nets by name; "dense" comes first and is what the others are compared with.
        further: nets that are trained only where they are named.
        run: how each is trained; its net is replaced.
        per_snr: test mixtures at each of -5, 0, 5, 10 and 15 dB, where none is named.
        test_set: CSV of a fixed test set, None draws one.
        train_minutes: wall time that all trainings may take together; None for no limit.
        epochs: passes over the training speech, in place of the number of steps.
        pairs: train on a corpus' published pairs of clean and noisy files, where it has them, and
            score on all of them.
    """

    corpus: str
    nets: Mapping[str, Trainable]
    run: RunConfig
    further: Mapping[str, Trainable] = dataclasses.field(default_factory=dict)
    per_snr: int = 8
    test_set: str | None = None
    train_minutes: float | None = None
    epochs: int | None = None
    pairs: bool = False


HERE = pathlib.Path(__file__).resolve().parent
PRESETS: Mapping[str, Config] = {
    "default": Config(
        corpus="synthetic",
        nets=THREE,
        run=RunConfig(
            mixing=MixingConfig(batch_size=4),
            optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=20),
            loop=LoopConfig(steps=2000, log_every=10, validate_every=200, checkpoint_every=200),
            valid_batches=16,
            waveform_weight=0.03,
        ),
        per_snr=8,
        train_minutes=3.75,
    ),
    "smoke": Config(
        corpus="smoke",
        nets={
            "dense": ConvFSENetConfig(width=16, inner=32, stacks=1, blocks=2),
            "narrow": ConvFSENetConfig(width=12, inner=24, stacks=1, blocks=2),
            "dyncp": dataclasses.replace(dyncp(), width=16, inner=32, stacks=1, blocks=2),
        },
        run=RunConfig(
            mixing=MixingConfig(batch_size=2, crop_s=1.0),
            optimizer=OptimizerConfig(learning_rate=3e-3),
            loop=LoopConfig(steps=20, log_every=5, validate_every=10, checkpoint_every=10),
            valid_batches=1,
            waveform_weight=0.03,
        ),
        per_snr=1,
    ),
    "mini": Config(
        corpus="",
        nets=MINI,
        further={**TRIED, **COMBINED, **SURROGATE_NETS},
        run=RunConfig(loop=LoopConfig(steps=2400)),
        test_set=str(HERE / "testsets" / "dynse-mini-test-v1.csv"),
    ),
    "paper": Config(
        corpus="",
        nets={
            **THREE,
            **AHEAD,
            "dyncp": PUBLISHED,
            "dyncp-ahead": dataclasses.replace(PUBLISHED, causal=False),
        },
        run=RunConfig(
            active_threshold=0.025,
            loop=LoopConfig(log_every=100, validate_every=2000, checkpoint_every=2000),
        ),
        epochs=200,
        per_snr=42,
        pairs=True,
    ),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train DynCP and its opponents, score them, write the report."""

    preset: Literal["default", "smoke", "mini", "paper"] = "default"
    """default: minutes on the embedded corpus; smoke: half a minute; mini: 2,400 steps on a
    folder corpus; paper: the published recipe on a folder corpus."""
    run_dir: pathlib.Path | None = None
    """Where everything goes, runs/dyncp-PRESET if not given; an interrupted run goes on there."""
    corpus: pathlib.Path | None = None
    """Folder with clean/SPLIT/SPEAKER/* and noise/SPLIT/CLASS/* (SPLIT train, valid, test), or
    VoiceBank+DEMAND or the DNS Challenge as published."""
    cache_dir: pathlib.Path | None = None
    """Where decoded corpora are kept; ~/.cache/dynse if not given."""
    seed: int = 0
    """Of parameters, batches and the embedded corpus."""
    steps: int | None = None
    """Train steps of each net, in place of the preset's (and of its time limit)."""
    nets: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Train these nets alone; may be given several times. Preset mini has more nets to name than it
    trains by itself (a wrong name lists them)."""
    test_set: pathlib.Path | None = None
    """CSV of a fixed test set, in place of the preset's."""
    augment: bool = False
    """Vary speech and noise before they are mixed: filters, rooms, missing bands."""
    waveform_weight: float | None = None
    """Weight per dB of the loss on the waveform beside that on the spectrum, in place of the
    preset's (.03 in default and smoke, 0 in the others)."""
    matmul: Literal["float32", "bfloat16"] = "float32"
    """What an accelerator multiplies in while it trains."""
    controls: bool = True
    """Score the gated nets with fixed, random and shuffled gates as well."""


def main(arguments: Arguments) -> dict[str, NetResult]:
    """Train, score, report; gives the results by net."""
    config = _configure(arguments)
    console, run_dir, corpus, fixed = open_experiment(
        "dyncp", arguments, config.corpus, config.test_set
    )
    test_set, valid_set = named_test_sets(
        corpus, arguments.test_set or fixed, per_snr=config.per_snr, all_pairs=config.pairs
    )
    if config.pairs and "train" in corpus.pairs:
        mixing = dataclasses.replace(config.run.mixing, pairs=True)
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, mixing=mixing))
    config = _plan(config, corpus, run_dir, console)

    results: dict[str, NetResult] = {}
    trained: dict[str, tuple[Any, Any]] = {}
    with MetricPool() as pool:
        references = score_references(corpus, test_set, run_dir / "records", pool)
        for name, net in config.nets.items():
            start = teacher = None
            if isinstance(net, Taught):
                teacher = Teacher(*trained[net.teacher], net.weight)
                net = net.net
            elif isinstance(net, TrainedControl):
                model, variables = trained[net.net]
                rates = open_rates(model, variables, corpus, valid_set, stft=config.run.stft)
                start = variables if net.trained_on else None
                net = net.of(config.nets[net.net], GateControl.of(net.kind, rates))
            elif isinstance(net, TrainedOn):
                _, start = trained[net.net]
                net = config.nets[net.net]
            run = dataclasses.replace(config.run, net=net)
            started = time.perf_counter()
            model, variables, lines = train_run(
                run_dir / name,
                run,
                corpus,
                variables=start,
                teacher=teacher,
                # A net that trains on hears new mixtures.
                phase=0 if start is None else 1,
                cache_dir=arguments.cache_dir,
                title=f"{name:>12}",
                console=console,
            )
            trained[name] = model, variables
            described = dataclasses.asdict(run)
            if start is not None:
                described["start"] = variables_digest(start)
            console.print(f"{name}: trained in {(time.perf_counter() - started) / 60:.1f} min")
            results[name] = score_net(
                name,
                model,
                variables,
                corpus,
                test_set,
                valid_set,
                stft=run.stft,
                records_dir=run_dir / "records",
                pool=pool,
                config=described,
                seed=run.seed,
                training=lines,
                controls=arguments.controls and run.net.control is None,
            )
    report = DynCPReport(
        title=f"Dynamic channel pruning, preset {arguments.preset}",
        corpus=corpus,
        test_set=test_set,
        references=references,
        results=results,
        target=_target(config),
        stft=config.run.stft,
        steps=config.run.loop.steps,
    )
    path = report.write(run_dir)
    console.print(report.summary(), markup=False)
    console.print(f"Report: {path}")
    return results


def _configure(arguments: Arguments) -> Config:
    config = PRESETS[arguments.preset]
    if arguments.nets:
        known = {**config.nets, **config.further}
        unknown = [name for name in arguments.nets if name not in known]
        if unknown:
            raise SystemExit(f"no net {unknown[0]!r}; the preset has {', '.join(known)}")
        chosen = [known[name] for name in arguments.nets]
        for name, net in zip(arguments.nets, chosen, strict=True):
            first = needs(net)
            if first and first not in arguments.nets:
                raise SystemExit(f"{name} needs {first}, trained before it: --nets {first} as well")
        # In the preset's order, in which what a net needs comes before it.
        nets = {name: net for name, net in known.items() if name in arguments.nets}
        config = dataclasses.replace(config, nets=nets)
    mixing = config.run.mixing
    if arguments.augment:
        mixing = dataclasses.replace(mixing, augmentation=Augmentation())
    run = dataclasses.replace(
        config.run, mixing=mixing, matmul=arguments.matmul, seed=arguments.seed
    )
    if arguments.waveform_weight is not None:
        run = dataclasses.replace(run, waveform_weight=arguments.waveform_weight)
    if arguments.steps is not None:
        run = dataclasses.replace(run, loop=dataclasses.replace(run.loop, steps=arguments.steps))
        config = dataclasses.replace(config, train_minutes=None, epochs=None)
    return dataclasses.replace(config, run=run)


def _plan(config: Config, corpus: Corpus, run_dir: pathlib.Path, console: Console) -> Config:
    """Settle the number of steps once per run folder, by epochs or by the clock."""
    steps = plan_steps(
        run_dir / "plan.json",
        [(dataclasses.replace(config.run, net=net), 1.0) for net in config.nets.values()],
        corpus,
        minutes=config.train_minutes,
        epochs=config.epochs,
        console=console,
    )
    loop = dataclasses.replace(config.run.loop, steps=steps)
    return dataclasses.replace(config, run=dataclasses.replace(config.run, loop=loop))


def _target(config: Config) -> float | None:
    nets = [net for net in config.nets.values() if isinstance(net, ConvFSENetConfig)]
    return next((net.gate_training.target for net in nets if net.gate_training), None)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
