"""The smoke preset of the probes, from audio to the report."""

import dataclasses

import numpy as np
import pytest

from dynse.data.labels import SHAPE
from dynse.data.named import named_corpus
from dynse.evaluation.statistics import Interval
from dynse.probes import rivals
from dynse.probes.records import load_probe_record
from dynse.training import start


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    experiment = script("probe_gates")
    folder = tmp_path_factory.mktemp("probes")
    arguments = experiment.Arguments(preset="smoke", run_dir=folder, cache_dir=folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        # pYIN takes seconds to load and to compile; tests/probes/test_rivals.py tries it.
        patch.setattr(rivals, "tracked_f0", lambda noisy: np.full(SHAPE.frames(len(noisy)), 150))
        return experiment, arguments, experiment.main(arguments)


def test_a_record(run):
    _, arguments, records = run
    record = load_probe_record(arguments.run_dir / "records" / "dyncp-seed0.json")
    assert repr(record) == repr(records[0])
    assert {"voice activity", "F0", "frame SNR", "SNR", "noise class"} <= set(record.scores)
    for task, found in record.scores.items():
        assert {"majority or mean", "gates", "log-mel", "random gates"} <= set(found)
        assert [count for count, _ in record.paths[task]][-1] <= 32
        assert record.enough[task] in dict(record.paths[task])
        few, all_of_them = record.additions[task][1], record.additions[task][0]
        assert 0 <= few <= all_of_them + 1e-6
        for scores in found.values():
            assert all(isinstance(score, Interval) for score in scores.values())
    assert record.scores["voice activity"]["majority or mean"]["balanced accuracy"].mean == 0.5
    assert record.scores["F0"]["pYIN on the noisy signal"]["R2"].mean <= 0
    # The smoke corpus tests on one voice, whose mean explains nothing.
    told = record.scores["F0"]["the voice's own mean, told"]["R2"].mean
    assert told == pytest.approx(0, abs=1e-9)
    assert {"at -5 dB", "at 15 dB", "at 30 dB"} <= set(record.extra["frame SNR"])
    assert "accuracy by source" in record.extra["noise class"]
    assert record.counts["test"]["mixtures"] == record.counts["noise classes"]["test"]["mixtures"]
    assert len(record.counts["noise classes"]["names"]) >= 2
    assert record.active_macs > 0


def test_a_report_with_tables_and_pictures(run):
    folder = run[1].run_dir
    text, page = (folder / "report.md").read_text(), (folder / "report.html").read_text()
    for title in ("Read: voice activity", "Read: noise class", "What reading costs", "Heard in"):
        assert title in text
    assert page.count("data:image/png;base64") >= 5


def test_a_second_start_does_nothing_again(run, monkeypatch):
    experiment, arguments, records = run
    files = [*arguments.run_dir.glob("records/*.json"), *arguments.run_dir.glob("report.*")]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(before) == 3

    def again(*_, **__):
        raise AssertionError("was done again")

    for name in ("study_task", "score_rivals", "mixture_rows"):
        monkeypatch.setattr(experiment, name, again)
    assert repr(experiment.main(arguments)) == repr(records)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # Negative control: another seed of the mixtures is another record.
    with pytest.raises(AssertionError, match="was done again"):
        experiment.main(dataclasses.replace(arguments, seed=1, runs=(arguments.run_dir / "dyncp",)))


def test_wrong_arguments_are_named(run, tmp_path):
    experiment = run[0]
    with pytest.raises(SystemExit, match="preset mini needs --corpus FOLDER"):
        experiment.main(experiment.Arguments(preset="mini", run_dir=tmp_path))
    corpus = named_corpus("smoke", seed=0, cache_dir=run[1].cache_dir)
    corpus = dataclasses.replace(corpus, name="folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "named_corpus", lambda *_, **options: corpus)
        with pytest.raises(SystemExit, match="preset mini needs --runs"):
            experiment.main(experiment.Arguments(preset="mini", corpus=tmp_path, run_dir=tmp_path))


def test_make_tables_reads_the_records(run, script):
    _, arguments, _ = run
    tables = script("make_tables")
    text = tables.main(tables.Arguments(records=arguments.run_dir / "records"))
    for title in ("Read: voice activity", "What reading costs", "Speaker verification"):
        assert title in text
