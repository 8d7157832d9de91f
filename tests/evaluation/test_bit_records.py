"""Records of a search for bit widths: choice, round trip, tables and pictures."""

import dataclasses

import numpy as np
import pytest

from dynse.evaluation.bit_records import (
    BitRecord,
    Point,
    budget_scores,
    comparable,
    is_bit_record,
    load_bit_record,
    pooled_difference,
    save_bit_record,
    smallest_comparable,
)
from dynse.evaluation.bit_tables import front_table, record_points, taken_table, task_table
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
    sizes = [40, 10, 20, 30]
    assert smallest_comparable(sizes, scores, RIGHT, MARGINS) == 3  # at half of the mean's margin
    assert smallest_comparable(sizes, scores, RIGHT, (1.0, 2.0)) == 2
    assert smallest_comparable(sizes, scores, RIGHT, (1.0, 1.0)) == 3  # the low end is at -1.5
    assert smallest_comparable([1], wrong(50)[None], RIGHT, MARGINS) is None


def test_a_lucky_small_net_is_not_taken():
    """A net that beats the larger ones beside it is no better than they are on average."""
    scores = np.stack([wrong(0), wrong(3), wrong(3), wrong(0), wrong(0)])
    sizes = [10, 20, 30, 40, 50]
    wide = (1.0, 9.0)
    assert smallest_comparable(sizes[:1], scores[:1], RIGHT, wide) == 0
    # The first three are as good as one with (0 + 3 + 3) / 3 of 200 wrong: -1 point.
    assert smallest_comparable(sizes, scores, RIGHT, wide) == 3
    assert smallest_comparable(sizes, scores, RIGHT, (2.0, 9.0)) == 0


def test_too_few_groups_are_named():
    with pytest.raises(ValueError, match="at least two"):
        comparable(RIGHT, RIGHT, MARGINS, ["one"] * 200)


def test_budget_scores_against_a_walk_over_budgets():
    """For each of many budgets: the affordable net that validation likes best."""
    rng = np.random.default_rng(0)
    sizes = np.array([10.0, 17.0, 12.0, 30.0, 10.0])
    valid = rng.integers(0, 2, (5, 7)) * 100.0
    test = rng.uniform(0, 100, (5, 9))
    expected = np.zeros(9)
    budgets = np.linspace(10, 25, 15001)[:-1] + 0.0005  # the middle of each step
    for budget in budgets:
        affordable = [i for i in range(5) if sizes[i] <= budget]
        best = min(affordable, key=lambda i: (-valid[i].mean(), sizes[i], i))
        expected += test[best]
    found = budget_scores(sizes, valid, test, 10.0, 25.0)
    np.testing.assert_allclose(found, expected / len(budgets), rtol=1e-3)


def test_more_nets_alike_are_no_advantage():
    """Luck on the test split alone cannot be chosen: validation sees no difference."""
    rng = np.random.default_rng(1)
    test = rng.uniform(0, 100, (50, 20))
    valid = np.full((50, 30), 70.0)
    one = budget_scores([1.0], valid[:1], test[:1], 1.0, 2.0)
    many = budget_scores(np.linspace(1, 2, 50), valid, test, 1.0, 2.0)
    np.testing.assert_allclose(many, one)


def test_a_budget_that_no_net_keeps_to_is_named():
    with pytest.raises(ValueError, match=r"at most 1\.0, the smallest is 2\.0"):
        budget_scores([2.0], RIGHT[None], RIGHT[None], 1.0, 3.0)


def point(bits, size, score, tuned=None):
    return Point((bits,) * 17, size, 0.1 * bits, score, score, tuned, tuned)


@pytest.fixture
def record():
    homogeneous = tuple(point(bits, 10.0 * bits, 90.0 + bits, 91.0 + bits) for bits in range(2, 9))
    matrices = tuple(point(bits, 10.0 * bits, 90.5 + bits) for bits in range(2, 9))
    mixed = (point(3, 33.0, 97.0, 97.5), point(5, 44.0, 98.0), point(4, 45.0, 96.0))
    pair = (0.0, 1.0)
    return BitRecord(
        task="rows",
        seed=1,
        score_name="accuracy in %",
        margins=MARGINS,
        operations=tuple(f"op{i}" for i in range(17)),
        float_size_kb=320.0,
        float_test=99.0,
        points={"homogeneous": homogeneous, "matrices only": matrices, "mixed": mixed},
        taken={"homogeneous": 5, "matrices only": None, "mixed": 1},
        hypervolume=(1.0, 2.0),
        hypervolumes={
            "search": {"homogeneous": 2.0, "matrices only": 0.0, "mixed": 3.0},
            "test": {"homogeneous": 2.0, "matrices only": 4.0, "mixed": 1.0},
        },
        test_scores={
            "8 bit": (100.0, 0.0),
            "homogeneous": (100.0, 0.0),
            "mixed": (100.0, 100.0),
            "8 bit, tuned": (100.0, 100.0),
            "mixed, tuned": (100.0, 0.0),
        },
        budget_scores={"homogeneous": pair, "matrices only": pair, "mixed": (1.0, 2.0)},
        test_groups=None,
        config={"population": 4},
        fingerprint="abc",
        seconds={"search": 1.0, "genomes_per_s": 90.0},
        machine={"cpu": "x"},
        commit=None,
    )


