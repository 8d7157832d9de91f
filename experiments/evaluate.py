"""Score any trained run on any corpus.

    python experiments/evaluate.py --run runs/dyncp-default/dyncp
    python experiments/evaluate.py --run runs/dyncp-default/dyncp --corpus FOLDER --split test
    python experiments/evaluate.py --run RUN --file noisy.wav --out enhanced.wav
    python experiments/evaluate.py --run RUN/iteration-5/clustered.packed --file noisy.wav
    python experiments/evaluate.py --run runs/early-exit-default/joint-none --exit gru1
    python experiments/evaluate.py --run RUN --budget 4 --file noisy.wav

A run is the folder of a trained net, or the packed file of a compressed one. Without a file a
record and a report are written beside the run and the table is printed, with the noisy input and
the oracle Wiener gain for comparison; about a second a mixture on a laptop CPU. With one, a file of
any common format and rate is enhanced.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import tyro

from dynse.audio.files import read_audio, write_audio
from dynse.data.bank import Corpus
from dynse.data.folders import folder_corpus
from dynse.data.mixing import rms_factor
from dynse.data.named import VALID_PER_SNR, draw_test_set
from dynse.data.synthetic import synthetic_corpus
from dynse.data.testsets import read_csv
from dynse.evaluation.cost import FRAMES_PER_S
from dynse.evaluation.dyncp import DynCPReport
from dynse.evaluation.metric_process import MetricPool
from dynse.evaluation.scoring import score_net, score_references
from dynse.exits import Budget, EarlyExit, Taken
from dynse.layers.cost import total_macs
from dynse.models.waveform import enhance
from dynse.pruning.runs import load_packed_run, packed_metadata
from dynse.training.runs import load_run, variables_digest
from dynse.training.start import start_experiment


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Score a trained run, or enhance a file with it."""

    run: pathlib.Path
    """Folder of one trained net, for instance runs/dyncp-default/dyncp, or a packed file."""
    corpus: pathlib.Path | None = None
    """Folder with clean/SPLIT/SPEAKER/* and noise/SPLIT/CLASS/*, or VoiceBank+DEMAND or the DNS
    Challenge as published; else the embedded corpus."""
    split: str = "test"
    """Which split to score."""
    test_set: pathlib.Path | None = None
    """CSV of a fixed test set; one is drawn if not given, or all published pairs are taken."""
    per_snr: int = 8
    """Mixtures at each of -5, 0, 5, 10 and 15 dB, where they are drawn."""
    out_dir: pathlib.Path | None = None
    """Where the report goes; if not given evaluation-CORPUS in RUN, or beside the file."""
    cache_dir: pathlib.Path | None = None
    """Where decoded corpora are kept; ~/.cache/dynse if not given."""
    file: pathlib.Path | None = None
    """Enhance this file instead of scoring."""
    out: pathlib.Path = pathlib.Path("enhanced.wav")
    """Where the enhanced file goes."""
    exit: str | None = None
    """Of a net with exits the one that is taken, in place of the last."""
    budget: float | None = None
    """Enhance the file with as many MMAC/s at most: a net with exits takes one in every frame."""


