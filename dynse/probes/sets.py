"""The mixtures that probes are fitted on, chosen with and scored on.

Of every split there are two sets: one over all noises, for what is asked of frames and voices, and
one over the noise classes that are to be told apart, in which each of them is equally frequent.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dynse.data.bank import Bank, Corpus
from dynse.data.drawing import make_test_set
from dynse.data.testsets import TestSet


def noise_classes(corpus: Corpus, fewest: int) -> list[str]:
    """Classes with so many recordings in both the train and the test split.

    Raises:
        ValueError: there are fewer than two.
    """
    train, test = (Counter(corpus.noise[split].groups) for split in ("train", "test"))
    found = [name for name in sorted(train) if min(train[name], test[name]) >= fewest]
    if len(found) < 2:
        raise ValueError(
            f"expected two noise classes or more with {fewest} recordings in the train and test "
            f"splits each, got {found}"
        )
    return found


def draw_mixtures(
    corpus: Corpus, split: str, *, per_snr: int, mixture_s: tuple[float, float]
) -> TestSet:
    """Mixtures over all noises of a split.

    Args:
        corpus: where speech and noise come from.
        split: of the corpus.
        per_snr: mixtures at each of five SNRs.
        mixture_s: shortest and longest.
    """
    return make_test_set(
        corpus, split, name="probes", seed=2, per_snr=per_snr, min_s=mixture_s[0],
        max_s=mixture_s[1],
    )  # fmt: skip


def draw_noise_mixtures(
    corpus: Corpus,
    split: str,
    classes: Sequence[str],
    *,
    per_snr: int,
    mixture_s: tuple[float, float],
) -> TestSet:
    """Mixtures over these noise classes alone; otherwise as `draw_mixtures`."""
    noise = {split: _of_classes(corpus.noise[split], classes)}
    return make_test_set(
        dataclasses.replace(corpus, noise=noise), split, name="noise-classes", seed=3,
        per_snr=per_snr, min_s=mixture_s[0], max_s=mixture_s[1],
    )  # fmt: skip


def quiet_mixtures(test_set: TestSet, snr_db: float, every: int) -> TestSet:
    """Every so many mixtures of a set, at this SNR: what is missed there, noise cannot explain."""
    chosen = (dataclasses.replace(one, snr_db=snr_db) for one in test_set.mixtures[::every])
    return dataclasses.replace(test_set, mixtures=tuple(chosen))


def _of_classes(bank: Bank, classes: Sequence[str]) -> Bank:
    """The recordings of these groups alone."""
    chosen = [index for index, group in enumerate(bank.groups) if group in classes]
    samples = [bank.samples[bank.offsets[i] : bank.offsets[i + 1]] for i in chosen]
    return Bank(
        np.concatenate(samples),
        np.concatenate([[0], np.cumsum([len(part) for part in samples])]),
        tuple(bank.names[index] for index in chosen),
        tuple(bank.groups[index] for index in chosen),
    )
