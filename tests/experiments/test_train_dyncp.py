"""The smoke preset from audio to the report, and evaluate.py on what it leaves."""

import dataclasses
import json

import numpy as np
import pytest
from data.published import voicebank

from dynse.audio.files import read_audio, write_audio
from dynse.evaluation.scores import load_record


@pytest.fixture(scope="module")
def run_dir(script, tmp_path_factory):
    train_dyncp = script("train_dyncp")
    folder = tmp_path_factory.mktemp("smoke")
    train_dyncp.main(
        train_dyncp.Arguments(preset="smoke", run_dir=folder, cache_dir=folder / "cache")
    )
    return folder


def test_a_report_with_tables_pictures_and_sound(run_dir):
    page = (run_dir / "report.html").read_text()
    text = (run_dir / "report.md").read_text()
    for name in ("noisy", "oracle Wiener", "dense", "narrow", "dyncp", "dyncp, fixed"):
        assert f"| {name} |" in text
    assert page.count("<audio") >= 6
    assert "data:image/png;base64" in page
    assert "Gates of dyncp" in page


def test_records_hold_every_utterance(run_dir):
    record = load_record(run_dir / "records" / "dyncp.json")
    assert len(record.utterances) == 5
    assert {u.attributes["snr_db"] for u in record.utterances} == {-5, 0, 5, 10, 15}
    assert all(0 <= u.values["kept"] <= 1 for u in record.utterances)
    assert record.extra["gates"]["kept"]["count"] == 5
    assert record.config["net"]["gate"]["site"] == "output"


def test_a_second_start_trains_and_scores_nothing_again(run_dir, script):
    train_dyncp = script("train_dyncp")
    files = [*run_dir.glob("records/*.json"), *run_dir.glob("*/metrics.jsonl")]
    before = {path: path.stat().st_mtime_ns for path in run_dir.glob("records/*.json")}
    lines = {path: path.read_text() for path in files if path.name == "metrics.jsonl"}
    train_dyncp.main(
        train_dyncp.Arguments(preset="smoke", run_dir=run_dir, cache_dir=run_dir / "cache")
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {path: path.read_text() for path in lines} == lines


def test_evaluate_enhances_a_file(run_dir, script, tmp_path):
    evaluate = script("evaluate")
    noisy = 0.1 * np.random.default_rng(0).normal(size=8000).astype(np.float32)
    write_audio(tmp_path / "noisy.flac", noisy)
    out = evaluate.main(
        evaluate.Arguments(
            run=run_dir / "dyncp", file=tmp_path / "noisy.flac", out=tmp_path / "out.wav"
        )
    )
    assert read_audio(out).shape == (8000,)


def test_evaluate_scores_a_run_on_a_folder(run_dir, script, tmp_path):
    evaluate = script("evaluate")
    draw = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        for name in (f"clean/{split}/{split}-ann", f"noise/{split}/hum"):
            (tmp_path / name).mkdir(parents=True)
            syllables = np.repeat(draw.uniform(0, 0.2, 16), 3000).astype(np.float32)
            sound = syllables * draw.standard_normal(48000).astype(np.float32)
            write_audio(tmp_path / name / "a.wav", sound)
    page = evaluate.main(
        evaluate.Arguments(
            run=run_dir / "dense",
            corpus=tmp_path,
            per_snr=1,
            out_dir=tmp_path / "scored",
            cache_dir=tmp_path / "cache",
        )
    )
    text = page.with_name("report.md").read_text()
    assert "| dense |" in text
    assert "oracle Wiener" in text


def test_make_tables_rebuilds_the_tables(run_dir, script):
    tables = script("make_tables")
    text = tables.main(tables.Arguments(records=run_dir / "records"))
    assert "How alive the gates are" in text
    assert "| dyncp, shuffled |" in text


def test_wrong_arguments_are_named(script, tmp_path):
    train_dyncp = script("train_dyncp")
    with pytest.raises(SystemExit, match="needs --corpus"):
        train_dyncp.main(train_dyncp.Arguments(preset="mini", run_dir=tmp_path))
    with pytest.raises(SystemExit, match="no net 'dens'; the preset has dense, narrow, dyncp"):
        train_dyncp.main(train_dyncp.Arguments(preset="smoke", nets=("dens",), run_dir=tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError):
        train_dyncp.main(
            train_dyncp.Arguments(preset="mini", corpus=tmp_path / "empty", run_dir=tmp_path)
        )


@pytest.mark.slow
def test_preset_paper_trains_and_scores_the_published_pairs(script, tmp_path):
    """On made-up files in the layout of VoiceBank+DEMAND: two steps of the dense net."""
    train_dyncp = script("train_dyncp")
    train_dyncp.main(
        train_dyncp.Arguments(
            preset="paper",
            corpus=voicebank(tmp_path / "corpus"),
            run_dir=tmp_path / "run",
            cache_dir=tmp_path / "cache",
            steps=2,
            nets=("dense",),
        )
    )
    config = json.loads((tmp_path / "run/dense/config.json").read_text())["run"]
    assert config["mixing"]["pairs"]
    assert config["active_threshold"] == 0.025
    assert config["loop"]["steps"] == 2
    record = load_record(tmp_path / "run/records/dense.json")
    assert sorted(one.attributes["speaker"] for one in record.utterances) == (
        ["p232"] * 3 + ["p257"] * 2
    )


@pytest.mark.slow
def test_a_net_is_taught_and_a_control_is_trained(script, tmp_path, monkeypatch):
    train_dyncp = script("train_dyncp")
    smoke = train_dyncp.PRESETS["smoke"]
    gated = smoke.nets["dyncp"]
    nets = {
        "dense": smoke.nets["dense"],
        "dyncp": gated,
        "taught": train_dyncp.Taught(gated, "dense"),
        "fixed": train_dyncp.TrainedControl("dyncp", "fixed", trained_on=True),
        "again": train_dyncp.TrainedOn("dyncp"),
    }
    several = dataclasses.replace(smoke, nets=nets)
    monkeypatch.setattr(train_dyncp, "PRESETS", {**train_dyncp.PRESETS, "smoke": several})
    arguments = train_dyncp.Arguments(
        preset="smoke", run_dir=tmp_path, cache_dir=tmp_path, controls=False, nets=tuple(nets)
    )
    results = train_dyncp.main(arguments)
    assert list(results) == list(nets)
    about = json.loads((tmp_path / "taught/config.json").read_text())
    assert about["teacher"]["weight"] == 0.5
    about = json.loads((tmp_path / "fixed/config.json").read_text())
    assert about["run"]["net"]["control"]["kind"] == "fixed"
    again = json.loads((tmp_path / "again/config.json").read_text())
    first = json.loads((tmp_path / "dyncp/config.json").read_text())
    assert again["run"] == first["run"]
    assert (again["start"], again["phase"]) == (about["start"], about["phase"])
    assert again["phase"] == 1
    record = load_record(tmp_path / "records/again.json")
    assert record.config == {**again["run"], "start": again["start"]}
    with pytest.raises(SystemExit, match="taught needs dense, trained before it"):
        train_dyncp.main(dataclasses.replace(arguments, nets=("taught",)))


def test_the_plan_of_a_run_is_kept(run_dir):
    config = json.loads((run_dir / "dyncp" / "config.json").read_text())
    assert config["loop"]["steps"] == 20
