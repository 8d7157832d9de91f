"""The training loop: steps, validation, checkpoints, progress, early stopping, resumption.

A run folder holds `config.json` (what the run is), `versions.json`, `metrics.jsonl` (one line per
log or validation) and `checkpoints/`. Started again on the same folder with the same
configuration, a run goes on from its last checkpoint and ends with the same parameters as one
that was never stopped; with another configuration it is refused.

Of several processes that train together all come here, with one folder that all can see; the first
writes the lines, and Orbax lets each write its part of a checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import pathlib
import time
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np
from rich.console import Console

from dynse.atomic import alone_in, write_whole
from dynse.progress import progress_bar
from dynse.training.checkpoints import Checkpoints
from dynse.training.step import DIVERGED_NORM, DIVERGED_STEPS, TrainState


class DivergedError(RuntimeError):
    """A run whose gradient norm stayed above 1e3, or was not a number, for 20 steps."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long a run is and how often it reports.

    Attributes:
        steps: train steps in all.
        log_every: steps between two lines of metrics.
        validate_every: steps between two validations.
        checkpoint_every: steps between two checkpoints.
        patience: validations without a new best loss before the run stops early; 0 never stops.
    """

    steps: int = 2400
    log_every: int = 20
    validate_every: int = 200
    checkpoint_every: int = 200
    patience: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


def train(
    run_dir: str | pathlib.Path,
    config: LoopConfig,
    state: TrainState,
    step: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    crops: Callable[[range], Generator[tuple[Any, ...], None, None]],
    validate: Callable[[TrainState], dict[str, float]],
    *,
    identity: dict[str, Any],
    audio_s_per_step: float,
    title: str = "train",
    console: Console | None = None,
    best_from_step: int = 0,
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Train to the end, or go on where the last run in this folder stopped.

    Args:
        run_dir: the run's folder; made where it is missing.
        config: length and intervals.
        state: state before the first step; also the pattern that checkpoints must fit.
        step: the train step (state, *crops) -> (state, metrics).
        crops: gives those of each of a range of steps, one after the other; closed in the end.
        validate: scores a state; must give "loss".
        identity: all that decides the outcome, as JSON: compared with `config.json`.
        audio_s_per_step: seconds of audio in a batch, for the speed shown.
        title: name on the progress bar.
        console: where to draw it.
        best_from_step: validations before this step cannot be the best (a gated net is no
            candidate before it keeps to its budget).

    Returns:
        The best state by validation loss and the lines of `metrics.jsonl`.

    Raises:
        ValueError: where the folder holds a run of another configuration.
        BlockingIOError: where another process trains in the folder.
        DivergedError: where the gradients stay wild.
    """
    run_dir = pathlib.Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() > 0:
        console = Console(quiet=True)
    identity = json.loads(json.dumps({**identity, "loop": dataclasses.asdict(config)}))
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:  # those that train together are as one
            stack.enter_context(alone_in(run_dir))
        check_identity(run_dir, identity)
        checkpoints = Checkpoints(run_dir)
        stack.callback(checkpoints.close)
        pattern = state
        if checkpoints.step("last") is not None:
            state = checkpoints.restore("last", pattern)
        done = int(state.step)
        lines = _truncate_metrics(run_dir / "metrics.jsonl", done)
        coming = crops(range(done, config.steps))
        with contextlib.closing(coming), progress_bar(console) as progress:
            bar = progress.add_task(title, total=config.steps, completed=done, status="compiling")
            clock, since = time.perf_counter(), done
            while done < config.steps and not _stopped_early(lines, config.patience):
                state, metrics = step(state, *next(coming))
                done += 1
                last = done == config.steps
                if done % config.log_every == 0 or last:
                    values = {name: float(value) for name, value in metrics.items()}
                    elapsed = time.perf_counter() - clock
                    speed = audio_s_per_step * (done - since) / elapsed
                    clock, since = time.perf_counter(), done
                    line = {"step": done, **values, "audio_s_per_s": round(speed, 1)}
                    _append(run_dir / "metrics.jsonl", lines, line)
                    progress.update(bar, completed=done, status=_status(values, speed))
                    _check_gradients(values, done)
                if done % config.validate_every == 0 or last:
                    scores = validate(state)
                    _append(run_dir / "metrics.jsonl", lines, {"step": done, "valid": scores})
                    if done >= min(best_from_step, config.steps) and _is_best(
                        lines, best_from_step
                    ):
                        checkpoints.save("best", done, state)
                    clock, since = time.perf_counter(), done
                if done % config.checkpoint_every == 0 or last:
                    checkpoints.save("last", done, state)
        return checkpoints.restore("best", pattern), lines


def write_json(path: pathlib.Path, content: Any) -> None:
    """Write a JSON file whole."""
    write_whole(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def check_identity(run_dir: pathlib.Path, identity: dict[str, Any]) -> None:
    """Write `config.json` and `versions.json` into a new folder, or compare with those there.

    Args:
        run_dir: a folder that exists.
        identity: all that decides the outcome, as it comes back from JSON.

    Raises:
        ValueError: where the folder holds a run of another configuration.
    """
    path = run_dir / "config.json"
    if not path.exists():
        write_json(path, identity)
        write_json(run_dir / "versions.json", versions())
        return
    found = json.loads(path.read_text())
    if found != identity:
        changed = sorted(
            name for name in {*found, *identity} if found.get(name) != identity.get(name)
        )
        raise ValueError(
            f"{run_dir} holds a run of another configuration (different: {', '.join(changed)}): "
            "choose another --run-dir, or delete it"
        )


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    names = ("dynse", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def _truncate_metrics(path: pathlib.Path, done: int) -> list[dict[str, Any]]:
    """Lines up to the checkpoint; what was logged after it will be logged again."""
    lines = []
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # the line that a kill cut short
                break
            if line["step"] <= done:
                lines.append(line)
        if jax.process_index() == 0:
            write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))
    return lines


def _append(path: pathlib.Path, lines: list[dict[str, Any]], line: dict[str, Any]) -> None:
    lines.append(line)
    if jax.process_index() == 0:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _losses(lines: list[dict[str, Any]], from_step: int = 0) -> list[float]:
    """Of every validation; what is not a number is above all that are."""
    found = (line for line in lines if "valid" in line and line["step"] >= from_step)
    return [math.inf if math.isnan(one["valid"]["loss"]) else one["valid"]["loss"] for one in found]


def _is_best(lines: list[dict[str, Any]], from_step: int) -> bool:
    *before, now = _losses(lines, from_step)
    return all(now < loss for loss in before)


def _stopped_early(lines: list[dict[str, Any]], patience: int) -> bool:
    losses = _losses(lines)
    return patience > 0 and len(losses) - 1 - int(np.argmin(losses or [0])) >= patience


def _status(values: dict[str, float], speed: float) -> str:
    kept = f"  kept {values['kept']:.2f}" if "kept" in values else ""
    return f"loss {values['loss']:.4f}{kept}  {speed:.0f} s audio/s"


def _check_gradients(values: dict[str, float], done: int) -> None:
    if values["wild_steps"] >= DIVERGED_STEPS:
        raise DivergedError(
            f"the gradient norm stayed above {DIVERGED_NORM:g} for {DIVERGED_STEPS} steps (step "
            f"{done}, now {values['grad_norm']:.3g}). What helps: a lower learning rate, the "
            "gate's input detached, a surrogate that vanishes far from the threshold (sigmoid)"
        )