def test_round_trip(record, tmp_path):
    path = save_bit_record(tmp_path / "a.json", record)
    assert is_bit_record(path)
    assert load_bit_record(path) == record
    grouped = dataclasses.replace(record, test_groups=("a", "b [c], d"))
    assert load_bit_record(save_bit_record(path, grouped)) == grouped
    assert '"hypervolume": [1.0, 2.0]' in path.read_text()


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "other"}', '{"kind": "bit search"}'])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"b\.json is no record of a search"):
        load_bit_record(path)


def cells(table):
    return dict(zip(table.header, table.rows[0], strict=True))


def test_tables_say_what_was_found(record):
    row = cells(taken_table([record]))
    assert row["homogeneous smaller by"] == "12 %"  # 70 of 80 kB, half to even
    assert row["matrices only smaller by"] == "-"
    assert row["mixed smaller by"] == "45 %"  # 44 of 80 kB
    assert row["mixed: fewer bit operations"] == "38 %"  # 0.5 of 0.8
    assert row["mixed against 8 bit"].startswith("+50.00")
    assert row["comparable"] == "yes"
    assert row["both fine-tuned"].startswith("-50.00")
    assert row["both fine-tuned"].endswith("no")
    none = cells(taken_table([dataclasses.replace(record, taken=dict.fromkeys(record.taken))]))
    assert none["mixed smaller by"] == none["comparable"] == "-"
    row = cells(front_table([record]))
    assert row["hypervolume over homogeneous, search"] == "1.500"
    assert row["over matrices only, search"] == "-"
    assert row["over matrices only, test"] == "0.250"
    assert row["against matrices only"].startswith("+1.00")


def test_seeds_are_pooled_by_sequence_where_they_share_their_data(record):
    scores = {**record.test_scores, "8 bit": (0.0, 0.0), "mixed": (100.0, 0.0)}
    one = dataclasses.replace(record, test_scores=scores)
    two = dataclasses.replace(
        record, seed=2, test_scores={**scores, "mixed": (0.0, 100.0)}, fingerprint="abc"
    )
    shared = pooled_difference([one, two], "mixed", "8 bit")
    assert (shared.mean, shared.low, shared.high, shared.count) == (50, 50, 50, 2)
    other = dataclasses.replace(two, fingerprint="def")
    apart = pooled_difference([one, other], "mixed", "8 bit")
    assert (apart.mean, apart.count) == (50, 4)
    assert apart.low < 50 < apart.high
    taken = {"homogeneous": None, "matrices only": None, "mixed": 1}
    row = cells(task_table([dataclasses.replace(one, taken=taken) for one in (one, two)]))
    assert row["seeds"] == "2"
    assert row["homogeneous smaller by"] == "-"
    assert row["mixed smaller by"] == "45 % (45 to 45)"


def test_a_seed_without_a_comparable_net_is_not_counted(record):
    without = dataclasses.replace(record, seed=2, taken={**record.taken, "mixed": None})
    row = cells(task_table([record, without]))
    assert row["seeds"] == "2"
    assert row["mixed smaller by"] == "45 % (45 to 45, 1 seeds)"


def test_pictures(record):
    points = record_points(record)
    assert set(points) == {
        "mixed",
        "homogeneous",
        "matrices only",
        "mixed, fine-tuned",
        "homogeneous, fine-tuned",
    }
    assert points["homogeneous"].labels == tuple("2345678")
    # 45 kB is worse than 44 kB on the validation split: not part of the curve.
    np.testing.assert_array_equal(points["mixed"].size_kb, [33, 44])
    fronts = front_figure(
        {"rows": points},
        scores={"rows": "accuracy"},
        floats={"rows": 99.0},
        chosen={"rows": (44.0, 98.0)},
    )
    genomes = np.array([p.genome for p in record.points["homogeneous"]])
    bits = bits_figure({"rows": genomes}, record.operations)
    volume = hypervolume_figure({"rows": [np.array([1.0, 2.0])]})
    for png in (fronts, bits, volume):
        assert png.startswith(b"\x89PNG")


def test_like_genomes_stand_side_by_side():
    a, b = np.full(17, 2), np.full(17, 8)
    order = cluster_order(np.stack([a, b, a, b, a]))
    kinds = np.array([0, 1, 0, 1, 0])[order]
    assert np.abs(np.diff(kinds)).sum() == 1
