"""How many steps a run gets: by epochs, or by the time that the trainings may take together.

    steps = 0.9 (time - compiling) / sum over nets of share_i seconds of a step_i

The step times are measured on the machine at hand; validations have the rest. What was settled is
kept in the run folder, so that a run which goes on does not change its length.
"""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all
from rich.console import Console

from dynse.data.bank import Corpus
from dynse.data.mixing import load_source
from dynse.training.loop import write_json
from dynse.training.mesh import batch_mesh, on_each
from dynse.training.runs import RunConfig, new_state, train_crops, train_step

# A run shorter than this shows nothing.
FEWEST_STEPS = 60


def plan_steps(
    path: pathlib.Path,
    runs: Sequence[tuple[RunConfig, float]],
    corpus: Corpus,
    *,
    minutes: float | None = None,
    epochs: int | None = None,
    console: Console,
) -> int:
    """Settle the number of steps of a net, once for each run folder.

    Args:
        path: JSON file that keeps what was settled by the clock.
        runs: what is trained, all equally long; beside each the share of the steps that it does
            (less than 1 for a phase of a net that is trained in several).
        corpus: what is trained on.
        minutes: time that all may take together; None for no limit.
        epochs: passes over the training speech, in place of the steps of the configurations.
        console: told where the time does not suffice.
    """
    first = runs[0][0]
    steps = first.loop.steps
    if epochs is not None:
        samples = len(corpus.speech["train"].samples)
        return epochs * math.ceil(samples / (first.mixing.batch_size * first.mixing.crop_samples()))
    if minutes is None:
        return steps
    if path.exists():
        return json.loads(path.read_text())["steps"]
    affordable = affordable_steps(runs, corpus, minutes)
    if affordable < steps:
        console.print(
            f"This machine is given {affordable} steps a net in place of {steps}, to "
            f"stay within {minutes} minutes of training."
        )
    steps = min(steps, affordable)
    write_json(path, {"steps": steps})
    return steps


def affordable_steps(
    runs: Sequence[tuple[RunConfig, float]], corpus: Corpus, minutes: float
) -> int:
    """Steps of a net that fit into the time, by the step time of each run on this machine."""
    speech = load_source(corpus.speech["train"])
    noise = load_source(corpus.noise["train"])
    mesh = batch_mesh(runs[0][0].mixing.batch_size)
    compiling = stepping = 0.0
    for run, share in runs:
        step, state = train_step(run, mesh=mesh), on_each(mesh, new_state(run))
        times = []
        with contextlib.closing(
            train_crops(run, speech, noise, mesh=mesh).each(range(6))
        ) as coming:
            for _ in range(6):
                started = time.perf_counter()
                state, _ = jax.block_until_ready(step(state, *next(coming)))
                times.append(time.perf_counter() - started)
        compiling += times[0]
        stepping += share * float(np.median(times[1:]))
    # Validations take about a tenth of the time.
    left = minutes * 60 - compiling
    steps = int(0.9 * left / stepping) // 20 * 20
    steps = max(steps, FEWEST_STEPS)
    # By the first process' clock: all must agree.
    return steps if jax.process_count() == 1 else int(broadcast_one_to_all(np.int32(steps)))
