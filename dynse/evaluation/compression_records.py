"""The record of one net's compression: every net on the way, its size, its cost and its scores.

A net on the way is pruned so many times, and clustered or not. Sizes are in bytes, of the trained
parameters: `published` by the papers' accounting, which stores no positions; `entropy` what the
values and positions hold; `file` of the packed file, which can be loaded again and holds running
statistics as well. A rate is the dense size over one of these.

The goal is the smallest net that loses little against the one before compression:

    mean d(STOI) >= -0.01    and    mean d(PESQ) >= -0.05        over all mixtures

d being differences paired by mixture.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dynse.atomic import write_whole
from dynse.evaluation.scores import RunRecord
from dynse.evaluation.statistics import Interval, paired_difference

KIND = "compression"
METRICS = ("stoi", "pesq")
LARGEST_LOSS: Mapping[str, float] = {"stoi": 0.01, "pesq": 0.05}

# By metric, by SNR in dB as text: of every mixture, None where it was not measured.
Scores = Mapping[str, Mapping[str, tuple[float | None, ...]]]


@dataclasses.dataclass(frozen=True)
class CompressedNet:
    """One net on the way.

    Attributes:
        iteration: prunings behind it.
        clustered: whether its weights are from code books.
        weights: that are not zero, of those that may be pruned.
        steps: of all training behind it.
        macs: per frame, of weights that are not zero, every gate open.
        kept: fraction of the channels that its gates left open, None without gates.
        published_bytes: see the module.
        entropy_bytes: see the module.
        file_bytes: see the module.
        file: the packed file, below the run's folder.
        scores: on the test set.
    """

    iteration: int
    clustered: bool
    weights: int
    steps: int
    macs: float
    kept: float | None
    published_bytes: float
    entropy_bytes: float
    file_bytes: int
    file: str
    scores: Scores

    @property
    def name(self) -> str:
        """In tables."""
        pruned = f"iteration {self.iteration}" if self.iteration else "not pruned"
        return f"{pruned}, clustered" if self.clustered else pruned


@dataclasses.dataclass(frozen=True)
class DenseRival:
    """A dense net beside a pruned one, trained for as many steps in all.

    Attributes:
        of: name of the pruned net.
        kind: "as small" or "as large as before".
        config: of the dense one, as JSON.
        steps: of its training.
        parameters: all of them.
        macs: per frame.
        scores: on the test set.
    """

    of: str
    kind: str
    config: Mapping[str, Any]
    steps: int
    parameters: int
    macs: int
    scores: Scores


@dataclasses.dataclass(frozen=True)
class CompressionRecord:
    """One compression.

    Attributes:
        net: kind of the network.
        pipeline: "C1" or "C2".
        seed: of all runs.
        regularized: whether a regulariser was at work.
        common_threshold: whether one threshold pruned all tensors.
        noisy: scores of the input.
        trained: scores of the net before compression, trained without a regulariser.
        dense_bytes: of its parameters.
        dense_weights: that may be pruned.
        dense_macs: per frame.
        nets: on the way, in their order.
        rivals: dense nets that were trained as long as one of them.
        stopped: why pruning stopped: "scores", "pruned" or "iterations".
        densities: path to the share of weights left after each iteration, 0 first.
        ratios: path to percent pruned by each iteration, of what was left.
        clusters: path to K after each iteration, 0 first.
        evaluations: validation losses that Algorithm 1 asked for, by iteration.
        falls: tensors whose loss was seen to fall as more was pruned, by iteration: where it is not
            monotone, bisection may pass over its first crossing of alpha1.
        lambdas: (lambda1, lambda2) before they shrink.
        alphas: (alpha1, alpha2).
        valid_loss: of the net before compression.
        valid_scores: name to the mean on the validation set, before compression and after each
            iteration, 0 first; None where it was not measured.
        config: all that decided the outcome, as JSON.
        corpus: its name.
        corpus_fingerprint: its hash.
        test_set: its name.
        test_set_hash: its hash.
        machine: what `machine()` says.
        commit: what `commit()` says.
        created: UTC time, ISO 8601.
    """

    net: str
    pipeline: str
    seed: int
    regularized: bool
    common_threshold: bool
    noisy: Scores
    trained: Scores
    dense_bytes: int
    dense_weights: int
    dense_macs: int
    nets: tuple[CompressedNet, ...]
    rivals: tuple[DenseRival, ...]
    stopped: str
    densities: Mapping[str, tuple[float, ...]]
    ratios: Mapping[str, tuple[int, ...]]
    clusters: Mapping[str, tuple[int, ...]]
    evaluations: tuple[int, ...]
    falls: tuple[int, ...]
    lambdas: tuple[float, float]
    alphas: tuple[float, float]
    valid_loss: float
    valid_scores: Mapping[str, tuple[float | None, ...]]
    config: Mapping[str, Any]
    corpus: str
    corpus_fingerprint: str
    test_set: str
    test_set_hash: str
    machine: Mapping[str, Any]
    commit: str | None
    created: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )

    @property
    def name(self) -> str:
        """Without its seed."""
        rival = "" if self.regularized else ", no regulariser"
        rival += ", one threshold" if self.common_threshold else ""
        return f"{self.net} {self.pipeline}{rival}"

    def difference(self, net: CompressedNet | DenseRival, metric: str) -> Interval:
        """Mean of the net's score minus that of the trained net, paired by mixture."""
        return paired_difference(flat(net.scores, metric), flat(self.trained, metric))

    @property
    def title(self) -> str:
        """In titles and legends."""
        return f"{self.name}, seed {self.seed}"

    def loses_little(self, net: CompressedNet) -> bool:
        """Whether the net keeps to the goal, on every mixture that the trained net was scored on.

        A silent output has no scores, and its mixtures are not left out.
        """
        for metric, most in LARGEST_LOSS.items():
            found = self.difference(net, metric)
            if found.count < np.isfinite(flat(self.trained, metric)).sum():
                return False
            if not found.mean >= -most:
                return False
        return True

    @property
    def best(self) -> CompressedNet | None:
        """The net of the highest published rate that loses little; None where all lose more."""
        fine = filter(self.loses_little, self.nets)
        return min(fine, key=lambda net: net.published_bytes, default=None)

    @property
    def best_pruned(self) -> CompressedNet:
        """Of the nets that are not clustered the smallest that loses little, else the last."""
        pruned = [net for net in self.nets if not net.clustered]
        fine = filter(self.loses_little, pruned)
        return min(fine, key=lambda net: net.weights, default=pruned[-1])


