"""Speaker verification by activation rates: do two recordings hold the same voice?

    score(a, b) = cosine of (r_a - m) and (r_b - m)

r are the activation rates of two recordings (or segments) and m their mean over the training
data; without it every cosine would be near 1, as most of a channel's rate is the network's and
not the voice's. The equal error rate is where as many impostors are accepted as targets rejected.
Miccini et al., arXiv 2602.10666, score by cosine of mean gates; that m is taken off is our choice.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np


class Pairs(NamedTuple):
    """Pairs of entries of a list, each pair once.

    Attributes:
        first: (P,) int index of one.
        second: (P,) int index of the other.
        same_speaker: (P,) bool: a target, else an impostor.
        same_recording: (P,) bool: two segments of one recording. They share room, level and
            noise as well as the voice, so they are easier: to be reported apart.
    """

    first: np.ndarray
    second: np.ndarray
    same_speaker: np.ndarray
    same_recording: np.ndarray

    def where(self, kept: np.ndarray) -> Pairs:
        """The pairs of a (P,) bool."""
        return Pairs(*(field[kept] for field in self))


def all_pairs(speakers: Sequence[Hashable], recordings: Sequence[Hashable]) -> Pairs:
    """Every pair of different entries.

    Args:
        speakers: n keys.
        recordings: n keys.

    Raises:
        ValueError: the lengths differ, or a recording has two speakers.
    """
    if len(speakers) != len(recordings):
        raise ValueError(
            f"expected as many speakers as recordings, got {len(speakers)} and {len(recordings)}"
        )
    speaker, recording = _numbers(speakers), _numbers(recordings)
    first, second = np.triu_indices(len(speakers), k=1)
    pairs = Pairs(
        first, second, speaker[first] == speaker[second], recording[first] == recording[second]
    )
    if (pairs.same_recording & ~pairs.same_speaker).any():
        raise ValueError("expected one speaker per recording, got a recording with two")
    return pairs


def cosine_scores(rates: np.ndarray, pairs: Pairs, mean: np.ndarray) -> np.ndarray:
    """Cosine of the centred rates of each pair.

    Args:
        rates: (n, S).
        pairs: of the n rows.
        mean: (S,), of the training data.

    Returns:
        (P,) float64 in -1 to 1; 0 where one of the two is exactly the mean.
    """
    centred = np.asarray(rates, np.float64) - mean
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    units = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0)
    return (units @ units.T)[pairs.first, pairs.second]


def equal_error_rate(scores: np.ndarray, same: np.ndarray) -> float:
    """Error rate at the threshold where both kinds of error are equally frequent.

    A pair is accepted where its score is at least the threshold. Between two neighbouring
    thresholds both rates are interpolated linearly.

    Args:
        scores: (P,), higher is more alike.
        same: (P,) bool, both values occur.

    Returns:
        0 to 1; 0.5 is chance.

    Raises:
        ValueError: lengths differ, a kind of pair does not occur, or a score is NaN.
    """
    scores, same = np.asarray(scores, np.float64), np.asarray(same, bool)
    targets, impostors = np.sort(scores[same]), np.sort(scores[~same])
    if scores.shape != same.shape or not (len(targets) and len(impostors)):
        raise ValueError(
            f"expected scores of both kinds of pairs, got {scores.shape} scores, "
            f"{len(targets)} targets and {len(impostors)} impostors"
        )
    if np.isnan(scores).any():
        raise ValueError("expected scores, got NaN")
    thresholds = np.append(np.unique(scores), np.inf)
    rejected = np.searchsorted(targets, thresholds) / len(targets)
    accepted = 1 - np.searchsorted(impostors, thresholds) / len(impostors)
    # From all accepted (excess -1) to all rejected (1), never falling.
    excess = rejected - accepted
    after = int(np.searchsorted(excess, 0))
    if excess[after] == 0:
        return float(rejected[after])
    share = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(rejected[after - 1] + share * (rejected[after] - rejected[after - 1]))


def _numbers(keys):
    found: dict[Hashable, int] = {}
    return np.array([found.setdefault(key, len(found)) for key in keys], int)
