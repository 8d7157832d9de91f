"""Early exits from end to end: several levels of quality and cost from one nsNet2.

    python experiments/train_early_exit.py                   # small nets, embedded corpus, minutes
    python experiments/train_early_exit.py --preset smoke    # shows that all works
    python experiments/train_early_exit.py --preset mini --corpus FOLDER    # hours on 2 cores
    python experiments/train_early_exit.py --preset paper --corpus FOLDER   # a GPU

It trains nsNet2 with exits, all at once and layer by layer, with each split of the information
flow, beside each stage's net alone; scores every exit; lets policies choose an exit in every frame
of the best joint net (a budget, a threshold, a learned router, the oracle); and writes report.md
and report.html. Started again on the same folder it goes on where it stopped. The default
measures its own speed and shortens the training, to keep within ten minutes on two cores.

Miccini et al., MLSP 2023, arXiv 2308.16678.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Annotated, Literal

import tyro

from dynse.data.augmentation import Augmentation
from dynse.data.mixing import MixingConfig
from dynse.data.named import named_test_sets
from dynse.evaluation.early_exit import EarlyExitReport
from dynse.evaluation.exit_tables import ALONE
from dynse.evaluation.metric_process import MetricPool
from dynse.evaluation.scores import RunRecord
from dynse.evaluation.scoring import NetResult, score_net, score_references
from dynse.exits import SPLITS
from dynse.training.exit_nets import ExitNet, exit_nets
from dynse.training.loop import LoopConfig
from dynse.training.nets import EarlyExitNsNet2Config
from dynse.training.phases import phase_runs, train_phases
from dynse.training.plan import plan_steps
from dynse.training.policy_scores import TrainedExits, score_policies
from dynse.training.runs import RunConfig, train_run
from dynse.training.start import open_experiment
from dynse.training.step import OptimizerConfig

HERE = pathlib.Path(__file__).resolve().parent
# A threshold has nothing to choose among fewer.
FEWEST_EXITS = 3


@dataclasses.dataclass(frozen=True)
class Config:
    """What an experiment is.

    Attributes:
        corpus: "synthetic", "smoke" or a folder.
        nets: the nets by name.
        run: how each is trained; its net is replaced.
        per_snr: test mixtures at each of -5, 0, 5, 10 and 15 dB, where none is named.
        test_set: CSV of a fixed test set, None draws one.
        train_minutes: wall time that all trainings may take together; None for no limit.
        epochs: passes over the training speech, in place of the number of steps.
        router_batches: training batches that the routers learn from.
        skipping: policies at which the rules for skipped states are compared.
    """

    corpus: str
    nets: Mapping[str, ExitNet]
    run: RunConfig
    per_snr: int = 8
    test_set: str | None = None
    train_minutes: float | None = None
    epochs: int | None = None
    router_batches: int = 32
    skipping: tuple[str, ...] = ("budget", "threshold", "router")


# The paper trains long at 1e-4; a run of thousands of steps needs more a step.
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup_steps=50, clip_norm=1.0)
SMALLEST = EarlyExitNsNet2Config(first=8, hidden=32, exits=("fc1", "gru1", "gru2"))
PRESETS: Mapping[str, Config] = {
    "default": Config(
        corpus="synthetic",
        nets=exit_nets(("none", "divide"), ("none",), first=64, hidden=64, wide=96),
        run=RunConfig(
            mixing=MixingConfig(batch_size=4),
            optimizer=dataclasses.replace(OPTIMIZER, learning_rate=3e-3),
            loop=LoopConfig(steps=1200, log_every=10, validate_every=100, checkpoint_every=100),
            waveform_weight=0.03,
        ),
        per_snr=3,
        train_minutes=3.5,
        router_batches=64,
        skipping=("router",),
    ),
    "smoke": Config(
        corpus="smoke",
        nets={
            "joint-none": ExitNet(SMALLEST),
            "layerwise-divide": ExitNet(
                dataclasses.replace(SMALLEST, exits=("fc1", "gru1"), split="divide"),
                layerwise=True,
            ),
            "alone-fc1": ExitNet(dataclasses.replace(SMALLEST, exits=("fc1",))),
        },
        run=RunConfig(
            mixing=MixingConfig(batch_size=2, crop_s=1.0),
            optimizer=OPTIMIZER,
            loop=LoopConfig(steps=8, log_every=4, validate_every=4, checkpoint_every=4),
            valid_batches=1,
        ),
        per_snr=1,
        router_batches=2,
        skipping=("budget",),
    ),
    "mini": Config(
        corpus="",
        nets=exit_nets(SPLITS, SPLITS, ("none",), ("none",)),
        run=RunConfig(optimizer=OPTIMIZER, loop=LoopConfig(steps=2400)),
        test_set=str(HERE / "testsets" / "dynse-mini-test-v1.csv"),
    ),
    "paper": Config(
        corpus="",
        nets=exit_nets(SPLITS, SPLITS, ("none",), ("none",)),
        run=RunConfig(
            optimizer=OptimizerConfig(learning_rate=1e-4, final_learning_rate=1e-6),
            # Ours: a cosine in place of steps down by a tenth on plateaus, SNR and level uniform
            # in place of normal, the number of epochs and the patience.
            mixing=MixingConfig(augmentation=Augmentation(biquad=1.0, room=0.0, band=0.0)),
            loop=LoopConfig(log_every=100, validate_every=2000, checkpoint_every=2000, patience=20),
            valid_batches=32,
        ),
        epochs=100,
        per_snr=42,
    ),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train nets with exits and each stage alone, score exits and policies, write the report."""

    preset: Literal["default", "smoke", "mini", "paper"] = "default"
    """default: small nets on the embedded corpus; smoke: shows that all works; mini: the full net,
    2,400 steps on a folder corpus; paper: AdamW at 1e-4, long, on a folder corpus."""
    run_dir: pathlib.Path | None = None
    """Where everything goes, runs/early-exit-PRESET if not given; an interrupted run goes on."""
    corpus: pathlib.Path | None = None
    """Folder with clean/SPLIT/SPEAKER/* and noise/SPLIT/CLASS/* (SPLIT train, valid, test)."""
    cache_dir: pathlib.Path | None = None
    """Where decoded corpora are kept; ~/.cache/dynse if not given."""
    seed: int = 0
    """Of parameters, batches and the embedded corpus."""
    steps: int | None = None
    """Train steps of each net, in place of the preset's (and of its time limit)."""
    nets: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Train these nets of the preset alone; may be given several times."""
    policy_net: str | None = None
    """The net that the policies are run on; the best joint one by validation if not given."""
    test_set: pathlib.Path | None = None
    """CSV of a fixed test set, in place of the preset's."""


