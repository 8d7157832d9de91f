"""Compress a speech enhancement net: sparse regularisation, iterative pruning, clustering.

    python experiments/compress.py                                  # a small FDNN, embedded corpus
    python experiments/compress.py --net lstm --pipeline C2         # whole columns go
    python experiments/compress.py --preset smoke                   # shows that all works
    python experiments/compress.py --preset mini --corpus FOLDER    # quarter widths
    python experiments/compress.py --preset paper --corpus FOLDER   # full widths, for a GPU
    python experiments/compress.py --no-regularizer                 # what the regulariser is for
    python experiments/compress.py --iterations 0                   # clustering alone
    python experiments/compress.py --trained RUN --corpus FOLDER    # a net that is there

It trains a net, trains it on with a sparse regulariser, and then again and again prunes every
tensor as far as the validation loss allows and fine-tunes what is left; each net on the way is
clustered and written as a packed file that can be loaded again. C1 prunes single weights, C2 whole
groups (Tan and Wang, IEEE/ACM TASLP 29, 2021). report.md and report.html hold STOI and PESQ at -5,
0 and 5 dB, sizes and rates of every net. Started again on the same folder it goes on where it
stopped; all nets, pipelines and seeds share a folder and its report, C1 and C2 the trained net.
Of time, training alone is bounded on the machine at hand: 4.5 minutes by default, 35 for mini;
analysis, clustering and scoring come on top.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console

from dynse.audio.stft import STFT
from dynse.data.bank import Corpus
from dynse.data.drawing import make_test_set
from dynse.data.mixing import MixingConfig
from dynse.data.named import VALID_PER_SNR, named_corpus
from dynse.data.testsets import TestSet, read_csv
from dynse.evaluation.compression_records import (
    CompressedNet,
    CompressionRecord,
    load_compression_record,
    save_compression_record,
    scores_by_snr,
)
from dynse.evaluation.compression_tables import compression_report, compression_tables
from dynse.evaluation.metric_process import MetricPool
from dynse.evaluation.report import write_report
from dynse.evaluation.scores import commit, machine
from dynse.evaluation.variants import VariantScores
from dynse.layers.cost import total_macs
from dynse.models.conv_fsenet import GateConfig
from dynse.pruning import (
    Stage,
    StopRule,
    analyze_sensitivity,
    cluster,
    compress,
    get_tensor,
    groups_by_rank,
    lambda_factor,
    lambdas_by_share,
    make_sweep,
    masks_by_thresholds,
    pruned_macs,
    sparse_group_lasso,
    unstructured,
    with_masks,
    with_penalty,
)
from dynse.training.compression import finetuning, mean_loss, validation_batches, validation_loss
from dynse.training.gates import GateTraining
from dynse.training.loop import LoopConfig, check_identity
from dynse.training.nets import (
    ConvFSENetConfig,
    FDNNConfig,
    GCRNConfig,
    LSTMConfig,
    NetConfig,
    NsNet2Config,
    TCNNConfig,
)
from dynse.training.plan import plan_steps
from dynse.training.runs import RunConfig, load_run, train_run
from dynse.training.start import start_experiment
from dynse.training.step import AMSGradConfig, OptimizerConfig

HERE = pathlib.Path(__file__).resolve().parent
SNRS_DB = (-5, 0, 5)
# The papers train 30 epochs and 10 after each pruning.
FINETUNE_SHARE = 1 / 3
Net = Literal["fdnn", "lstm", "tcnn", "gcrn", "conv_fsenet", "nsnet2"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """Hyper-parameters of one net's compression.

    Attributes:
        lambdas: (lambda1, lambda2); None: each term of the regulariser a tenth of the loss.
        alphas: (alpha1, alpha2), the largest increases of the validation loss by pruning and by
            clustering one tensor; absolute where lambdas are given, else shares of the loss.
        iterations: at most so many, of C1 and of C2.
    """

    lambdas: tuple[float, float] | None = None
    alphas: tuple[float, float] = (0.01, 0.002)
    iterations: tuple[int, int] = (5, 5)


# Their losses are of mixtures at an RMS of 1, on the STFT below. Of alpha1 of the TCNN, which is
# published twice, the journal's.
PUBLISHED: Mapping[str, Limits] = {
    "fdnn": Limits((0.1, 0.0005), (0.003, 0.0005), (5, 3)),
    "lstm": Limits((10, 0.005), (0.03, 0.01), (5, 4)),
    "tcnn": Limits((0.02, 0.02), (0.0002, 0.00005), (3, 2)),
    "gcrn": Limits((1, 0.05), (0.02, 0.005), (5, 5)),
}
# Ours, of other levels and losses: an FDNN's error is mostly what it cannot know, so a larger share
# of it can be given away.
SHARES: Mapping[str, Limits] = {"fdnn": Limits(alphas=(0.05, 0.01))}


@dataclasses.dataclass(frozen=True)
class Config:
    """What an experiment is.

    Attributes:
        corpus: "synthetic", "smoke" or a folder.
        runs: how each net is trained.
        limits: of its compression, by net; `Limits()` where there is none.
        rule: when pruning stops; its iterations are those of the limits.
        test_set: CSV of a fixed test set, of which the mixtures at -5, 0 and 5 dB are taken; None
            draws one.
        per_snr: test mixtures at each SNR, at most.
        train_minutes: time that all training may take together; None for no limit.
        epochs: passes over the training speech, in place of the number of steps.
        bisect: halve the grid of ratios in place of Algorithm 1's walk along it: a third of the
            evaluations, and the same ratio where the loss rises as more is pruned.
    """

    corpus: str
    runs: Mapping[str, RunConfig]
    limits: Mapping[str, Limits]
    rule: StopRule = StopRule()
    test_set: str | None = None
    per_snr: int = 8
    train_minutes: float | None = None
    epochs: int | None = None
    bisect: bool = True


def runs(
    nets: Mapping[str, NetConfig], loop: LoopConfig, *, valid_batches: int = 4, **mixing: Any
) -> dict[str, RunConfig]:
    """How nets are trained: the papers' four as published, the others by their own recipes."""
    published = RunConfig(
        stft=STFT(320, 320, 160, "hamming"),
        mixing=MixingConfig(**mixing, unit_rms=True),
        optimizer=AMSGradConfig(),
        loop=loop,
        valid_batches=valid_batches,
        loss="target",
    )
    own = RunConfig(
        mixing=MixingConfig(**mixing),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=20),
        loop=loop,
        valid_batches=valid_batches,
        waveform_weight=0.03,
    )
    return {
        name: dataclasses.replace(published if name in PUBLISHED else own, net=net)
        for name, net in nets.items()
    }


