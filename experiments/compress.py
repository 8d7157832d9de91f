"""Compress a speech enhancement net: sparse regularisation, iterative pruning, clustering.

    python experiments/compress.py                                  # a small FDNN, embedded corpus
    python experiments/compress.py --net lstm --pipeline C2         # whole columns go
    python experiments/compress.py --preset smoke                   # shows that all works
    python experiments/compress.py --preset mini --corpus FOLDER    # quarter widths
    python experiments/compress.py --preset paper --corpus FOLDER   # full widths, for a GPU
    python experiments/compress.py --no-regularizer                 # what the regulariser is for
    python experiments/compress.py --common-threshold               # one for all tensors
    python experiments/compress.py --rivals                         # dense nets, trained as long
    python experiments/compress.py --trained RUN --corpus FOLDER    # a net that is there

It trains a net, trains it on with a sparse regulariser, and then again and again prunes every
tensor as far as the validation loss allows and fine-tunes what is left; each net on the way is
clustered and written as a packed file that can be loaded again. C1 prunes single weights, C2 whole
groups (Tan and Wang, IEEE/ACM TASLP 29, 2021). report.md and report.html hold STOI and PESQ at -5,
0 and 5 dB, sizes and rates of every net. Started again on the same folder it goes on where it
stopped; all nets, pipelines and seeds share a folder and its report, C1 and C2 the trained net.
Clustering alone is the net "not pruned, clustered", without the regulariser if --no-regularizer.
Of time, training alone is bounded on the machine at hand: 4.5 minutes by default, 35 for mini;
analysis, clustering, scoring and rivals come on top.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Literal

import tyro
from rich.console import Console

from dynse.data.bank import Corpus
from dynse.data.named import named_test_sets
from dynse.evaluation.compression_records import (
    CompressionRecord,
    load_compression_record,
    save_compression_record,
)
from dynse.evaluation.compression_tables import compression_report, compression_tables
from dynse.evaluation.metric_process import MetricPool
from dynse.evaluation.report import write_report
from dynse.evaluation.variants import VariantScores
from dynse.pruning import StopRule
from dynse.pruning.job import CompressionJob
from dynse.pruning.recipes import (
    PUBLISHED,
    PUBLISHED_ITERATIONS,
    SHORT_RUNS,
    SHORT_RUNS_OPTIMIZER,
    SHORT_RUNS_RMS,
    CompressionConfig,
    training_runs,
)
from dynse.training.dyncp_nets import dyncp
from dynse.training.loop import LoopConfig
from dynse.training.nets import (
    ConvFSENetConfig,
    FDNNConfig,
    GCRNConfig,
    LSTMConfig,
    NsNet2Config,
    TCNNConfig,
)
from dynse.training.plan import plan_steps
from dynse.training.runs import RunConfig, load_run, train_run
from dynse.training.start import open_experiment

HERE = pathlib.Path(__file__).resolve().parent
SNRS_DB = (-5, 0, 5)
Net = Literal["fdnn", "lstm", "tcnn", "gcrn", "conv_fsenet", "nsnet2"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What an experiment is.

    Attributes:
        corpus: "synthetic", "smoke" or a folder.
        runs: how each net is trained.
        compression: how each net is compressed; `SHORT_RUNS` where there is none.
        rule: when pruning stops.
        iterations: of C1 and of C2, by net, in place of the rule's.
        test_set: CSV of a fixed test set, of which the mixtures at -5, 0 and 5 dB are taken; None
            draws one.
        per_snr: test mixtures at each SNR, at most.
        valid_per_snr: mixtures at each SNR that the stop rule looks at.
        train_minutes: time that all training may take together; None for no limit.
        epochs: passes over the training speech, in place of the number of steps.
    """

    corpus: str
    runs: Mapping[str, RunConfig]
    compression: Mapping[str, CompressionConfig] = dataclasses.field(default_factory=dict)
    rule: StopRule = StopRule()
    iterations: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    test_set: str | None = None
    per_snr: int = 8
    valid_per_snr: int = 4
    train_minutes: float | None = None
    epochs: int | None = None


def gated(width: int, inner: int, **shape: int) -> ConvFSENetConfig:
    """A Conv-FSENet with gates at a quarter of the channels."""
    return dataclasses.replace(dyncp(), width=width, inner=inner, **shape)


