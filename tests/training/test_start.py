"""What an experiment starts with: its folder, its corpus, and the test set of that corpus."""

import dataclasses
import pathlib

import pytest

from dynse.data.named import named_corpus, named_test_sets
from dynse.data.testsets import write_csv
from dynse.training import start
from dynse.training.start import open_experiment


@dataclasses.dataclass(frozen=True)
class Arguments:
    run_dir: pathlib.Path | None
    cache_dir: pathlib.Path
    preset: str = "mini"
    corpus: pathlib.Path | None = None
    seed: int = 1


def test_a_fixed_test_set_is_for_its_own_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(start, "start_experiment", lambda _: start.Console(quiet=True))
    corpus = named_corpus("smoke", seed=1, cache_dir=tmp_path)
    drawn = named_test_sets(corpus, None, per_snr=1)[0]
    path = tmp_path / "fixed.csv"
    write_csv(dataclasses.replace(drawn, corpus="known"), path)
    arguments = Arguments(tmp_path / "run", tmp_path)
    opened = open_experiment("any", arguments, "smoke", str(path))
    assert (opened.corpus.name, opened.test_set) == ("known", str(path))
    assert opened.corpus.fingerprint == corpus.fingerprint
    assert opened.run_dir.is_dir()
    other = open_experiment("any", dataclasses.replace(arguments, seed=2), "smoke", str(path))
    assert (other.corpus.name, other.test_set) == ("synthetic", None)


def test_a_corpus_is_asked_for(tmp_path):
    with pytest.raises(SystemExit, match="preset mini needs --corpus FOLDER"):
        open_experiment("any", Arguments(tmp_path, tmp_path), "")
