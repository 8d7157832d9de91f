"""Records of a compression: the round trip, the goal, tables and the figure."""

import dataclasses

import numpy as np
import pytest

from dynse.evaluation.compression_records import (
    CompressedNet,
    CompressionRecord,
    DenseRival,
    flat,
    is_compression_record,
    load_compression_record,
    save_compression_record,
    scores_by_snr,
)
from dynse.evaluation.compression_tables import (
    compression_tables,
    rate_figure,
    reached_table,
    rival_table,
    score_table,
    size_table,
)
from dynse.evaluation.scores import RunRecord, UtteranceScore


def scores(stoi, pesq):
    """Two mixtures at each SNR, 0.1 apart."""
    snrs = ("-5", "0", "5")
    return {
        "stoi": dict.fromkeys(snrs, (stoi - 0.05, stoi + 0.05)),
        "pesq": dict.fromkeys(snrs, (pesq - 0.05, pesq + 0.05)),
    }


def net(iteration, clustered, published, stoi, pesq):
    return CompressedNet(
        iteration=iteration,
        clustered=clustered,
        weights=100 // (1 + iteration),
        steps=30 + 10 * (1 + iteration),
        kept=None,
        macs=500 / (1 + iteration),
        published_bytes=published,
        entropy_bytes=1.5 * published,
        file_bytes=2 * published,
        file="net.packed",
        scores=scores(stoi, pesq),
    )


NETS = (
    net(0, False, 4000, 0.800, 2.0),
    net(0, True, 1000, 0.795, 1.99),
    net(1, False, 800, 0.791, 1.96),
    net(1, True, 200, 0.791, 1.94),  # loses too much PESQ
    net(2, False, 100, 0.780, 2.00),  # loses too much STOI
    net(2, True, 50, 0.600, 1.50),
)


RIVAL = DenseRival(
    of="iteration 1",
    kind="as small",
    config={"hidden": [4, 4]},
    steps=30,
    parameters=900,
    macs=250,
    scores=scores(0.781, 1.99),
)


def record(**changes):
    values = {
        "net": "fdnn",
        "pipeline": "C1",
        "seed": 0,
        "regularized": True,
        "common_threshold": False,
        "noisy": scores(0.6, 1.5),
        "trained": scores(0.8, 2.0),
        "dense_bytes": 4000,
        "dense_weights": 100,
        "dense_macs": 500,
        "nets": NETS,
        "rivals": (),
        "stopped": "scores",
        "densities": {"fc1/kernel": (1.0, 0.5, 0.25)},
        "ratios": {"fc1/kernel": (50, 50)},
        "clusters": {"fc1/kernel": (8, 4, 4)},
        "evaluations": (12, 9),
        "falls": (1, 0),
        "lambdas": (0.1, 0.0),
        "alphas": (0.003, 0.0005),
        "valid_loss": 0.05,
        "valid_scores": {"stoi": (0.8, 0.8, 0.79, 0.7)},
        "config": {
            "run": {"net": {"hidden": [8]}, "loop": {"steps": 30}},
            "compression": {"bisect": True},
        },
        "corpus": "toy",
        "corpus_fingerprint": "0" * 64,
        "test_set": "toy-test",
        "test_set_hash": "1" * 64,
        "machine": {"cpu": "none"},
        "commit": None,
    }
    return CompressionRecord(**{**values, **changes})


def test_the_smallest_net_that_loses_little():
    found = record()
    assert found.best is NETS[2]
    assert found.difference(NETS[2], "stoi").mean == pytest.approx(-0.009)
    assert record(nets=NETS[3:]).best is None
    assert found.best_pruned is NETS[2]
    assert record(nets=NETS[3:]).best_pruned is [net for net in NETS[3:] if not net.clustered][-1]
    silent = dataclasses.replace(NETS[2], scores={**NETS[2].scores, "pesq": {"0": (None,) * 6}})
    assert record(nets=(NETS[0], silent)).best is NETS[0]
    # Silent on half of the mixtures, and better on the rest.
    half = {snr: (first + 1, None) for snr, (first, _) in NETS[2].scores["pesq"].items()}
    silent = dataclasses.replace(NETS[2], scores={**NETS[2].scores, "pesq": half})
    assert record(nets=(NETS[0], silent)).best is NETS[0]


