"""The corpus and the test sets that an experiment names."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence

from dynse.data.bank import Corpus
from dynse.data.drawing import SNRS_DB, make_test_set, pair_test_set
from dynse.data.folders import folder_corpus
from dynse.data.synthetic import SMOKE_SIZE, SyntheticSize, synthetic_corpus
from dynse.data.testsets import TestSet, read_csv, render

VALID_PER_SNR = 4  # most mixtures at each SNR that choices are made on


def named_corpus(
    which: str,
    *,
    seed: int,
    cache_dir: str | os.PathLike | None = None,
) -> Corpus:
    """A corpus.

    Args:
        which: "synthetic", "smoke" (the same, tiny) or a folder (`dynse.data.layouts`).
        seed: of the synthetic corpus.
        cache_dir: where decoded corpora lie; `default_cache_dir()` if None.
    """
    if which in ("synthetic", "smoke"):
        size = SMOKE_SIZE if which == "smoke" else SyntheticSize()
        return synthetic_corpus(seed=seed, minutes=size, cache_dir=cache_dir)
    return folder_corpus(which, cache_dir=cache_dir)


def is_drawn_from(test_set: TestSet, corpus: Corpus) -> bool:
    """Whether a corpus holds the first mixture's recordings, sample by sample."""
    try:
        render(test_set.mixtures[0], corpus)
    except (KeyError, ValueError):
        return False
    return True


def draw_test_set(
    corpus: Corpus,
    split: str,
    *,
    seed: int,
    per_snr: int,
    snrs_db: Sequence[float] | None = None,
    all_pairs: bool = False,
) -> TestSet:
    """Mixtures of a split: given pairs where it is of those and no SNRs are asked for.

    Args:
        corpus: where the recordings are.
        split: which split, also the test set's name.
        seed: of the choice.
        per_snr: mixtures at each SNR; of given pairs as many as that would make in all.
        snrs_db: None for -5 to 15 dB, or the SNRs that the pairs have.
        all_pairs: of given pairs one and all.
    """
    if split in corpus.pairs and snrs_db is None:
        count = None if all_pairs else len(SNRS_DB) * per_snr
        return pair_test_set(corpus, split, name=split, seed=seed, count=count)
    levels = SNRS_DB if snrs_db is None else snrs_db
    return make_test_set(corpus, split, name=split, seed=seed, per_snr=per_snr, snrs_db=levels)


def named_test_sets(
    corpus: Corpus,
    path: str | os.PathLike | None,
    *,
    per_snr: int,
    valid_per_snr: int = VALID_PER_SNR,
    snrs_db: Sequence[float] | None = None,
    all_pairs: bool = False,
) -> tuple[TestSet, TestSet]:
    """The mixtures to score, and a few of the validation split that choices are made on.

    Where a split is of given pairs and no SNRs are asked for, they are such pairs, as recorded: as
    many as would else be drawn.

    Args:
        corpus: where the recordings are.
        path: CSV of a fixed test set; None draws one.
        per_snr: mixtures at each SNR of one that is drawn.
        valid_per_snr: most of the validation split.
        snrs_db: at these SNRs alone, and of a fixed test set too only `per_snr` at each; None: at
            all, and a fixed test set whole.
        all_pairs: the test split's given pairs, where there are any, one and all.

    Raises:
        ValueError: where the corpus is not the one that the test set was drawn from.
    """
    fewer = min(per_snr, valid_per_snr)
    valid = draw_test_set(corpus, "valid", seed=1, per_snr=fewer, snrs_db=snrs_db)
    if path is None:
        test = draw_test_set(
            corpus, "test", seed=0, per_snr=per_snr, snrs_db=snrs_db, all_pairs=all_pairs
        )
        return test, valid
    test = read_csv(path)
    if not is_drawn_from(test, corpus):
        # Now, and not when the nets are trained and are to be scored.
        raise ValueError(
            f"{path} was drawn from the corpus {test.corpus!r}; {corpus.name!r} is another"
        )
    if snrs_db is None:
        return test, valid
    at_each = [[one for one in test if one.snr_db == snr][:per_snr] for snr in snrs_db]
    return dataclasses.replace(test, mixtures=tuple(itertools.chain(*at_each))), valid
