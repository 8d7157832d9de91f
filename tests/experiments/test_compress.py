"""The smoke preset of compression, from audio to the report."""

import json
import shutil

import jax
import numpy as np
import pytest

from dynse.audio.files import read_audio, write_audio
from dynse.evaluation.compression_records import load_compression_record
from dynse.models.waveform import enhance
from dynse.pruning import load_packed
from dynse.pruning.runs import load_packed_run

pytestmark = pytest.mark.slow


def start(script, folder, **options):
    compress = script("compress")
    values = {"preset": "smoke", "net": "fdnn", "cache_dir": folder / "cache", **options}
    return compress.main(compress.Arguments(**{"run_dir": folder, **values}))


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compress")
    return folder, start(script, folder)


def check(folder, record):
    """A record whose sizes are those of the files, and whose files load."""
    for net in record.nets:
        path = folder / net.file
        assert path.parent.name == f"iteration-{net.iteration}"
        variables, metadata = load_packed(path)
        assert path.stat().st_size == net.file_bytes
        assert metadata["net"]["kind"] == record.net
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(variables["params"])) == (
            record.dense_bytes
        )
        assert 0 <= net.macs <= record.dense_macs
        assert all(len(values) == 1 for by_snr in net.scores.values() for values in by_snr.values())
    weights = [net.weights for net in record.nets]
    assert weights == sorted(weights, reverse=True)
    assert [net.clustered for net in record.nets] == [False, True] * (len(weights) // 2)


def test_a_record_and_a_report(run):
    folder, record = run
    path = folder / "records" / "fdnn-C1-seed0.json"
    assert load_compression_record(path) == record
    check(folder, record)
    assert len(record.nets) == 6  # iterations 0, 1 and 2, each clustered as well
    assert record.stopped == "iterations"
    assert record.nets[-1].weights < record.dense_weights
    assert record.nets[-1].macs < record.dense_macs
    assert record.lambdas[0] > 0
    assert record.lambdas[1] == 0
    assert set(record.trained["stoi"]) == {"-5", "0", "5"}
    text = (folder / "report.md").read_text()
    for title in ("What compression reached", "Quality against rate", "Tensors of fdnn C1, seed 0"):
        assert title in text


def test_each_training_has_its_share_of_the_regulariser(run, script):
    folder, record = run
    configs = ("regularised", "iteration-1/finetuning", "iteration-2/finetuning")
    for iteration, place in enumerate(configs):
        told = json.loads((folder / "fdnn-C1-seed0" / place / "config.json").read_text())
        expected = np.multiply(0.9**iteration, record.lambdas)
        np.testing.assert_allclose(told["lambdas"], expected, rtol=1e-6)


def test_a_second_start_does_nothing_again(run, script):
    folder, record = run
    files = [
        *folder.glob("scores/*.json"),
        *folder.glob("*/iteration-*/*"),
        *folder.glob("**/metrics.jsonl"),
    ]
    before = {path: path.read_bytes() for path in files if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in before if path.suffix == ".packed"}
    again = start(script, folder)
    assert again == record
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_cut_short_in_an_iteration_it_ends_with_the_same_nets(run, script, tmp_path):
    folder, record = run
    shutil.copytree(folder, tmp_path / "cut")
    last = tmp_path / "cut" / "fdnn-C1-seed0" / "iteration-2"
    shutil.rmtree(last)
    shutil.rmtree(tmp_path / "cut" / "scores")
    again = start(script, tmp_path / "cut", cache_dir=folder / "cache")
    assert again.nets == record.nets
    assert again.clusters == record.clusters


def test_clustering_alone_without_a_regulariser(run, script):
    """In the folder of the first: the net is trained once, both stand in the report."""
    folder, first = run
    trained = (folder / "fdnn-seed0" / "metrics.jsonl").read_bytes()
    record = start(script, folder, pipeline="C2", regularizer=False, iterations=0)
    places = [
        folder / f"{name}-seed0/iteration-0/pruned.packed" for name in ("fdnn-C1", "fdnn-C2-plain")
    ]
    with_it, without = (load_packed(path)[0]["params"]["fc1"]["kernel"] for path in places)
    assert np.abs(with_it).sum() < np.abs(without).sum()
    assert (folder / "fdnn-seed0" / "metrics.jsonl").read_bytes() == trained
    assert len(record.nets) == 2
    assert record.lambdas == (0, 0)
    assert record.nets[0].weights == record.dense_weights
    assert record.trained == first.trained
    text = (folder / "report.md").read_text()
    assert "fdnn C1" in text
    assert "fdnn C2, no regulariser" in text


def test_one_threshold_and_a_dense_rival(run, script):
    folder, first = run
    options = {"common_threshold": True, "iterations": 1}
    record = start(script, folder, **options, rivals=True)
    assert record.trained == first.trained
    pruned = record.best_pruned
    small, large = record.rivals
    assert {small.of, large.of} == {pruned.name}
    assert small.steps == large.steps == pruned.steps == 12 + (1 + pruned.iteration) * 4
    biases = record.dense_bytes // 4 - record.dense_weights
    assert small.parameters <= pruned.weights + biases or small.config["hidden"] == [1, 1]
    assert large.parameters == record.dense_bytes // 4
    assert large.scores != record.trained
    assert load_compression_record(folder / "records" / "fdnn-C1-common-seed0.json") == record
    # Kept by a start that does not ask for them.
    assert start(script, folder, **options).rivals == record.rivals
    # What one threshold took from each tensor, and Algorithm 1 as many in all.
    assert record.nets[2].weights == pytest.approx(first.nets[2].weights, abs=2)
    assert record.ratios != first.ratios
    assert "Pruned nets and dense ones" in (folder / "report.md").read_text()


def test_a_trained_net_is_compressed(run, script, tmp_path):
    folder, first = run
    trained = folder / "fdnn-seed0"
    options = {"trained": trained, "cache_dir": folder / "cache", "net": None}
    record = start(script, tmp_path, **options, iterations=0)
    assert record.net == "fdnn"
    assert record.trained == first.trained
    assert record.nets == first.nets[:2]
    assert not (tmp_path / "fdnn-seed0").exists()
    with pytest.raises(SystemExit, match="leave out --net"):
        start(script, tmp_path, **options | {"net": "fdnn"})
    with pytest.raises(SystemExit, match="--steps"):
        start(script, tmp_path, **options, steps=4)


def test_a_packed_file_enhances_and_is_scored(run, script, tmp_path):
    folder, record = run
    evaluate = script("evaluate")
    noisy = 0.1 * np.random.default_rng(0).normal(size=8000).astype(np.float32)
    write_audio(tmp_path / "noisy.wav", noisy)
    packed = folder / record.nets[-1].file
    shared = {"run": packed, "cache_dir": folder / "cache"}
    out = evaluate.main(
        evaluate.Arguments(file=tmp_path / "noisy.wav", out=tmp_path / "out.wav", **shared)
    )
    assert read_audio(out).shape == (8000,)
    report = evaluate.main(evaluate.Arguments(per_snr=1, out_dir=tmp_path / "scored", **shared))
    assert "clustered" in report.with_name("report.md").read_text()


def test_make_tables_reads_the_records(run, script):
    tables = script("make_tables")
    text = tables.main(tables.Arguments(records=run[0] / "records"))
    assert "What compression reached" in text


def test_other_limits_are_no_second_start(run, script):
    folder, _ = run
    with pytest.raises(ValueError, match=r"another configuration \(different: compression"):
        start(script, folder, iterations=1)


def test_a_net_of_another_corpus_is_refused(run, script, tmp_path):
    folder, _ = run
    options = {"trained": folder / "fdnn-seed0", "cache_dir": folder / "cache", "net": None}
    with pytest.raises(SystemExit, match=r"was trained on the corpus .* give its --corpus"):
        start(script, tmp_path, **options, seed=1)


def test_wrong_arguments_are_named(run, script, tmp_path):
    compress = script("compress")
    with pytest.raises(SystemExit, match="needs --corpus"):
        compress.main(compress.Arguments(preset="mini", run_dir=tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("net", ["lstm", "tcnn", "gcrn", "conv_fsenet", "nsnet2"])
def test_every_net_is_compressed(run, script, tmp_path, net):
    cache = run[0] / "cache"
    record = start(script, tmp_path, net=net, pipeline="C2", iterations=1, cache_dir=cache)
    check(tmp_path, record)
    assert record.nets[-1].weights < record.dense_weights
    assert (record.nets[-1].kept is not None) == (net == "conv_fsenet")
    model, variables, run_of_file = load_packed_run(tmp_path / record.nets[-1].file)
    noisy = 0.1 * np.random.default_rng(0).standard_normal((1, 4000)).astype(np.float32)
    enhanced, _ = enhance(model, variables, noisy, stft=run_of_file.stft)
    assert np.isfinite(enhanced).all()
    assert np.abs(enhanced).max() > 0
    config = json.loads((tmp_path / f"{net}-seed0" / "config.json").read_text())
    assert config["run"]["net"]["kind"] == net
    assert np.isfinite(record.valid_loss)