def main(arguments: Arguments) -> pathlib.Path:
    """Score or enhance; gives the path of what was written."""
    console = start_experiment(arguments.cache_dir)
    packed = arguments.run.is_file()
    model, variables, run = (load_packed_run if packed else load_run)(arguments.run)
    if arguments.exit is not None:
        programs = _exits(model)
        if arguments.exit not in programs:
            raise SystemExit(f"no exit {arguments.exit!r}; the net has {', '.join(programs)}")
        model = programs[arguments.exit]
    if arguments.file is not None:
        if arguments.budget is not None:
            model = _budgeted(model, arguments.budget)
            variables = {**variables, "exit_policy": {"mmac_per_s": arguments.budget}}
        noisy = read_audio(arguments.file)
        rms = run.mixing.rms
        factor = 1 if rms is None else rms_factor(noisy, rms)
        enhanced, aux = enhance(model, variables, factor * noisy[None], stft=run.stft)
        write_audio(arguments.out, np.asarray(enhanced[0]) / factor)
        console.print(f"{arguments.out}: {len(noisy) / 16000:.1f} s{_done(aux, model)}")
        return arguments.out
    if arguments.budget is not None:
        raise SystemExit("--budget goes with --file")

    corpus = _corpus(arguments)
    if arguments.test_set is not None:
        test_set = read_csv(arguments.test_set)
        corpus = dataclasses.replace(corpus, name=test_set.corpus)  # each mixture is checked
    else:
        test_set = draw_test_set(
            corpus, arguments.split, seed=0, per_snr=arguments.per_snr, all_pairs=True
        )
    beside = arguments.run.parent if packed else arguments.run
    out_dir = arguments.out_dir or beside / f"evaluation-{corpus.name}"
    valid_set = draw_test_set(corpus, "valid", seed=1, per_snr=VALID_PER_SNR)
    name = arguments.run.resolve().stem
    name += f", {arguments.exit}" if arguments.exit else ""
    about = packed_metadata(run) if packed else dataclasses.asdict(run)
    about |= {"variables": variables_digest(variables), "exit": arguments.exit}
    with MetricPool() as pool:
        references = score_references(corpus, test_set, out_dir / "records", pool)
        result = score_net(
            name,
            model,
            variables,
            corpus,
            test_set,
            valid_set,
            stft=run.stft,
            records_dir=out_dir / "records",
            pool=pool,
            config=about,
            seed=run.seed,
            rms=run.mixing.rms,
        )
    training = getattr(run.net, "gate_training", None)
    report = DynCPReport(
        title=f"{name} on {corpus.name}",
        corpus=corpus,
        test_set=test_set,
        references=references,
        results={name: result},
        target=training.target if training else None,
        stft=run.stft,
        steps=None if packed else run.loop.steps,
    )
    path = report.write(out_dir)
    console.print(report.summary(), markup=False)
    console.print(f"Report: {path}")
    return path


def _exits(model: Any) -> dict[str, Any]:
    """The program of every exit by its name."""
    if len(getattr(model, "exits", ())) < 2 or model.exit_index is not None:
        raise SystemExit("the net has no exits to choose among")
    return {str(name): model.clone(exit_index=i) for i, name in enumerate(model.exits)}


def _budgeted(model: Any, mmac_per_s: float) -> EarlyExit:
    """The net under a budget."""
    costs = {
        name: 1e-6 * FRAMES_PER_S * total_macs(program.cost())
        for name, program in _exits(model).items()
    }
    if mmac_per_s < min(costs.values()):
        listed = ", ".join(f"{name} {cost:.1f}" for name, cost in costs.items())
        raise SystemExit(f"no exit costs as little as {mmac_per_s} MMAC/s: {listed}")
    return EarlyExit(model, Budget())


def _done(aux: Any, model: Any) -> str:
    """What was done: channels kept, or exits taken."""
    if isinstance(aux, Taken):
        mmac_per_s = 1e-6 * FRAMES_PER_S * float(aux.macs.mean())
        shares = np.bincount(np.ravel(aux.exit_index), minlength=len(model.model.exits))
        taken = zip(model.model.exits, shares / shares.sum(), strict=True)
        return f", {mmac_per_s:.1f} MMAC/s, " + ", ".join(f"{n} {s:.0%}" for n, s in taken)
    return f", {np.mean([np.mean(gate) for gate in aux.gates]):.1%} kept" if aux.gates else ""


def _corpus(arguments: Arguments) -> Corpus:
    if arguments.corpus is None:
        return synthetic_corpus(cache_dir=arguments.cache_dir)
    return folder_corpus(arguments.corpus, cache_dir=arguments.cache_dir)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
