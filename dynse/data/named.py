"""The corpus and the test sets that an experiment names."""

from __future__ import annotations

import os

from dynse.data.bank import Corpus
from dynse.data.drawing import make_test_set
from dynse.data.folders import folder_corpus
from dynse.data.synthetic import SMOKE_SIZE, SyntheticSize, synthetic_corpus
from dynse.data.testsets import TestSet, read_csv

VALID_PER_SNR = 4  # most mixtures at each SNR that choices are made on


def named_corpus(
    which: str,
    *,
    seed: int,
    cache_dir: str | os.PathLike | None = None,
    name: str | None = None,
) -> Corpus:
    """A corpus.

    Args:
        which: "synthetic", "smoke" (the same, tiny) or a folder.
        seed: of the synthetic corpus.
        cache_dir: where decoded corpora lie; `default_cache_dir()` if None.
        name: what a folder's corpus is called; that of the folder if None.
    """
    if which in ("synthetic", "smoke"):
        size = SMOKE_SIZE if which == "smoke" else SyntheticSize()
        return synthetic_corpus(seed=seed, minutes=size, cache_dir=cache_dir)
    return folder_corpus(which, cache_dir=cache_dir, name=name)


def named_test_sets(
    corpus: Corpus, path: str | os.PathLike | None, *, per_snr: int
) -> tuple[TestSet, TestSet]:
    """The mixtures to score, and a few of the validation split that choices are made on.

    Args:
        corpus: where the recordings are.
        path: CSV of a fixed test set; None draws one.
        per_snr: mixtures at each SNR of one that is drawn.
    """
    fewer = min(per_snr, VALID_PER_SNR)
    valid = make_test_set(corpus, "valid", name="valid", seed=1, per_snr=fewer)
    if path is not None:
        return read_csv(path), valid
    return make_test_set(corpus, "test", name="test", seed=0, per_snr=per_snr), valid
