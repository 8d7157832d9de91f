"""The smoke preset of the search for bit widths, from data to the report."""

import dataclasses
import shutil

import pytest

from dynse.data.sequences import row_digits
from dynse.evaluation.bit_records import load_bit_record


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bits")
    bits = script("search_gru_bits")
    arguments = bits.Arguments(preset="smoke", run_dir=folder, cache_dir=folder / "cache")
    return bits, arguments, bits.main(arguments)


def test_a_record_and_a_report(run):
    _, arguments, records = run
    record = load_bit_record(arguments.run_dir / "records" / "rows-seed0.json")
    assert record == records[0]
    homogeneous, matrices = record.points["homogeneous"], record.points["matrices only"]
    assert [point.genome for point in homogeneous] == [(b,) * 17 for b in range(2, 9)]
    assert [point.genome[:6] for point in matrices] == [(b,) * 6 for b in range(2, 9)]
    assert {point.genome[6:] for point in matrices} == {(8,) * 11}
    # Only the matrices have a say in the size.
    assert [p.size_kb for p in matrices] == [p.size_kb for p in homogeneous]
    sizes = [point.size_kb for point in record.points["mixed"]]
    assert sizes == sorted(set(sizes))
    assert all(point.tuned_test is not None for point in homogeneous)
    assert set(record.budget_scores) == {"homogeneous", "matrices only", "mixed"}
    assert len(record.budget_scores["mixed"]) == len(record.test_scores["float"]) == 359
    text = (arguments.run_dir / "report.md").read_text()
    for title in (
        "Taken, over seeds",
        "smallest nets comparable",
        "mixed front against",
        "Bits of every",
    ):
        assert title in text


def test_a_second_start_does_nothing_again(run):
    bits, arguments, records = run
    path = arguments.run_dir / "records" / "rows-seed0.json"
    before = path.stat().st_mtime_ns
    assert bits.main(arguments) == records
    assert path.stat().st_mtime_ns == before


def test_other_data_are_no_second_start(run, monkeypatch):
    """A folder whose data have changed is refused, not reported as if nothing had happened."""
    bits, arguments, _ = run
    monkeypatch.setattr(bits, "row_digits", lambda seed: row_digits(seed + 1))
    with pytest.raises(ValueError, match=r"another configuration \(different: data\)"):
        bits.main(arguments)


@pytest.mark.slow
def test_bit_operations_are_a_third_objective_and_need_no_new_float_net(run):
    bits, arguments, records = run
    again = dataclasses.replace(
        arguments, bit_operations=True, finetuned=0, run_dir=arguments.run_dir.parent / "three"
    )
    shutil.copytree(
        arguments.run_dir / "rows-seed0" / "checkpoints",
        again.run_dir / "rows-seed0" / "checkpoints",
    )
    (found,) = bits.main(again)
    assert found.test_scores["float"] == records[0].test_scores["float"]
    mixed = found.points["mixed"]
    assert min(p.mega_bit_operations for p in mixed) < records[0].reference.mega_bit_operations


def test_make_tables_reads_the_records(run, script):
    _, arguments, _ = run
    tables = script("make_tables")
    text = tables.main(tables.Arguments(records=arguments.run_dir / "records"))
    assert "smallest nets comparable" in text


def test_wrong_arguments_are_named(run, tmp_path):
    bits = run[0]
    with pytest.raises(SystemExit, match="needs --corpus"):
        bits.main(bits.Arguments(preset="mini", run_dir=tmp_path))
    with pytest.raises(SystemExit, match="no task 'row'; the preset has rows"):
        bits.main(bits.Arguments(preset="smoke", tasks=("row",), run_dir=tmp_path))