def main(arguments: Arguments) -> list[RunRecord]:
    """Train, score, report; gives the records of all exits and policies."""
    config = _configure(arguments)
    console, run_dir, corpus, fixed = open_experiment(
        "early-exit", arguments, config.corpus, config.test_set
    )
    test_set, valid_set = named_test_sets(
        corpus, arguments.test_set or fixed, per_snr=config.per_snr
    )
    steps = plan_steps(
        run_dir / "plan.json",
        _programs(config),
        corpus,
        minutes=config.train_minutes,
        epochs=config.epochs,
        console=console,
    )
    loop = dataclasses.replace(config.run.loop, steps=steps)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, loop=loop))

    trained: dict[str, TrainedExits] = {}
    for name, net in config.nets.items():
        run = dataclasses.replace(config.run, net=net.config)
        train = train_phases if net.layerwise else train_run
        started = time.perf_counter()
        model, variables, lines = train(
            run_dir / name, run, corpus, title=f"{name:>20}", console=console
        )
        trained[name] = TrainedExits(model, variables, lines, run, net.layerwise)
        console.print(f"{name}: trained in {(time.perf_counter() - started) / 60:.1f} min")

    results: dict[str, NetResult] = {}
    chosen = _policy_net(trained, arguments.policy_net)
    policies: list[RunRecord] = []
    pictures = {}
    with MetricPool() as pool:
        references = score_references(corpus, test_set, run_dir / "records", pool)
        for name, one in trained.items():
            for index, exit_name in enumerate(one.model.exits):
                # The nets of single stages are the exits of one static family.
                family = ALONE if name.startswith(ALONE) else name
                results[f"{family}, {exit_name}"] = score_net(
                    f"{family}, {exit_name}",
                    one.model.clone(exit_index=index),
                    one.variables,
                    corpus,
                    test_set,
                    valid_set,
                    stft=config.run.stft,
                    records_dir=run_dir / "records",
                    pool=pool,
                    config={**one.described, "exit": exit_name},
                    seed=config.run.seed,
                    training=one.lines,
                )
        if chosen is not None:
            policies, pictures = score_policies(
                chosen,
                trained[chosen],
                corpus,
                test_set,
                valid_set,
                run_dir=run_dir,
                pool=pool,
                router_batches=config.router_batches,
                skipping=config.skipping,
                pictured={one.mixture.id for one in next(iter(results.values())).examples},
            )
    records = [*(result.record for result in results.values()), *policies]
    report = EarlyExitReport(
        title=f"Early exits, preset {arguments.preset}",
        corpus=corpus,
        test_set=test_set,
        references=references,
        records=records,
        training={name: one.lines for name, one in trained.items()},
        examples={name: result.examples for name, result in results.items()},
        pictures=pictures,
        policy_net=chosen,
        stft=config.run.stft,
        steps=steps,
    )
    path = report.write(run_dir)
    console.print(report.summary(), markup=False)
    console.print(f"Report: {path}")
    return records


