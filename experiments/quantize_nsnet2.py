"""nsNet2 in integers end to end: trained in float, quantised, scored beside the float net.

    python experiments/quantize_nsnet2.py                     # a small net, embedded corpus
    python experiments/quantize_nsnet2.py --preset smoke      # shows that all works
    python experiments/quantize_nsnet2.py --preset mini --corpus FOLDER    # half an hour on 2 cores

It trains an nsNet2, calibrates it on training batches, and scores it in float and with 8, 6 and
4 bits everywhere on the test set: PESQ, STOI, ESTOI, SI-SDR, and the size of weights and biases.
Started again on the same folder it goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from typing import Literal

import tyro

from dynse.data.drawing import make_test_set
from dynse.data.mixing import MixingConfig, load_source
from dynse.data.named import named_test_sets
from dynse.evaluation.cost import cost_table
from dynse.evaluation.metric_process import MetricPool
from dynse.evaluation.report import Report, write_report
from dynse.evaluation.scores import machine
from dynse.evaluation.scoring import NetResult, score_net, score_references
from dynse.evaluation.tables import difference_table, quality_table
from dynse.layers.cost import total_params
from dynse.models.integer_nsnet2 import LAYERS, IntegerNsNet2, quantize_nsnet2
from dynse.quantization import homogeneous, weight_bits
from dynse.training.loop import LoopConfig
from dynse.training.nets import NsNet2Config
from dynse.training.runs import RunConfig, noisy_magnitudes, train_run
from dynse.training.start import open_experiment
from dynse.training.step import OptimizerConfig

HERE = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Config:
    """What an experiment is.

    Attributes:
        corpus: "synthetic", "smoke" or a folder.
        run: how the float net is trained.
        test_set: CSV of a fixed test set, None draws one.
        per_snr: test mixtures at each SNR where one is drawn.
        bits: widths of all operations, one net each.
        calibration: method of the ranges of activations.
        weights: method of the scales of weights.
    """

    corpus: str
    run: RunConfig
    test_set: str | None = None
    per_snr: int = 8
    bits: tuple[int, ...] = (8, 6, 4)
    calibration: str = "minmax"
    weights: str = "minmax"


# The paper trains hundreds of epochs at 1e-4; a run of thousands of steps needs more a step.
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup_steps=50, clip_norm=1.0)
PRESETS = {
    "default": Config(
        "synthetic",
        RunConfig(
            net=NsNet2Config(first=128, hidden=128, wide=192),
            mixing=MixingConfig(batch_size=8),
            optimizer=OPTIMIZER,
            loop=LoopConfig(steps=1200),
            waveform_weight=0.03,
        ),
    ),
    "smoke": Config(
        "smoke",
        RunConfig(
            net=NsNet2Config(first=8, hidden=8, wide=8),
            mixing=MixingConfig(batch_size=2, crop_s=1.0),
            optimizer=OPTIMIZER,
            loop=LoopConfig(steps=10, log_every=5, validate_every=10, checkpoint_every=10),
            valid_batches=1,
        ),
        per_snr=1,
        bits=(8,),
    ),
    "mini": Config(
        "",
        RunConfig(net=NsNet2Config(), optimizer=OPTIMIZER, loop=LoopConfig(steps=2400)),
        test_set=str(HERE / "testsets" / "dynse-mini-test-v1.csv"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train nsNet2, quantise it, score both, write the report."""

    preset: Literal["default", "smoke", "mini"] = "default"
    """default: a small net on the embedded corpus; smoke: shows that all works; mini:
    the full net, 2,400 steps on a folder corpus."""
    run_dir: pathlib.Path | None = None
    """Where everything goes, runs/nsnet2-PRESET if not given; an interrupted run goes on there."""
    corpus: pathlib.Path | None = None
    """Folder with clean/SPLIT/SPEAKER/* and noise/SPLIT/CLASS/* (SPLIT train, valid, test)."""
    cache_dir: pathlib.Path | None = None
    """Where decoded corpora are kept; ~/.cache/dynse if not given."""
    seed: int = 0
    """Of parameters, batches and the embedded corpus."""


def main(arguments: Arguments) -> dict[str, NetResult]:
    """Train, quantise, score, report; gives the results by net."""
    config = PRESETS[arguments.preset]
    run = dataclasses.replace(config.run, seed=arguments.seed)
    console, run_dir, corpus, fixed = open_experiment(
        "nsnet2", arguments, config.corpus, config.test_set
    )

    test_set, _ = named_test_sets(corpus, fixed, per_snr=config.per_snr)
    valid_set = make_test_set(corpus, "valid", name="valid", seed=1, per_snr=1)
    model, variables, lines = train_run(
        run_dir / "nsnet2", run, corpus, title="nsnet2", console=console
    )
    speech, noise = load_source(corpus.speech["train"]), load_source(corpus.noise["train"])
    batches = itertools.islice(noisy_magnitudes(run, speech, noise), 8)
    net = quantize_nsnet2(
        model, variables, batches, method=config.calibration, weights=config.weights
    )
    described = dataclasses.asdict(run)
    shared = {
        "corpus": corpus,
        "test_set": test_set,
        "valid_set": valid_set,
        "stft": run.stft,
        "records_dir": run_dir / "records",
        "seed": run.seed,
    }
    with MetricPool() as pool:
        references = score_references(corpus, test_set, run_dir / "records", pool)
        results = {
            "nsnet2": score_net(
                "nsnet2", model, variables, **shared, pool=pool, config=described, training=lines
            )
        }
        for bits in config.bits:
            genome = homogeneous(LAYERS, bits)
            size = float(weight_bits(net, genome)) / 8
            name = f"nsnet2, {bits} bit"
            results[name] = score_net(
                name,
                IntegerNsNet2(model),
                {"net": net, "genome": genome, "batch_stats": variables["batch_stats"]},
                **shared,
                pool=pool,
                config=described
                | {
                    "bits": bits,
                    "calibration": config.calibration,
                    "weights": config.weights,
                },
                bytes_per_param=size / total_params(model.cost()),
            )
    records = [*references, *(result.record for result in results.values())]
    tables = [
        quality_table(records),
        difference_table(records, "nsnet2"),
        cost_table({name: result.cost for name, result in results.items()}),
    ]
    for table in tables:
        console.print(f"{table.title}\n{table.markdown()}", markup=False)
    intro = (
        f"Corpus {corpus.name}, test set {test_set.name} of {len(test_set)} mixtures "
        f"({test_set.sha256[:8]}), {run.loop.steps} train steps. nsnet2: in float32; the others: "
        "in integers of so many bits behind the features, biases at 32 bits. Machine: "
        f"{', '.join(f'{key} {value}' for key, value in machine().items())}."
    )
    path = write_report(run_dir, Report("nsNet2 in integers", intro, tables))
    console.print(f"Report: {path}")
    return results


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
