"""Draw the fixed test sets of a folder corpus and write them as CSV.

    python experiments/make_testsets.py --root <the dynse-mini folder>

writes experiments/testsets/dynse-mini-test-v1.csv (210 mixtures) and dynse-mini-valid-v1.csv (60).
The committed files are what figures are quoted on; drawing them again from the same corpus gives
the same bytes. Seconds on a laptop, once the corpus is in the cache.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import tyro

from dynse.data.bank import Corpus
from dynse.data.drawing import make_test_set
from dynse.data.folders import folder_corpus
from dynse.data.testsets import TestSet, write_csv

# No more than a fifth from EMO-DB: its clips are acted, processed and all two seconds long.
LIMITS = {"emodb-": 0.2}


@dataclasses.dataclass(frozen=True)
class Config:
    """Where the corpus is and where the CSVs go."""

    root: Path
    """The folder that holds clean/ and noise/."""
    out_dir: Path = Path(__file__).parent / "testsets"
    """Where the CSVs are written."""
    name: str = "dynse-mini"
    """The corpus' name."""
    seed: int = 1
    """What is drawn."""
    test_per_snr: int = 42
    """Mixtures at each SNR in the test set."""
    valid_per_snr: int = 12
    """Mixtures at each SNR in the validation set."""


def draw(corpus: Corpus, config: Config) -> tuple[TestSet, TestSet]:
    """The test set and the validation set of a corpus."""
    test, valid = (
        make_test_set(
            corpus,
            split,
            name=f"{config.name}-{split}-v1",
            seed=config.seed,
            per_snr=per_snr,
            limits=LIMITS,
        )
        for split, per_snr in (("test", config.test_per_snr), ("valid", config.valid_per_snr))
    )
    return test, valid


def main(config: Config) -> tuple[TestSet, TestSet]:
    """Draw, write and describe both sets."""
    corpus = folder_corpus(config.root, name=config.name)
    config.out_dir.mkdir(parents=True, exist_ok=True)
    both = draw(corpus, config)
    for test_set in both:
        write_csv(test_set, config.out_dir / f"{test_set.name}.csv")
        describe(test_set, corpus)
    return both


def describe(test_set: TestSet, corpus: Corpus) -> None:
    """Print what a test set is made of."""
    speech, noise = corpus.speech[test_set.split], corpus.noise[test_set.split]
    speakers = [speech.groups[speech.index_of(spec.speech[0])] for spec in test_set]
    classes = [noise.groups[noise.index_of(spec.noise)] for spec in test_set]
    sources = Counter(
        corpus.attributes.get(spec.speech[0], {}).get("upstream_corpus", "unknown")
        for spec in test_set
    )
    minutes = sum(spec.length for spec in test_set) / 16000 / 60
    print(f"{test_set.name}: {len(test_set)} mixtures, {minutes:.1f} min, {test_set.sha256}")
    print(f"  SNR: {dict(Counter(spec.snr_db for spec in test_set))}")
    print(f"  corpora: {dict(sources)}")
    print(f"  speakers: {dict(Counter(speakers))}")
    print(f"  classes: {dict(Counter(classes))}")


if __name__ == "__main__":
    main(tyro.cli(Config))
