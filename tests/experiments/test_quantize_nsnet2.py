"""The smoke preset of nsNet2 in integers, from audio to the report."""

import pytest

from dynse.evaluation.scores import load_record


def test_smoke(script, tmp_path):
    experiment = script("quantize_nsnet2")
    arguments = experiment.Arguments(preset="smoke", run_dir=tmp_path, cache_dir=tmp_path / "cache")
    results = experiment.main(arguments)
    assert set(results) == {"nsnet2", "nsnet2, 8 bit"}
    record = load_record(tmp_path / "records" / "nsnet2-8-bit.json")
    assert len(record.utterances) == 5
    # Weights at 8 bits and biases at 32: about a quarter of float32.
    assert results["nsnet2, 8 bit"].cost.bytes < 0.4 * results["nsnet2"].cost.bytes
    assert "| nsnet2, 8 bit |" in (tmp_path / "report.md").read_text()


def test_a_folder_corpus_is_asked_for(script, tmp_path):
    experiment = script("quantize_nsnet2")
    with pytest.raises(SystemExit, match="needs --corpus"):
        experiment.main(experiment.Arguments(preset="mini", run_dir=tmp_path))
