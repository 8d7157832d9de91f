import dataclasses
import json

import numpy as np
import pytest

from dynse.evaluation import scores
from dynse.evaluation.scores import (
    RunRecord,
    UtteranceScore,
    commit,
    load_record,
    load_records,
    machine,
    save_record,
)


def record(**changes):
    utterances = (
        UtteranceScore("a", {"pesq": 1.5, "stoi": float("nan")}, {"stoi": "too short"}),
        UtteranceScore("b", {"pesq": np.float32(2.5), "stoi": 0.9}, {}, {"snr_db": -5}),
    )
    fields = {
        "net": "dense ±",
        "corpus": "synthetic",
        "corpus_fingerprint": "ab12",
        "test_set": "test v1",
        "test_set_hash": "cd34",
        "utterances": utterances,
        "config": {"width": np.int64(128), "dilations": (1, 2, 4), "rate": float("nan")},
        "seed": 3,
        "cost": {"macs": 662528},
    }
    return RunRecord(**{**fields, **changes})


def test_round_trip(tmp_path):
    path = save_record(tmp_path / "new" / "run.json", record())
    loaded = load_record(path)
    assert loaded.net == "dense ±"
    assert loaded.seed == 3
    assert loaded.config == {"width": 128, "dilations": [1, 2, 4], "rate": None}
    assert loaded.values("pesq") == [1.5, 2.5]
    assert np.isnan(loaded.values("stoi")[0])
    assert np.isnan(loaded.values("never measured")).all()
    assert loaded.utterances[0].failures == {"stoi": "too short"}
    assert loaded.utterances[1].attributes == {"snr_db": -5}
    again = save_record(tmp_path / "again.json", loaded)
    assert again.read_bytes() == path.read_bytes()
    assert [r.net for r in load_records([path, again])] == ["dense ±"] * 2


def test_the_file_is_strict_json(tmp_path):
    def refuse(word):
        raise AssertionError(word)

    text = save_record(tmp_path / "run.json", record()).read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse)["utterances"][0]["values"]["stoi"] is None


def test_an_empty_run_can_be_saved(tmp_path):
    path = save_record(tmp_path / "run.json", record(utterances=()))
    assert load_record(path).utterances == ()


def test_ids_must_differ(tmp_path):
    twice = dataclasses.replace(record(), utterances=record().utterances[:1] * 2)
    with pytest.raises(ValueError, match="'a' more than once"):
        save_record(tmp_path / "run.json", twice)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = save_record(tmp_path / "run.json", record())
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"cannot write .* bytes: No space left"):
        save_record(path, record(net="other"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99}', "null"])
def test_other_files_are_refused_by_name(tmp_path, text):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"odd\.json is no record"):
        load_record(path)


def test_machine_says_what_is_needed_and_no_host(monkeypatch):
    import platform

    said = machine()
    assert said["cores"] >= 1
    assert said["cpu"]
    assert said["jax"].count(".") >= 1
    assert said["devices"]
    json.dumps(said)
    assert platform.node() not in json.dumps(said) or len(platform.node()) < 4


def test_commit_is_a_hash_or_none(monkeypatch, tmp_path):
    found = commit()
    assert found is None or len(found.removesuffix("+changes")) == 40
    # Negative control: outside a checkout there is none.
    (tmp_path / "scores.py").write_text("")
    monkeypatch.setattr(scores, "__file__", str(tmp_path / "scores.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() is None
