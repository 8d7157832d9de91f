"""All predictors of one network: each task from its gates, and from what gates must beat.

    gates              the frame's bits, or their rates over a mixture; of two classes also with
                       the threshold of the best accuracy, not of the best balanced accuracy
    scores             of the same gates, before the step
    activations        what the gated blocks add
    log-mel            of the noisy input; "log-mel 18", of a frame, is as large as the gates
    random gates       bits drawn at each channel's own rate
    untrained gates    of the same network with fresh parameters

and the constant predictor, the WebRTC detector for voice, and pYIN on the noisy signal for F0. For
the gates the score against the number of channels is measured too, and what makes the task hard
(`conditions`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dynse.evaluation.statistics import Interval
from dynse.probes.additions import additions_per_frame
from dynse.probes.conditions import score_by_snr, score_by_source, score_in_folds
from dynse.probes.features import activation_rates, varying_channels
from dynse.probes.linear import LinearProbe
from dynse.probes.rows import MixtureRows
from dynse.probes.selection import (
    channel_counts,
    enough,
    order_for_classes,
    order_for_targets,
    selection_path,
)
from dynse.probes.tasks import (
    Rows,
    Task,
    estimates,
    first_score,
    fit,
    fit_chosen,
    gather_rows,
    score_estimates,
    with_threshold,
)
from dynse.probes.verification import all_pairs, cosine_scores, equal_error_rate

OF_NET = ("scores", "activations")
FEATURES = (*OF_NET, "log-mel", "log-mel 18")
SEGMENT_FRAMES = 187  # 3 s


@dataclasses.dataclass(frozen=True)
class Splits:
    """Mixtures of the three splits of the corpus."""

    train: Sequence[MixtureRows]
    valid: Sequence[MixtureRows]
    test: Sequence[MixtureRows]

    def gather(self, task: Task, feature: str) -> tuple[Rows, Rows, Rows]:
        """Rows to fit on, to choose with and to score."""
        stride = task.stride if task.level == "frame" else 1
        return (
            gather_rows(task, self.train, feature, stride=stride),
            gather_rows(task, self.valid, feature),
            gather_rows(task, self.test, feature),
        )

    def map(self, change: Callable[[MixtureRows], MixtureRows]) -> Splits:
        """Each mixture changed."""
        return Splits(
            *([change(one) for one in part] for part in (self.train, self.valid, self.test))
        )


def can_study(task: Task, splits: Splits) -> bool:
    """Whether every split has targets that differ, and for classes the same ones."""
    found = []
    for part in (splits.train, splits.valid, splits.test):
        targets = [task.target(one.labels) for one in part]
        each = [np.ravel(target).astype(float) for target in targets if target is not None]
        different = np.unique(np.concatenate([*each, []]))
        found.append(frozenset(different[~np.isnan(different)].tolist()))
    return min(map(len, found)) > 1 and (task.kind == "ridge" or len(set(found)) == 1)


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """What was found for one task.

    Attributes:
        scores: by feature ("majority or mean" is the constant), score -> interval on test rows.
        penalty: that the validation rows chose for the gates.
        path: (channels, test score) of the gates, its channels chosen on training rows.
        enough: channels that reach 99 % of what all bring, by the validation rows.
        additions: per frame, of the predictor with all channels and of that with enough.
        probe: the predictor from all channels.
        small: the predictor from enough channels.
        extra: the gates' first score by condition (`conditions`).
    """

    scores: Mapping[str, Mapping[str, Interval]]
    penalty: float
    path: Sequence[tuple[int, float]]
    enough: int
    additions: tuple[float, float]
    probe: LinearProbe
    small: LinearProbe
    extra: Mapping[str, Interval]


def study_task(
    task: Task,
    splits: Splits,
    untrained: Splits | None,
    *,
    seed: int,
    features: Sequence[str] = FEATURES,
) -> TaskResult:
    """Fit, choose and score all predictors of a task.

    Args:
        task: what is asked.
        splits: mixtures as the trained network heard them.
        untrained: the same mixtures as a network with fresh parameters heard them; None leaves
            that out.
        seed: of the random gates.
        features: kinds of `MixtureRows.features` beside the gates. "log-mel 18" is left out where
            a row is a mixture: its mean over frames is that of log-mel, eighteen times.
    """
    scores: dict[str, Mapping[str, Interval]] = {}
    train, valid, test = splits.gather(task, "gates")
    scores["majority or mean"] = score_estimates(task, _constant(task, train, test), test)
    probe, penalty = fit_chosen(task, train, valid)
    scores["gates"] = score_estimates(task, estimates(probe, test.features), test)
    if probe.kind == "logistic" and len(probe.bias) == 1:
        plain = with_threshold(probe, valid, balanced=False)
        scores["gates, threshold for accuracy"] = score_estimates(
            task, estimates(plain, test.features), test
        )
    path, small = _path(task, (train, valid, test), penalty)
    for feature in features:
        if (task.level, feature) != ("mixture", "log-mel 18"):
            scores[feature] = _score(task, *splits.gather(task, feature))
    rates = np.concatenate([one.gates for one in splits.train]).mean(0)
    draw = np.random.default_rng(seed)
    tossed = splits.map(lambda one: one._replace(gates=draw.random(one.gates.shape) < rates))
    scores["random gates"] = _score(task, *tossed.gather(task, "gates"))
    if untrained is not None:
        rows = untrained.gather(task, "gates")
        if len(varying_channels(rows[0].features)):
            scores["untrained gates"] = _score(task, *rows)
    extra = {
        **score_by_snr(task, probe, splits.test),
        **score_in_folds(task, [*splits.valid, *splits.test], penalty=penalty),
    }
    if (task.level, task.kind) == ("mixture", "logistic"):
        extra |= score_by_source(task, probe, splits.test)
    return TaskResult(
        scores=scores,
        penalty=penalty,
        path=[(count, score) for count, score, _ in path],
        enough=len(small.channels),
        additions=tuple(additions_per_frame(p, test.features) for p in (probe, small)),
        probe=probe,
        small=small,
        extra=extra,
    )


def verify_speakers(splits: Splits, feature: str = "gates") -> dict[str, tuple[float, int]]:
    """Equal error rates of speaker verification on segments of 3 s, with the number of targets.

    Segments are compared by the cosine of their means of a feature of `MixtureRows.features`.
    "all" takes every pair of segments; "other recording" leaves out those of mixtures that share
    a recording of speech, and with it room and level beside the voice.
    """
    rates = np.stack([activation_rates(one.features(feature)) for one in splits.train])
    segments, speakers, recordings = [], [], []
    for mixture in splits.test:
        frames = mixture.features(feature)
        for start in range(0, len(frames) - SEGMENT_FRAMES + 1, SEGMENT_FRAMES):
            segments.append(activation_rates(frames[start : start + SEGMENT_FRAMES]))
            speakers.append(mixture.labels.speaker)
            recordings.append(mixture.labels.speech_recordings)
    pairs = all_pairs(speakers, recordings)
    # Mixtures may join several recordings: one in common is enough.
    common = [
        not set(recordings[a]).isdisjoint(recordings[b])
        for a, b in zip(pairs.first, pairs.second, strict=True)
    ]
    pairs = pairs._replace(same_recording=np.array(common, bool))
    found = {}
    for name, chosen in (("all", pairs), ("other recording", pairs.where(~pairs.same_recording))):
        if 0 < chosen.same_speaker.sum() < len(chosen.same_speaker):
            scores = cosine_scores(np.stack(segments), chosen, rates.mean(0))
            rate = equal_error_rate(scores, chosen.same_speaker)
            found[name] = float(rate), int(chosen.same_speaker.sum())
    return found


def _score(task: Task, train: Rows, valid: Rows, test: Rows) -> Mapping[str, Interval]:
    probe, _ = fit_chosen(task, train, valid)
    return score_estimates(task, estimates(probe, test.features), test)


def _path(
    task: Task, rows: tuple[Rows, Rows, Rows], penalty: float
) -> tuple[list[Any], LinearProbe]:
    """Test scores along the path, and the predictor that the validation rows find enough."""
    train, valid, test = rows
    if task.kind == "ridge":
        order = order_for_targets(train.features, train.targets)
    else:
        order = order_for_classes(train.features, train.targets, balanced=True)
    path = selection_path(
        lambda channels: with_threshold(
            fit(task, train, penalty=penalty, channels=channels), valid
        ),
        lambda probe: first_score(task, probe, valid),
        order,
        channel_counts(len(order)),
    )
    small = enough(path, task.trivial).probe
    return [point._replace(score=first_score(task, point.probe, test)) for point in path], small


def _constant(task: Task, train: Rows, test: Rows) -> np.ndarray:
    if task.kind == "ridge":
        return np.full(len(test.targets), train.targets.mean())
    labels, counts = np.unique(train.targets, return_counts=True)
    return np.full(len(test.targets), labels[counts.argmax()])
