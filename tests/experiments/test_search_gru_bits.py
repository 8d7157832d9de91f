"""The smoke preset of the search for bit widths, from data to the report."""

import pytest

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
    assert [point.genome for point in record.homogeneous] == [(b,) * 17 for b in range(2, 9)]
    sizes = [point.size_kb for point in record.front]
    assert sizes == sorted(sizes)
    # The front holds nothing that a homogeneous point beats where the search looked.
    for point in record.front:
        assert not any(
            h.size_kb < point.size_kb and h.valid > point.valid for h in record.homogeneous
        )
    assert record.hypervolumes["valid"]["mixed"] >= record.hypervolumes["valid"]["homogeneous"]
    assert any(point.finetuned is not None for point in record.front)
    text = (arguments.run_dir / "report.md").read_text()
    for title in ("smallest net comparable", "Mixed against homogeneous", "Bits of every"):
        assert title in text


def test_a_second_start_does_nothing_again(run):
    bits, arguments, records = run
    path = arguments.run_dir / "records" / "rows-seed0.json"
    before = path.stat().st_mtime_ns
    assert bits.main(arguments) == records
    assert path.stat().st_mtime_ns == before


def test_make_tables_reads_the_records(run, script):
    _, arguments, _ = run
    tables = script("make_tables")
    text = tables.main(tables.Arguments(records=arguments.run_dir / "records"))
    assert "smallest net comparable" in text


def test_wrong_arguments_are_named(run, tmp_path):
    bits = run[0]
    with pytest.raises(SystemExit, match="needs --corpus"):
        bits.main(bits.Arguments(preset="mini", run_dir=tmp_path))
    with pytest.raises(SystemExit, match="no task 'row'; the preset has rows"):
        bits.main(bits.Arguments(preset="smoke", tasks=("row",), run_dir=tmp_path))
