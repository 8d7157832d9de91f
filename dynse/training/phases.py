"""Layer-wise training of a net with exits: one run a phase, each in a folder of its own.

    phase i minimises L_i over the layers that exit i needs and no exit before it

(Miccini et al., MLSP 2023, arXiv 2308.16678; `dynse.training.exits`.) The steps are shared out
equally, and each phase begins the schedule of the learning rate anew (both ours). A phase starts
from the layers that those before it have trained; a finished phase is not trained again.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from rich.console import Console

from dynse.data.bank import Corpus
from dynse.training.runs import RunConfig, new_state, train_run


def phase_runs(config: RunConfig) -> list[RunConfig]:
    """The runs of the phases, whose steps add up to those of the configuration.

    Raises:
        ValueError: where a phase would be left without a step.
    """
    count, steps = len(config.net.exits), config.loop.steps
    if steps < count:
        raise ValueError(f"expected at least {count} steps, one a phase, got {steps}")
    return [
        dataclasses.replace(
            config,
            net=dataclasses.replace(config.net, exit_index=index),
            loop=dataclasses.replace(
                config.loop, steps=steps * (index + 1) // count - steps * index // count
            ),
        )
        for index in range(count)
    ]


def train_phases(
    run_dir: str | pathlib.Path,
    config: RunConfig,
    corpus: Corpus,
    *,
    title: str = "train",
    console: Console | None = None,
) -> tuple[Any, dict[str, Any], list[dict[str, Any]]]:
    """Train a net exit by exit, or go on there.

    Args:
        run_dir: the folder; the phase of exit "gru1" is `run_dir/1-gru1`.
        config: of the net with all its exits.
        corpus: what is trained on.
        title: name on the progress bar.
        console: where to draw it.

    Returns:
        The network with all exits, its variables, and the lines of metrics, whose steps go on from
        phase to phase. A layer is as the last phase that trained it has left it.

    Raises:
        ValueError: where the folder holds another run.
        DivergedError: where the gradients stay wild.
    """
    params: dict[str, Any] = {}
    start: dict[str, Any] | None = None
    lines: list[dict[str, Any]] = []
    done = 0
    for index, phase in enumerate(phase_runs(config)):
        if start is not None:
            fresh = new_state(phase).params
            start["params"] = {name: params.get(name, own) for name, own in fresh.items()}
        name = config.net.exits[index]
        _, start, own = train_run(
            pathlib.Path(run_dir) / f"{index}-{name}",
            phase,
            corpus,
            variables=start,
            title=f"{title} {name}",
            console=console,
        )
        params |= start["params"]
        lines += [{**line, "step": done + line["step"]} for line in own]
        done += phase.loop.steps
    return config.net.build(config.stft.bins), {**start, "params": params}, lines