def _policy_net(trained: Mapping[str, TrainedExits], wanted: str | None) -> str | None:
    """The net that was asked for, or the joint one with the lowest validation loss."""
    if wanted is not None:
        return wanted
    losses = {
        name: min(
            line["valid"]["loss"]
            for line in one.lines
            if "valid" in line and line["step"] >= one.run.best_from_step
        )
        for name, one in trained.items()
        if not one.layerwise and len(one.model.exits) >= FEWEST_EXITS
    }
    return min(losses, key=losses.__getitem__, default=None)


def _programs(config: Config) -> list[tuple[RunConfig, float]]:
    """Every train step that is compiled, with the share of a net's steps that it does."""
    found = []
    for net in config.nets.values():
        run = dataclasses.replace(config.run, net=net.config)
        runs = phase_runs(run) if net.layerwise else [run]
        found += [(one, 1 / len(runs)) for one in runs]
    return found


def _configure(arguments: Arguments) -> Config:
    config = PRESETS[arguments.preset]
    if arguments.nets:
        unknown = [name for name in arguments.nets if name not in config.nets]
        if unknown:
            raise SystemExit(f"no net {unknown[0]!r}; the preset has {', '.join(config.nets)}")
        config = dataclasses.replace(
            config, nets={name: config.nets[name] for name in arguments.nets}
        )
    able = [name for name, net in config.nets.items() if len(net.config.exits) >= FEWEST_EXITS]
    if arguments.policy_net not in (None, *able):
        raise SystemExit(
            f"no policies on {arguments.policy_net!r}: the nets with three exits or more are "
            f"{', '.join(able)}"
        )
    run = dataclasses.replace(config.run, seed=arguments.seed)
    if arguments.steps is not None:
        run = dataclasses.replace(run, loop=dataclasses.replace(run.loop, steps=arguments.steps))
        config = dataclasses.replace(config, train_minutes=None, epochs=None)
    return dataclasses.replace(config, run=run)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