def gated(width: int, inner: int, **shape: int) -> ConvFSENetConfig:
    """A Conv-FSENet with gates at a quarter of the channels."""
    gate = GateConfig(window=2, surrogate="sigmoid", normalize=True, detach=False, bias=0.0)
    training = GateTraining(target=0.25, mutual_information=0.05, ramp=0.25, fade=(0.5, 0.75))
    return ConvFSENetConfig(width, inner, gate=gate, gate_training=training, **shape)


PRESETS: Mapping[str, Config] = {
    "default": Config(
        corpus="synthetic",
        runs=runs(
            {
                "fdnn": FDNNConfig((256, 256, 256)),
                "lstm": LSTMConfig((128, 128)),
                "tcnn": TCNNConfig((4, 4, 4, 8, 8, 16, 16), inner=64, stacks=1),
                "gcrn": GCRNConfig((4, 8, 16, 32, 32)),
                "conv_fsenet": gated(64, 128),
                "nsnet2": NsNet2Config(128, 128, 192),
            },
            LoopConfig(steps=1500, log_every=10, validate_every=100, checkpoint_every=100),
            batch_size=8,
            snr_db=(-5.0, 5.0),
        ),
        limits=SHARES,
        rule=StopRule(iterations=3),
        train_minutes=4.5,
    ),
    "smoke": Config(
        corpus="smoke",
        runs=runs(
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
        limits=SHARES,
        # A net of twelve steps has no scores to lose.
        rule=StopRule(iterations=2, least_pruned=0.0, largest_drop={}),
        per_snr=1,
    ),
    "mini": Config(
        corpus="",
        runs=runs(
            {
                "fdnn": FDNNConfig((512, 512, 512)),
                "lstm": LSTMConfig((256, 256, 256, 256)),
                "tcnn": TCNNConfig((4, 4, 4, 8, 8, 16, 16), inner=128),
                "gcrn": GCRNConfig((4, 8, 16, 32, 64)),
                # Not quartered: small as they are.
                "conv_fsenet": gated(128, 256),
                "nsnet2": NsNet2Config(),
            },
            LoopConfig(steps=1200, validate_every=100, checkpoint_every=100),
            batch_size=8,
            snr_db=(-5.0, 5.0),
        ),
        limits=SHARES,
        test_set=str(HERE / "testsets" / "dynse-mini-test-v1.csv"),
        per_snr=16,
        train_minutes=35,
    ),
    "paper": Config(
        corpus="",
        runs=runs(
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
        limits=PUBLISHED,
        per_snr=42,
        epochs=30,
        bisect=False,
    ),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train a net, compress it, write the report."""

    preset: Literal["default", "smoke", "mini", "paper"] = "default"
    """default: a small net on the embedded corpus; smoke: shows that all works; mini: quarter
    widths on a folder corpus; paper: full widths and the published hyper-parameters."""
    net: Net = "fdnn"
    """Which network."""
    pipeline: Literal["C1", "C2"] = "C1"
    """C1: l1 and single weights; C2: sparse group lasso and whole groups."""
    regularizer: bool = True
    """Train on and fine-tune with the sparse regulariser."""
    iterations: int | None = None
    """Most iterations of pruning, in place of the preset's; 0 clusters alone."""
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
    console = start_experiment(arguments.cache_dir)
    config = _configure(arguments)
    run_dir = arguments.run_dir or pathlib.Path("runs") / f"compress-{arguments.preset}"
    run_dir.mkdir(parents=True, exist_ok=True)
    corpus = named_corpus(
        config.corpus,
        seed=arguments.seed,
        cache_dir=arguments.cache_dir,
        name="dynse-mini" if arguments.preset == "mini" else None,
    )
    test_set, valid_set = _test_sets(corpus, config)
    if arguments.trained is not None:
        model, variables, run = load_run(arguments.trained)
    else:
        run = _plan(config.runs[arguments.net], config, corpus, run_dir, console)
        name = f"{arguments.net}-seed{arguments.seed}"
        model, variables, _ = train_run(
            run_dir / name, run, corpus, title=arguments.net, console=console
        )
    limits = config.limits.get(run.net.kind, Limits())
    with MetricPool() as pool:
        scoring = VariantScores(
            model, run.stft, corpus, pool, run_dir / "scores", run.mixing.unit_rms, run.seed
        )
        job = Compression(arguments, run, limits, config, corpus, scoring, valid_set, console)
        stages = job.stages(run_dir, _without_empty(variables))
        record = _record(job, stages, test_set, run_dir)
    save_compression_record(run_dir / "records" / f"{job.name}.json", record)
    records = [load_compression_record(path) for path in (run_dir / "records").glob("*.json")]
    records.sort(key=lambda one: one.name)
    path = write_report(run_dir, compression_report(records, preset=arguments.preset))
    for table in compression_tables([record])[:2]:
        console.print(f"{table.title}\n{table.markdown()}", markup=False)
    if record.best is not None:
        console.print(f"The smallest net that loses little: {run_dir / record.best.file}")
    console.print(f"Report: {path}")
    return record


class Compression:
    """One pipeline on one trained net: the functions that `compress` takes."""

    def __init__(
        self,
        arguments: Arguments,
        run: RunConfig,
        limits: Limits,
        config: Config,
        corpus: Corpus,
        scoring: VariantScores,
        valid_set: TestSet,
        console: Console,
    ) -> None:
        self.pipeline, self.regularized = arguments.pipeline, arguments.regularizer
        self.net, self.run, self.limits = run.net.kind, run, limits
        self.rule, self.bisect = config.rule, config.bisect
        self.corpus, self.scoring, self.valid_set = corpus, scoring, valid_set
        self.console = console
        self.batches = validation_batches(run, corpus)
        self.loss = validation_loss(run)
        self.finetuning = finetuning(run, max(1, round(FINETUNE_SHARE * run.loop.steps)))

    @property
    def name(self) -> str:
        """Of the folder and the record."""
        plain = "" if self.regularized else "-plain"
        return f"{self.net}-{self.pipeline}{plain}-seed{self.run.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the outcome, as JSON."""
        content = {
            "run": dataclasses.asdict(self.run),
            "finetuning": dataclasses.asdict(self.finetuning),
            "pipeline": self.pipeline,
            "regularized": self.regularized,
            "limits": dataclasses.asdict(self.limits),
            "rule": dataclasses.asdict(self.rule),
            "bisect": self.bisect,
            "corpus": self.corpus.fingerprint,
            "valid_set": self.valid_set.sha256,
        }
        return json.loads(json.dumps(content))

    def stages(self, run_dir: pathlib.Path, variables: Any) -> list[Stage]:
        """Train on with the regulariser, then compress."""
        folder = run_dir / self.name
        folder.mkdir(exist_ok=True)
        check_identity(folder, self.identity)
        groups = groups_by_rank(variables["params"])
        if self.pipeline == "C1":
            groups = unstructured(groups)
        whole = {f"params/{path}": axes for path, axes in groups.items()}
        self.groups = groups
        # One function: what is compiled for it serves all iterations.
        loss = mean_loss(self.loss, self.batches)
        self.trained, self.valid_loss = variables, float(jax.jit(loss)(variables))
        self.lambdas, self.alphas = self._limits(variables)
        sweep = make_sweep(self.loss)
        first = self.scoring.means(variables, self.valid_set)

        def train_on(start: Any, masks: Any, iteration: int) -> Any:
            weights = tuple(lambda_factor(iteration) * value for value in self.lambdas)
            place = folder / (f"iteration-{iteration}/finetuning" if iteration else "regularised")
            return self._train_on(place, start, masks, weights, iteration)

        start = train_on(variables, masks_by_thresholds(variables, whole, {}), 0)
        found = []
        for stage in compress(
            folder,
            start,
            whole,
            analyze=lambda params: analyze_sensitivity(
                sweep, params, whole, self.batches, alpha=self.alphas[0], bisect=self.bisect
            ),
            finetune=train_on,
            score=lambda params: self.scoring.means(params, self.valid_set),
            cluster=lambda params: cluster(loss, params, whole, self.alphas[1]),
            rule=self.rule,
            first_scores=first,
            metadata={
                "net": dataclasses.asdict(self.run.net),
                "stft": dataclasses.asdict(self.run.stft),
                "unit_rms": self.run.mixing.unit_rms,
            },
        ):
            found.append(stage)
            self.console.print(
                f"iteration {stage.state.iteration}: published rate "
                f"{stage.clustered_sizes.published_rate:.1f}, file "
                f"{stage.clustered_sizes.true_rate:.1f}"
            )
        return found

    def _limits(self, variables: Any) -> tuple[tuple[float, float], tuple[float, float]]:
        """lambdas and alphas."""
        share = lambdas_by_share(self.valid_loss, variables["params"], self.groups)
        lambdas = self.limits.lambdas or share
        alphas = self.limits.alphas
        if self.limits.lambdas is None:
            alphas = alphas[0] * self.valid_loss, alphas[1] * self.valid_loss
        # Single weights have no groups to be sparse in.
        lambdas = (lambdas[0], lambdas[1] if self.pipeline == "C2" else 0.0)
        return lambdas if self.regularized else (0.0, 0.0), alphas

    def _train_on(
        self, place: pathlib.Path, start: Any, masks: Any, weights: Any, iteration: int
    ) -> Any:
        def penalty(params: Any, weights: Any) -> jax.Array:
            return sparse_group_lasso(params, self.groups, *weights)

        _, variables, _ = train_run(
            place,
            self.finetuning,
            self.corpus,
            variables=start,
            around=lambda optimizer: with_masks(
                with_penalty(optimizer, penalty, weights), masks["params"]
            ),
            told={"lambdas": weights, "pipeline": self.pipeline},
            phase=1 + iteration,
            title=f"{self.net} {self.pipeline} iteration {iteration}",
            console=self.console,
        )
        return _without_empty(variables)


def _record(
    job: Compression, stages: Sequence[Stage], test_set: TestSet, run_dir: pathlib.Path
) -> CompressionRecord:
    """Score every net on the way, and gather."""
    scoring = job.scoring
    variables = job.trained
    tensors = {path: f"params/{path}" for path in job.groups}
    sizes = {path: np.size(get_tensor(variables, whole)) for path, whole in tensors.items()}

    def left(variables: Any) -> dict[str, int]:
        return {
            path: int(np.count_nonzero(get_tensor(variables, whole)))
            for path, whole in tensors.items()
        }

    def scored(name: str, variables: Any, config: Mapping[str, Any]) -> Any:
        return scores_by_snr(scoring.record(name, variables, test_set, config))

    layers = scoring.model.cost()
    nets = []
    for stage in stages:
        iteration = stage.state.iteration
        for clustered, params, size in (
            (False, stage.state.params, stage.sizes),
            (True, stage.clustered, stage.clustered_sizes),
        ):
            kind = "clustered" if clustered else "pruned"
            file = stage.path.with_name(f"{kind}.packed")
            about = {**job.identity, "iteration": iteration, "kind": kind}
            nets.append(
                CompressedNet(
                    iteration=iteration,
                    clustered=clustered,
                    weights=sum(left(params).values()),
                    macs=pruned_macs(layers, params["params"], job.groups),
                    published_bytes=size.published,
                    entropy_bytes=size.entropy,
                    file_bytes=size.file,
                    file=file.relative_to(run_dir).as_posix(),
                    scores=scored(f"{job.name} {iteration} {kind}", params, about),
                )
            )
    states = [stage.state for stage in stages]
    weights = [left(state.params) for state in states]
    valid = [states[0].first_scores, *(state.scores for state in states)]
    return CompressionRecord(
        net=job.net,
        pipeline=job.pipeline,
        seed=job.run.seed,
        regularized=job.regularized,
        noisy=scores_by_snr(scoring.noisy_record(test_set)),
        trained=scored(f"{job.net} seed{job.run.seed}", variables, {"run": job.identity["run"]}),
        dense_bytes=stages[0].sizes.dense,
        dense_weights=sum(sizes.values()),
        dense_macs=total_macs(layers),
        nets=tuple(nets),
        stopped=job.rule.reason(states[-1]),
        densities={
            path: tuple(one[path] / size for one in weights) for path, size in sizes.items()
        },
        ratios={
            path: tuple(state.sensitivity.ratios[whole] for state in states[1:])
            for path, whole in tensors.items()
        },
        clusters={
            path: tuple(stage.clusters[whole] for stage in stages)
            for path, whole in tensors.items()
        },
        evaluations=tuple(state.sensitivity.evaluations for state in states[1:]),
        lambdas=job.lambdas,
        alphas=job.alphas,
        valid_loss=job.valid_loss,
        valid_scores={
            name: tuple(None if np.isnan(one[name]) else one[name] for one in valid)
            for name in valid[0]
        },
        config=job.identity,
        corpus=scoring.corpus.name,
        corpus_fingerprint=scoring.corpus.fingerprint,
        test_set=test_set.name,
        test_set_hash=test_set.sha256,
        machine=machine(),
        commit=commit(),
    )


def _without_empty(variables: Mapping[str, Any]) -> dict[str, Any]:
    """A net without running statistics has none in its files."""
    return {name: tree for name, tree in variables.items() if tree}


def _configure(arguments: Arguments) -> Config:
    config = PRESETS[arguments.preset]
    if arguments.corpus is not None:
        test_set = config.test_set if arguments.preset == "mini" else None
        config = dataclasses.replace(config, corpus=str(arguments.corpus), test_set=test_set)
    if not config.corpus:
        raise SystemExit(f"preset {arguments.preset} needs --corpus FOLDER")
    limits = config.limits.get(arguments.net, Limits())
    iterations = limits.iterations[arguments.pipeline == "C2"]
    if arguments.iterations is not None:
        iterations = arguments.iterations
    elif arguments.preset in ("default", "smoke"):
        iterations = config.rule.iterations
    run = dataclasses.replace(config.runs[arguments.net], seed=arguments.seed)
    if arguments.steps is not None:
        run = dataclasses.replace(run, loop=dataclasses.replace(run.loop, steps=arguments.steps))
        config = dataclasses.replace(config, train_minutes=None, epochs=None)
    return dataclasses.replace(
        config,
        runs={arguments.net: run},
        rule=dataclasses.replace(config.rule, iterations=iterations),
    )


def _plan(
    run: RunConfig, config: Config, corpus: Corpus, run_dir: pathlib.Path, console: Console
) -> RunConfig:
    """Settle the number of steps, by epochs or by the clock."""
    steps = plan_steps(
        run_dir / f"plan-{run.net.kind}.json",
        [(run, 1 + FINETUNE_SHARE * (1 + config.rule.iterations))],
        corpus,
        minutes=config.train_minutes,
        epochs=config.epochs,
        console=console,
    )
    return dataclasses.replace(run, loop=dataclasses.replace(run.loop, steps=steps))


def _test_sets(corpus: Corpus, config: Config) -> tuple[TestSet, TestSet]:
    """The mixtures to score, and those of the validation split that the stop rule looks at."""
    shared = {"snrs_db": SNRS_DB}
    valid = make_test_set(
        corpus,
        "valid",
        name="valid",
        seed=1,
        per_snr=min(config.per_snr, VALID_PER_SNR),
        **shared,
    )
    if config.test_set is None:
        test = make_test_set(corpus, "test", name="test", seed=0, per_snr=config.per_snr, **shared)
        return test, valid
    whole = read_csv(config.test_set)
    chosen = [
        spec
        for snr in SNRS_DB
        for spec in [one for one in whole if one.snr_db == snr][: config.per_snr]
    ]
    return dataclasses.replace(whole, mixtures=tuple(chosen)), valid


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
