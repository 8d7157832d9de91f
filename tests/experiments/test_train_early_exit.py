"""The smoke preset from audio to the report: nets, exits, policies."""

import dataclasses

import numpy as np
import pytest

from dynse.audio.files import read_audio, write_audio
from dynse.evaluation.scores import load_record
from dynse.training.runs import load_run

pytestmark = pytest.mark.slow


def start(script, folder, **options):
    experiment = script("train_early_exit")
    return experiment.main(
        experiment.Arguments(
            **{"preset": "smoke", "run_dir": folder, "cache_dir": folder / "cache", **options}
        )
    )


@pytest.fixture(scope="module")
def run_dir(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    start(script, folder)
    return folder


def test_a_report_with_tables_pictures_and_sound(run_dir):
    text, page = ((run_dir / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert "| joint-none | gru2 |" in text
    assert "| layerwise-divide | gru1 |" in text
    assert "| alone | fc1 |" in text
    for title in (
        "Against static nets of the same cost",
        "What each stage adds",
        "Policies",
        "What skipped states cost",
        "A budget changed ten times a second",
        "Quality against cost: policies on joint-none",
    ):
        assert f"## {title}\n" in text
    assert text.count("## Exits taken, ") == 3
    assert page.count("<audio") == 3 * (2 + 3 + 2 + 6)


def test_a_record_of_every_exit_and_policy(run_dir):
    records = {path.stem: load_record(path) for path in run_dir.glob("records/*.json")}
    exits = {name: one for name, one in records.items() if "exit" in one.config}
    assert set(exits) == {
        "joint-none-fc1",
        "joint-none-gru1",
        "joint-none-gru2",
        "layerwise-divide-fc1",
        "layerwise-divide-gru1",
        "alone-fc1",
    }
    costs = [exits[f"joint-none-{name}"].cost["macs"] for name in ("fc1", "gru1", "gru2")]
    assert costs == sorted(costs)
    policies = [one for one in records.values() if "policy" in one.config]
    assert {one.config["policy"] for one in policies} == {
        "budget",
        "threshold",
        "router",
        "budgeted threshold",
        "budgeted router",
        "oracle",
        "changing budget",
    }
    for one in policies:
        shares = [
            sum(u.values[f"share_{n}"] for n in ("fc1", "gru1", "gru2")) for u in one.utterances
        ]
        assert shares == pytest.approx([1] * 5)
        spent = [u.values["active_macs_per_s"] for u in one.utterances]
        if one.config["policy"].startswith("budget"):
            # No second costs more, and the mixtures last 6 s and a part of another.
            assert max(spent) <= 7 / 6 * 1e6 * one.config["level"]


def test_make_tables_reads_the_records(run_dir, script):
    tables = script("make_tables")
    text = tables.main(tables.Arguments(records=run_dir / "records"))
    report = (run_dir / "report.md").read_text()
    for title in ("Without a net", "Every exit", "Policies", "A budget changed ten times a second"):
        assert f"### {title}\n" in text
    for row in (line for line in text.splitlines() if line.startswith("| joint-none | ")):
        assert row in report


def test_a_second_start_trains_and_scores_nothing_again(run_dir, script):
    paths = [*run_dir.glob("records/*.json"), *run_dir.glob("**/metrics.jsonl")]
    paths += run_dir.glob("controls-*.json")
    before = {path: path.stat().st_mtime_ns for path in paths if path.name != "metrics.jsonl"}
    lines = {path: path.read_text() for path in paths if path.name == "metrics.jsonl"}
    assert len(lines) == 4
    start(script, run_dir)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {path: path.read_text() for path in lines} == lines


def test_evaluate_takes_an_exit_or_a_budget(run_dir, script, tmp_path, capsys):
    evaluate = script("evaluate")
    noisy = 0.1 * np.random.default_rng(0).normal(size=16000).astype(np.float32)
    write_audio(tmp_path / "noisy.wav", noisy)
    enhanced = {}
    # MMAC/s of the exits' programs.
    costs = [
        62.5e-6 * load_record(run_dir / f"records/joint-none-{name}.json").cost["macs"]
        for name in ("fc1", "gru1", "gru2")
    ]
    chosen = {
        "first": {"exit": "fc1"},
        "least": {"budget": 1.001 * costs[0]},
        "some": {"budget": (costs[0] + costs[2]) / 2},
        "last": {},
        "most": {"budget": 1.001 * costs[2]},
    }
    arguments = evaluate.Arguments(
        run=run_dir / "joint-none", cache_dir=run_dir / "cache", file=tmp_path / "noisy.wav"
    )
    for name, options in chosen.items():
        out = tmp_path / f"{name}.wav"
        evaluate.main(dataclasses.replace(arguments, out=out, **options))
        enhanced[name] = read_audio(out)
    np.testing.assert_allclose(enhanced["least"], enhanced["first"], atol=1e-4)
    np.testing.assert_allclose(enhanced["most"], enhanced["last"], atol=1e-4)
    assert np.abs(enhanced["some"] - enhanced["last"]).max() > 1e-3
    told = capsys.readouterr().out
    assert "fc1 100%, gru1 0%, gru2 0%" in told
    assert "fc1 0%, gru1 0%, gru2 100%" in told
    for options, message in (
        ({"exit": "gru3"}, "no exit 'gru3'; the net has fc1, gru1, gru2"),
        ({"budget": 0.5 * costs[0]}, "no exit costs as little"),
        ({"budget": 1.0, "file": None}, "--budget goes with --file"),
        ({"run": run_dir / "alone-fc1", "budget": 1.0}, "no exits to choose among"),
    ):
        with pytest.raises(SystemExit, match=message):
            evaluate.main(dataclasses.replace(arguments, **options))


def test_each_phase_trains_what_no_exit_before_needs(run_dir):
    phases = [load_run(run_dir / "layerwise-divide" / name) for name in ("0-fc1", "1-gru1")]
    (_, first, one), (_, second, two) = phases
    assert set(first["params"]) == {"side_fc1", "head_fc1"}
    assert set(second["params"]) == {"fc1", "gru1", "head_gru1"}
    assert one.loop.steps + two.loop.steps == 8


def test_wrong_arguments_are_named(script, tmp_path):
    with pytest.raises(SystemExit, match="preset mini needs --corpus"):
        start(script, tmp_path, preset="mini")
    with pytest.raises(SystemExit, match="no net 'joint'; the preset has joint-none, layerwise"):
        start(script, tmp_path, nets=("joint",))
    for wanted in ("alone-fc1", "joint-divide"):
        with pytest.raises(SystemExit, match=f"no policies on '{wanted}': .* joint-none"):
            start(script, tmp_path, policy_net=wanted)
