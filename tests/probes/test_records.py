"""Records of gate probes: round trip, foreign files, tables of one and several seeds."""

import dataclasses
import json

import numpy as np
import pytest

from dynse.evaluation.statistics import Interval
from dynse.probes.records import (
    ProbeRecord,
    cost_table,
    is_probe_record,
    load_probe_record,
    save_probe_record,
    score_tables,
    verification_table,
)


def interval(mean):
    return Interval(mean, mean - 0.1, mean + 0.1, 200, 0)


def record(seed=0, gates=0.9, net="dyncp", **changes):
    made = ProbeRecord(
        net=net,
        seed=seed,
        scores={
            "voice activity": {
                "majority or mean": {"accuracy": interval(0.6)},
                "gates": {"accuracy": interval(gates), "balanced accuracy": interval(0.8)},
            },
            "F0": {
                "gates": {
                    "R2": interval(0.5),
                    "median cents": Interval(77.5, np.nan, np.nan, 9, 0),
                }
            },
        },
        paths={"voice activity": [(1, 0.7), (2, 0.85), (3, 0.9)], "F0": [(1, 0.4), (3, 0.5)]},
        enough={"voice activity": 2, "F0": 3},
        additions={"voice activity": (30.0, 10.0 + seed), "F0": (3.0, 3.0)},
        extra={"F0": {"at 5 dB": interval(0.45)}},
        verification={"all": (0.1 + 0.1 * seed, 40), "other recording": (0.3, 12)},
        active_macs=1000.0,
        counts={"test": {"mixtures": 20}},
        config={"run": {"seed": seed}},
        corpus_fingerprint="f00d",
        machine={"cpu": "a NaN-free one"},
        commit=None,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def test_round_trip(tmp_path):
    """NaN compares unequal to itself: by text, which also tells tuples and lists apart."""
    made = record(net="NaNet")
    path = save_probe_record(tmp_path / "a.json", made)
    assert is_probe_record(path)
    found = load_probe_record(path)
    assert repr(found) == repr(made)
    assert np.isnan(found.scores["F0"]["gates"]["median cents"].low)
    content = path.read_text()
    assert '"NaNet"' in content
    assert (
        json.loads(content, parse_constant=pytest.fail)["scores"]["F0"]["gates"]["median cents"][
            "low"
        ]
        is None
    )


def test_foreign_files_are_named(tmp_path):
    path = save_probe_record(tmp_path / "whole.json", record())
    content = json.loads(path.read_text())
    other = {**content, "kind": "bit search"}
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert not is_probe_record(tmp_path / "other.json")
    without = {key: value for key, value in content.items() if key != "scores"}
    more = {**content, "more": 1}
    texts = {
        "other": (json.dumps(other), "expected kind 'gate probes', got 'bit search'"),
        "without": (json.dumps(without), "scores"),
        "more": (json.dumps(more), "more"),
        "kindless": ("{}", "kind"),
        "list": ("[1]", "TypeError"),
        "broken": (path.read_text()[:100], "JSONDecodeError"),
    }
    for name, (text, reason) in texts.items():
        (tmp_path / f"{name}.json").write_text(text)
        with pytest.raises(
            ValueError, match=rf"{name}\.json is no record of gate probes.*{reason}"
        ):
            load_probe_record(tmp_path / f"{name}.json")
    with pytest.raises(ValueError, match=r"missing\.json is no record"):
        load_probe_record(tmp_path / "missing.json")


def test_tables_of_one_seed():
    voice, f0 = score_tables([record()])
    assert voice.title == "Read: voice activity"
    assert voice.header == ("net", "read from", "seeds", "accuracy", "balanced accuracy")
    assert voice.rows == (
        ("dyncp", "majority or mean", "1", "0.600 [0.500, 0.700]", "-"),
        ("dyncp", "gates", "1", "0.900 [0.800, 1.000]", "0.800 [0.700, 0.900]"),
    )
    assert f0.rows == (
        ("dyncp", "gates", "1", "0.500 [0.400, 0.600]", "77.500"),
        ("dyncp", "gates, at 5 dB", "1", "0.450 [0.350, 0.550]", "-"),
    )
    assert "lowest to highest" in voice.notes[0]
    costs = {row[1]: row[2:] for row in cost_table([record()]).rows}
    assert costs["voice activity"] == ("3", "2", "30", "10", "1.000 %")
    rates = verification_table([record()]).rows
    assert rates[0] == ("dyncp", "all", "40", "10.0 %")
    assert rates[1] == ("dyncp", "other recording", "12", "30.0 %")


def test_tables_of_several_seeds_give_mean_and_range():
    records = [record(), record(net="told"), record(seed=2, gates=0.6)]
    voice = score_tables(records)[0]
    assert [row[:3] for row in voice.rows if row[1] == "gates"] == [
        ("dyncp", "gates", "2"),
        ("told", "gates", "1"),
    ]
    assert ("dyncp", "gates", "2", "0.750 (0.600 to 0.900)", "0.800 (0.800 to 0.800)") in voice.rows
    assert ("told", "gates", "1", "0.900 [0.800, 1.000]", "0.800 [0.700, 0.900]") in voice.rows
    costs = cost_table(records).rows
    assert costs[0] == ("dyncp", "voice activity", "3", "2", "30", "11", "1.100 %")
    assert verification_table(records).rows[0] == ("dyncp", "all", "40", "20.0 % (10.0 to 30.0)")


def test_a_task_that_one_seed_lacks():
    """On another corpus a task may not have been possible: the others are still shown."""
    other = record(seed=1)
    for part in ("scores", "paths", "enough", "additions"):
        kept = {"voice activity": getattr(other, part)["voice activity"]}
        other = dataclasses.replace(other, **{part: kept})
    other = dataclasses.replace(other, extra={}, verification={})
    for records in ([record(), other], [other, record()]):
        tables = {table.title: table for table in score_tables(records)}
        assert set(tables) == {"Read: voice activity", "Read: F0"}
        assert {row[2] for row in tables["Read: F0"].rows} == {"1"}
        assert {row[1] for row in cost_table(records).rows} == {"voice activity", "F0"}
        assert verification_table(records).rows[0][3] == "10.0 %"