def scores_by_snr(record: RunRecord) -> dict[str, dict[str, tuple[float | None, ...]]]:
    """The scores of a run's utterances as a compression's record holds them."""
    found: dict[str, dict[str, tuple[float | None, ...]]] = {metric: {} for metric in METRICS}
    order = sorted(record.utterances, key=lambda score: score.attributes["snr_db"])
    for score in order:
        snr = f"{score.attributes['snr_db']:g}"
        for metric in METRICS:
            value = score.values.get(metric, np.nan)
            before = found[metric].get(snr, ())
            found[metric][snr] = (*before, None if np.isnan(value) else float(value))
    return found


def flat(scores: Scores, metric: str) -> np.ndarray:
    """A metric of all mixtures (n,), NaN where it was not measured."""
    return np.array([value for values in scores[metric].values() for value in values], np.float64)


def save_compression_record(path: Path, record: CompressionRecord) -> Path:
    """Write a record whole."""
    content = {"kind": KIND, **dataclasses.asdict(record)}
    return write_whole(path, json.dumps(content, indent=1) + "\n")


def load_compression_record(path: Path) -> CompressionRecord:
    """Read a record.

    Raises:
        ValueError: where the file is none; names it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if (kind := content.pop("kind")) != KIND:
            raise ValueError(f"expected kind {KIND!r}, got {kind!r}")
        nets = [{**net, "scores": _scores(net["scores"])} for net in content["nets"]]
        content["nets"] = tuple(CompressedNet(**net) for net in nets)
        for name in ("noisy", "trained"):
            content[name] = _scores(content[name])
        for name in ("densities", "ratios", "clusters", "valid_scores"):
            content[name] = {key: tuple(values) for key, values in content[name].items()}
        for name in ("evaluations", "falls", "lambdas", "alphas"):
            content[name] = tuple(content[name])
        content["rivals"] = tuple(
            DenseRival(**{**rival, "scores": _scores(rival["scores"])})
            for rival in content["rivals"]
        )
        return CompressionRecord(**content)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no record of a compression: {error!r}") from error


def is_compression_record(path: Path) -> bool:
    """Whether a JSON file says that it is one."""
    return json.loads(Path(path).read_text(encoding="utf-8")).get("kind") == KIND


def _scores(content: Any) -> dict[str, dict[str, tuple[float | None, ...]]]:
    return {
        metric: {snr: tuple(values) for snr, values in by_snr.items()}
        for metric, by_snr in content.items()
    }