PRESETS: Mapping[str, Config] = {
    "default": Config(
        corpus="synthetic",
        runs=training_runs(
            {
                "fdnn": FDNNConfig((256, 256, 256)),
                "lstm": LSTMConfig((128, 128)),
                "tcnn": TCNNConfig((4, 4, 4, 8, 8, 16, 16), inner=64, stacks=1),
                "gcrn": GCRNConfig((4, 8, 16, 32, 32)),
                "conv_fsenet": gated(64, 128),
                "nsnet2": NsNet2Config(128, 128, 192),
            },
            LoopConfig(steps=1500, log_every=10, validate_every=100, checkpoint_every=100),
            rms=SHORT_RUNS_RMS,
            optimizer=SHORT_RUNS_OPTIMIZER,
            valid_batches=4,
            batch_size=8,
            snr_db=(-5.0, 5.0),
        ),
        rule=StopRule(iterations=3),
        train_minutes=4.5,
    ),
    "smoke": Config(
        corpus="smoke",
        runs=training_runs(
            {
                "fdnn": FDNNConfig((16, 16)),
                "lstm": LSTMConfig((8,)),
                "tcnn": TCNNConfig((2, 2, 2, 2), inner=4, stacks=1, blocks=1),
                "gcrn": GCRNConfig((2, 2, 2)),
                "conv_fsenet": gated(8, 12, stacks=1, blocks=1),
                "nsnet2": NsNet2Config(8, 8, 8),
            },
            LoopConfig(steps=12, log_every=6, validate_every=6, checkpoint_every=6),
            valid_batches=1,
            batch_size=2,
            crop_s=1.0,
        ),
        # A net of twelve steps has no scores to lose.
        rule=StopRule(iterations=2, least_pruned=0.0, largest_drop={}),
        per_snr=1,
        valid_per_snr=1,
    ),
    "mini": Config(
        corpus="",
        runs=training_runs(
            {
                "fdnn": FDNNConfig((512, 512, 512)),
                "lstm": LSTMConfig((256, 256, 256, 256)),
                "tcnn": TCNNConfig((4, 4, 4, 8, 8, 16, 16), inner=128),
                "gcrn": GCRNConfig((4, 8, 16, 32, 64)),
                # Not quartered: small as they are.
                "conv_fsenet": gated(128, 256),
                "nsnet2": NsNet2Config(),
            },
            LoopConfig(steps=6000, validate_every=200, checkpoint_every=200),
            steps={"fdnn": 3000, "tcnn": 4000},
            rms=SHORT_RUNS_RMS,
            optimizer=SHORT_RUNS_OPTIMIZER,
            batch_size=8,
            crop_s=1.0,
            snr_db=(-5.0, 5.0),
        ),
        test_set=str(HERE / "testsets" / "dynse-mini-test-v1.csv"),
        per_snr=16,
        train_minutes=35,
    ),
    "paper": Config(
        corpus="",
        runs=training_runs(
            {
                "fdnn": FDNNConfig(),
                "lstm": LSTMConfig(),
                "tcnn": TCNNConfig(),
                "gcrn": GCRNConfig(),
                "conv_fsenet": gated(128, 256),
                "nsnet2": NsNet2Config(),
            },
            LoopConfig(log_every=100, validate_every=1000, checkpoint_every=1000),
            valid_batches=32,
            batch_size=16,
            crop_s=4.0,
            snr_db=(-5.0, 0.0),
        ),
        compression=PUBLISHED,
        iterations=PUBLISHED_ITERATIONS,
        per_snr=42,
        valid_per_snr=42,
        epochs=30,
    ),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train a net, compress it, write the report."""

    preset: Literal["default", "smoke", "mini", "paper"] = "default"
    """default: a small net on the embedded corpus; smoke: shows that all works; mini: quarter
    widths on a folder corpus; paper: full widths and the published hyper-parameters."""
    net: Net | None = None
    """Which network; fdnn if neither this nor a trained one is given."""
    pipeline: Literal["C1", "C2"] = "C1"
    """C1: l1 and single weights; C2: sparse group lasso and whole groups."""
    regularizer: bool = True
    """Train on and fine-tune with the sparse regulariser."""
    common_threshold: bool = False
    """Prune as many weights, but by one threshold for all tensors."""
    rivals: bool = False
    """Train dense nets for as many steps as the best pruned one: as small, as large as before."""
    iterations: int | None = None
    """Most iterations of pruning, in place of the preset's; 0 clusters alone. The time limit counts
    with the preset's."""
    run_dir: pathlib.Path | None = None
    """Where everything goes, runs/compress-PRESET if not given; an interrupted run goes on."""
    corpus: pathlib.Path | None = None
    """Folder with clean/SPLIT/SPEAKER/* and noise/SPLIT/CLASS/* (SPLIT train, valid, test)."""
    cache_dir: pathlib.Path | None = None
    """Where decoded corpora are kept; ~/.cache/dynse if not given."""
    seed: int = 0
    """Of parameters, batches and the embedded corpus."""
    trained: pathlib.Path | None = None
    """Folder of a run whose net is compressed, in place of training one."""
    steps: int | None = None
    """Train steps, in place of the preset's (and of its time limit)."""


def main(arguments: Arguments) -> CompressionRecord:
    """Train, compress, score, report; gives the record."""
    config = _configure(arguments)
    console, run_dir, corpus, fixed = open_experiment(
        "compress", arguments, config.corpus, config.test_set
    )
    test_set, valid_set = named_test_sets(
        corpus,
        fixed,
        per_snr=config.per_snr,
        valid_per_snr=config.valid_per_snr,
        snrs_db=SNRS_DB,
    )
    if arguments.trained is not None:
        model, variables, run = load_run(arguments.trained)
        _check_corpus(arguments.trained, corpus)
    else:
        (run,) = config.runs.values()
        run = _plan(run, config, corpus, run_dir, console)
        name = f"{run.net.kind}-seed{run.seed}"
        model, variables, _ = train_run(
            run_dir / name, run, corpus, title=run.net.kind, console=console
        )
    with MetricPool() as pool:
        job = CompressionJob(
            _compression(arguments, config, run),
            run,
            variables,
            corpus,
            scoring=VariantScores(
                model, run.stft, corpus, pool, run_dir / "scores", run.mixing.rms, run.seed
            ),
            valid_set=valid_set,
            run_dir=run_dir,
            console=console,
        )
        record = job.record(job.stages(), test_set)
        path = run_dir / "records" / f"{job.name}.json"
        if path.exists() and (before := load_compression_record(path)).nets == record.nets:
            record = before  # made by the machine and the code that it says
        save_compression_record(path, record)
        if arguments.rivals:
            record = dataclasses.replace(record, rivals=job.rivals(record, test_set))
            save_compression_record(path, record)
    records = [load_compression_record(path) for path in (run_dir / "records").glob("*.json")]
    records.sort(key=lambda one: (one.name, one.seed))
    path = write_report(run_dir, compression_report(records, preset=arguments.preset))
    for table in compression_tables([record])[:2]:
        console.print(f"{table.title}\n{table.markdown()}", markup=False)
    if record.best is not None:
        console.print(f"The smallest net that loses little: {run_dir / record.best.file}")
    console.print(f"Report: {path}")
    return record


def _check_corpus(trained: pathlib.Path, corpus: Corpus) -> None:
    """Speech that a net was not trained on tells another loss, and it would be fine-tuned to it."""
    found = json.loads((trained / "config.json").read_text())["corpus"]
    if found["fingerprint"] != corpus.fingerprint:
        raise SystemExit(
            f"{trained} was trained on the corpus {found['name']} ({found['fingerprint'][:12]}), "
            f"this is {corpus.name} ({corpus.fingerprint[:12]}): give its --corpus"
        )


def _configure(arguments: Arguments) -> Config:
    config = PRESETS[arguments.preset]
    if arguments.trained is not None:
        if arguments.net is not None or arguments.steps is not None:
            raise SystemExit("--trained brings a net and its steps: leave out --net and --steps")
        return config
    run = dataclasses.replace(config.runs[arguments.net or "fdnn"], seed=arguments.seed)
    if arguments.steps is not None:
        run = dataclasses.replace(run, loop=dataclasses.replace(run.loop, steps=arguments.steps))
        config = dataclasses.replace(config, train_minutes=None, epochs=None)
    return dataclasses.replace(config, runs={run.net.kind: run})


def _compression(arguments: Arguments, config: Config, run: RunConfig) -> CompressionConfig:
    """Of this run's net, by the preset and the arguments."""
    net, iterations = run.net.kind, arguments.iterations
    if net in config.compression and run.mixing.rms != 1:
        raise SystemExit(
            "the published limits are of losses at an RMS of 1, the net was trained at "
            f"{run.mixing.rms}: compress it with another preset"
        )
    if iterations is None:
        published = config.iterations.get(net, (config.rule.iterations,) * 2)
        iterations = published[arguments.pipeline == "C2"]
    return dataclasses.replace(
        config.compression.get(net, SHORT_RUNS),
        pipeline=arguments.pipeline,
        rule=dataclasses.replace(config.rule, iterations=iterations),
        regularized=arguments.regularizer,
        common_threshold=arguments.common_threshold,
    )


def _plan(
    run: RunConfig, config: Config, corpus: Corpus, run_dir: pathlib.Path, console: Console
) -> RunConfig:
    """Settle the number of steps, by epochs or by the clock."""
    steps = plan_steps(
        run_dir / f"plan-{run.net.kind}.json",
        [(run, 1 + SHORT_RUNS.finetune_share * (1 + config.rule.iterations))],
        corpus,
        minutes=config.train_minutes,
        epochs=config.epochs,
        console=console,
    )
    return dataclasses.replace(run, loop=dataclasses.replace(run.loop, steps=steps))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
