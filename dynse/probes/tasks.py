"""What is read from the gates: the tasks, their rows, and predictors fitted and scored on them.

    frames     voice activity, F0 (log2, voiced frames), SNR of the frame
    mixtures   noise class, gender, SNR of the mixture: from the mean of a feature over all frames

A predictor is fitted on training mixtures; its penalty, and the threshold of two classes, are
chosen on validation mixtures; it is scored on test mixtures. Which tasks there are the paper says
(arXiv 2602.10666), how they are posed is ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from dynse.data.labels import MixtureLabels
from dynse.evaluation.statistics import Interval
from dynse.probes.intervals import score_interval, score_value
from dynse.probes.linear import LinearProbe, decide, outputs
from dynse.probes.logistic import fit_logistic
from dynse.probes.ridge import fit_ridge
from dynse.probes.rows import MixtureRows
from dynse.probes.scores import median_error_cents
from dynse.probes.thresholds import choose_threshold

PENALTIES = {"frame": (1e-2, 1e-1, 1.0), "mixture": (1e-3, 1e-2, 1e-1, 1.0, 10.0)}


@dataclasses.dataclass(frozen=True)
class Task:
    """One thing to be read.

    Attributes:
        name: in tables.
        kind: of predictor.
        level: whether a row is a frame or a mixture.
        target: labels -> (T,) of a "frame" task, a number, class or None of a "mixture" task;
            NaN and None are left out.
        scores: keys of `SCORES`; the first one chooses.
        trivial: score of the constant predictor by the first of them.
        stride: every so many frames of a training mixture are fitted on; neighbours are alike.
        drawn: which of a mixture's labels intervals draw by. Mixtures share noises and voices;
            errors follow the noise, but for what is asked about the voice itself.
    """

    name: str
    kind: Literal["logistic", "ridge"]
    level: Literal["frame", "mixture"]
    target: Callable[[MixtureLabels], Any]
    scores: tuple[str, ...]
    trivial: float = 0.0
    stride: int = 4
    drawn: Literal["noise_source", "speaker"] = "noise_source"


def _log_f0(labels: MixtureLabels) -> np.ndarray:
    f0_hz = labels.frames.f0_hz
    return np.where(f0_hz > 0, np.log2(np.maximum(f0_hz, 1.0)), np.nan)


VOICE = Task(
    "voice activity",
    "logistic",
    "frame",
    lambda labels: labels.frames.voice,
    ("balanced accuracy", "accuracy", "F1"),
    trivial=0.5,
)
F0 = Task("F0", "ridge", "frame", _log_f0, ("R2",), drawn="speaker")
FRAME_SNR = Task(
    "frame SNR", "ridge", "frame", lambda labels: labels.frames.snr_db, ("R2", "mean error")
)
GENDER = Task(
    "gender",
    "logistic",
    "mixture",
    lambda labels: None if labels.gender is None else labels.gender == "F",
    ("balanced accuracy", "accuracy"),
    trivial=0.5,
    drawn="speaker",
)
SNR = Task("SNR", "ridge", "mixture", lambda labels: labels.snr_db, ("R2", "mean error"))


def noise_task(classes: Sequence[str]) -> Task:
    """Which of these noise classes; mixtures with another are left out."""
    index = {name: number for number, name in enumerate(classes)}
    return Task(
        "noise class",
        "logistic",
        "mixture",
        lambda labels: index.get(labels.noise_class),
        ("accuracy", "balanced accuracy"),
        trivial=1 / len(classes),
    )


class Rows(NamedTuple):
    """Features (N, S), targets (N,), and of each row what intervals draw by (`Task.drawn`)."""

    features: np.ndarray
    targets: np.ndarray
    groups: np.ndarray


def gather_rows(
    task: Task,
    mixtures: Sequence[MixtureRows],
    feature: str,
    *,
    stride: int = 1,
    group: Callable[[MixtureRows], str] | None = None,
) -> Rows:
    """The rows of a task.

    Args:
        task: what is asked.
        mixtures: where the rows come from.
        feature: of `MixtureRows.features`. The mean over a mixture is taken for its rows; of
            log-mel its standard deviation stands beside.
        stride: every so many frames.
        group: of a mixture's rows, in place of `Task.drawn`.

    Raises:
        ValueError: there is no row.
    """
    features, targets, groups = [], [], []
    for mixture in mixtures:
        target = task.target(mixture.labels)
        if target is None:
            continue
        found = mixture.features(feature)
        key = group(mixture) if group else getattr(mixture.labels, task.drawn)
        if task.level == "frame":
            keep = np.zeros(len(target), bool)
            keep[::stride] = True
            keep &= ~np.isnan(target.astype(float))
            features.append(found[keep])
            targets.append(target[keep])
            groups += [key] * int(keep.sum())
            continue
        mean = found.mean(0, dtype=np.float32)
        if feature.startswith("log-mel"):
            mean = np.concatenate([mean, found.astype(np.float32).std(0)])
        features.append(mean[None])
        targets.append(np.array([target]))
        groups.append(key)
    if not groups:
        raise ValueError(f"no mixture has a label for the task {task.name!r}")
    return Rows(np.concatenate(features), np.concatenate(targets), np.array(groups))


def fit(
    task: Task, train: Rows, *, penalty: float = 1e-3, channels: np.ndarray | None = None
) -> LinearProbe:
    """A predictor of these channels; None: those that vary."""
    if task.kind == "ridge":
        return fit_ridge(train.features, train.targets, penalty=penalty, channels=channels)
    return fit_logistic(
        train.features, train.targets, penalty=penalty, balanced=True, channels=channels
    )


def fit_chosen(task: Task, train: Rows, valid: Rows) -> tuple[LinearProbe, float]:
    """A predictor with the penalty, and the threshold, that the validation rows choose."""
    best = None
    for penalty in PENALTIES[task.level]:
        probe = with_threshold(fit(task, train, penalty=penalty), valid)
        score = first_score(task, probe, valid)
        if best is None or score > best[0]:
            best = score, probe, penalty
    return best[1], best[2]


def with_threshold(probe: LinearProbe, valid: Rows, *, balanced: bool = True) -> LinearProbe:
    """With two classes, the threshold of the best balanced (or plain) accuracy on these rows."""
    if probe.kind == "ridge" or len(probe.bias) > 1:
        return probe
    found = np.asarray(outputs(probe, valid.features))
    threshold = choose_threshold(found, valid.targets, balanced=balanced)
    return probe.replace(threshold=np.float32(threshold))


def estimates(probe: LinearProbe, features: np.ndarray) -> np.ndarray:
    """(N,) classes, bool or numbers."""
    found = np.asarray(decide(probe, outputs(probe, features)))
    return found[:, 0] if found.ndim == 2 else found


def first_score(task: Task, probe: LinearProbe, rows: Rows) -> float:
    """The score that chooses, on these rows."""
    return score_value(task.scores[0], estimates(probe, rows.features), rows.targets)


def score_estimates(task: Task, found: np.ndarray, rows: Rows) -> Mapping[str, Interval]:
    """All scores of a task; for F0 also the "median cents" of the error, without an interval."""
    scores = {name: score_interval(name, found, rows.targets, rows.groups) for name in task.scores}
    if task is F0:
        cents = median_error_cents(2.0**found, 2.0**rows.targets)
        scores["median cents"] = Interval(cents, np.nan, np.nan, len(found), 0)
    return scores
