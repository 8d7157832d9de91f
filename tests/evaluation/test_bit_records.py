"""Records of a search for bit widths: choice, round trip, tables and pictures."""

import dataclasses

import numpy as np
import pytest

from dynse.evaluation.bit_records import (
    BitRecord,
    Point,
    comparable,
    hypervolume_table,
    is_bit_record,
    load_bit_record,
    record_points,
    save_bit_record,
    smallest_comparable,
    taken_table,
)
from dynse.evaluation.fronts import bits_figure, cluster_order, front_figure, hypervolume_figure

RIGHT = np.full(200, 100.0)
MARGINS = (0.5, 2.0)


def wrong(count):
    scores = RIGHT.copy()
    scores[:count] = 0
    return scores


def test_comparable_needs_the_mean_and_the_low_end():
    assert comparable(wrong(1), RIGHT, MARGINS)[0]  # -0.5 points, low end -1.5
    assert not comparable(wrong(2), RIGHT, MARGINS)[0]  # the mean alone is too low
    few = RIGHT[:20].copy()
    spread = few.copy()
    spread[:10], few[10:] = 0, 0  # equal on average, far apart in pairs
    assert not comparable(spread, few, MARGINS)[0]
    assert comparable(spread, few, MARGINS)[1].mean == 0


def test_groups_widen_the_interval():
    """Errors that come in whole recordings say less than as many on their own."""
    groups = [str(index // 20) for index in range(200)]
    alone = comparable(wrong(20), RIGHT, (100, 100))[1]
    together = comparable(wrong(20), RIGHT, (100, 100), groups)[1]
    assert together.mean == alone.mean
    assert together.low < alone.low


def test_the_smallest_comparable_net_is_taken():
    scores = np.stack([wrong(0), wrong(50), wrong(1), wrong(0)])
    assert smallest_comparable([40, 10, 20, 30], scores, RIGHT, MARGINS) == 2
    assert smallest_comparable([1], wrong(50)[None], RIGHT, MARGINS) is None


def point(bits, size, score, tuned=None):
    return Point((bits,) * 17, size, 0.1, score, score, tuned)


@pytest.fixture
def record():
    homogeneous = tuple(point(bits, 10.0 * bits, 90.0 + bits) for bits in range(2, 9))
    return BitRecord(
        task="rows",
        seed=1,
        score_name="accuracy in %",
        margins=MARGINS,
        operations=tuple(f"op{i}" for i in range(17)),
        float_size_kb=320.0,
        float_test=99.0,
        homogeneous=homogeneous,
        front=(point(3, 33.0, 97.0, 97.5), point(5, 44.0, 98.0)),
        taken=1,
        hypervolume=(1.0, 2.0),
        hypervolumes={
            split: {"homogeneous": 2.0, "mixed": 3.0 if split == "valid" else 1.0}
            for split in ("valid", "test")
        },
        test_scores={"8 bit": (100.0, 0.0), "taken": (100.0, 100.0), "float": (0.0, 0.0)},
        test_groups=None,
        config={"population": 4},
        fingerprint="abc",
        seconds={"search": 1.0},
        machine={"cpu": "x"},
        commit=None,
    )


def test_round_trip(record, tmp_path):
    path = save_bit_record(tmp_path / "a.json", record)
    assert is_bit_record(path)
    loaded = load_bit_record(path)
    assert loaded == record


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "other"}', '{"kind": "bit search"}'])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"b\.json is no record of a search"):
        load_bit_record(path)


def test_tables_say_what_was_found(record):
    row = dict(zip(taken_table([record]).header, taken_table([record]).rows[0], strict=True))
    assert row["smaller by"] == "45 %"  # 44 of 80 kB
    assert row["mixed against 8 bit"].startswith("+50.00")
    assert row["fine-tuned against 8 bit"] == "-"
    none = taken_table([dataclasses.replace(record, taken=None)]).rows[0]
    assert "none" in none
    assert hypervolume_table([record]).rows[0][4::3] == ("1.500", "0.500")


def test_pictures(record):
    points = record_points(record)
    assert set(points) == {"mixed", "homogeneous", "mixed, fine-tuned"}
    assert points["homogeneous"].labels == tuple("2345678")
    fronts = front_figure(
        {"rows": points},
        scores={"rows": "accuracy"},
        floats={"rows": 99.0},
        chosen={"rows": (44.0, 98.0)},
    )
    genomes = np.array([p.genome for p in (*record.front, *record.homogeneous)])
    bits = bits_figure({"rows": genomes}, record.operations)
    volume = hypervolume_figure({"rows": [np.array([1.0, 2.0])]})
    for png in (fronts, bits, volume):
        assert png.startswith(b"\x89PNG")


def test_like_genomes_stand_side_by_side():
    a, b = np.full(17, 2), np.full(17, 8)
    order = cluster_order(np.stack([a, b, a, b, a]))
    kinds = np.array([0, 1, 0, 1, 0])[order]
    assert np.abs(np.diff(kinds)).sum() == 1