def test_round_trip(tmp_path):
    holed = dataclasses.replace(NETS[0], scores={"stoi": {"0": (0.5, None)}, "pesq": {"0": ()}})
    saved = record(nets=(holed, *NETS[1:]), rivals=(RIVAL,))
    path = save_compression_record(tmp_path / "record.json", saved)
    assert load_compression_record(path) == saved
    assert is_compression_record(path)
    np.testing.assert_array_equal(flat(holed.scores, "stoi"), [0.5, np.nan])


@pytest.mark.parametrize("content", ['{"kind": "bit search"}', '{"kind": "compression"}', "[]"])
def test_what_is_no_record_is_named(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json is no record of a compression"):
        load_compression_record(path)


def test_scores_of_a_run_by_snr():
    utterances = tuple(
        UtteranceScore(str(index), {"stoi": 0.1 * index, "pesq": np.nan}, {}, {"snr_db": snr})
        for index, snr in enumerate((5.0, -5.0, 5.0))
    )
    found = scores_by_snr(RunRecord("net", "toy", "0", "test", "1", utterances))
    assert list(found["stoi"]) == ["-5", "5"]
    np.testing.assert_allclose(found["stoi"]["5"], [0, 0.2])
    assert found["pesq"] == {"-5": (None,), "5": (None, None)}


def test_tables_say_both_rates():
    found = record()
    (row,) = reached_table([found]).rows
    assert row[0] == "fdnn C1, seed 0"
    assert row[1].startswith("+0.2000 [")
    assert row[2].startswith("+0.500 [")
    assert row[3:7] == ("iteration 1", "5.0", "2.5", "50.0 %")
    assert row[7].startswith("-0.0090 [")
    assert row[-1] == "80.0"
    (none,) = reached_table([record(nets=NETS[3:])]).rows
    assert none[3:9] == ("-",) * 6
    rows = size_table(found).rows
    assert rows[0][0] == "before compression"
    assert rows[2] == (
        "not pruned, clustered",
        "40",
        "100.0 %",
        "100.0 %",
        "1.0",
        "4.0",
        "1.5",
        "2.0",
        "2.0",
    )
    rows = score_table(found).rows
    assert [row[0] for row in rows[:2]] == ["noisy", "before compression"]
    assert rows[1][1:] == ("0.800",) * 3 + ("2.00",) * 3
    titles = [table.title for table in compression_tables([found, record(pipeline="C2")])]
    assert titles[0] == "What compression reached"
    assert "Tensors of fdnn C2, seed 0" in titles
    gated = dataclasses.replace(NETS[0], kept=0.25)
    assert "net by net: 0.250." in size_table(record(nets=(gated,))).notes[0]


def test_a_pruned_net_beside_a_dense_one():
    (row,) = rival_table([record(rivals=(RIVAL,)), record(pipeline="C2")]).rows
    # 900 parameters that cannot be pruned, and the weights left.
    assert row[:6] == ("fdnn C1, seed 0", "iteration 1", "as small", "30", "950", "900")
    assert row[6:8] == ("0.791", "0.781")
    assert row[8].startswith("+0.0100 [")
    assert row[11].startswith("-0.030 [")
    titles = [table.title for table in compression_tables([record(rivals=(RIVAL,))])]
    assert titles[1] == "Pruned nets and dense ones"
    assert titles[1] not in [table.title for table in compression_tables([record()])]


def test_names_of_rivals():
    name = record(regularized=False, common_threshold=True).name
    assert name == "fdnn C1, no regulariser, one threshold"


def test_the_figure():
    assert rate_figure([record(), record(regularized=False)]).startswith(b"\x89PNG")
