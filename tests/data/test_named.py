"""Corpora and test sets by name."""

import pytest

from dynse.data.named import VALID_PER_SNR, named_corpus, named_test_sets
from dynse.data.testsets import write_csv


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return named_corpus("smoke", seed=1, cache_dir=tmp_path_factory.mktemp("cache"))


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        named_corpus(str(tmp_path / "nowhere"), seed=0, cache_dir=tmp_path)


def test_choices_are_made_on_a_few_mixtures_of_the_validation_split(corpus, tmp_path):
    assert corpus.name == "synthetic"
    test, valid = named_test_sets(corpus, None, per_snr=VALID_PER_SNR + 1)
    assert {spec.split for spec in test} == {"test"}
    assert {spec.split for spec in valid} == {"valid"}
    assert (len(test), len(valid)) == (5 * (VALID_PER_SNR + 1), 5 * VALID_PER_SNR)
    path = tmp_path / "fixed.csv"
    write_csv(valid, path)
    fixed, same = named_test_sets(corpus, path, per_snr=VALID_PER_SNR)
    assert fixed == same == valid
    quiet, few = named_test_sets(corpus, path, per_snr=2, valid_per_snr=1, snrs_db=(5, -5))
    assert [spec.snr_db for spec in quiet] == [5, 5, -5, -5]
    assert [spec.snr_db for spec in few] == [5, -5]
    assert set(quiet) <= set(fixed)
    drawn, _ = named_test_sets(corpus, None, per_snr=1, snrs_db=(0,))
    assert [spec.snr_db for spec in drawn] == [0]


def test_a_test_set_of_another_corpus_is_refused(corpus, tmp_path):
    path = tmp_path / "fixed.csv"
    write_csv(named_test_sets(corpus, None, per_snr=1)[0], path)
    other = named_corpus("smoke", seed=2, cache_dir=tmp_path)
    with pytest.raises(ValueError, match=r"fixed\.csv was drawn from the corpus 'synthetic'; "):
        named_test_sets(other, path, per_snr=1)
