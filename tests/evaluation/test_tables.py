import csv
import io

import pytest

from dynse.evaluation.scores import RunRecord, UtteranceScore
from dynse.evaluation.tables import (
    Table,
    difference_table,
    quality_table,
    snr_table,
    utterance_values,
)

NAN = float("nan")


def run(net, pesq, *, seed=0, corpus="dynse-mini", test_set_hash="cd" * 8):
    """Four utterances, two speakers, at -5 and 5 dB; NaN means that the metric failed."""
    utterances = tuple(
        UtteranceScore(
            f"u{index}",
            {"pesq": value, "si_sdr": 10 * value},
            {"pesq": "NoUtterancesError"} if value != value else {},
            {"snr_db": (-5, 5)[index % 2], "speaker": "ab"[index // 2]},
        )
        for index, value in enumerate(pesq)
    )
    return RunRecord(net, corpus, "ab", "test v1", test_set_hash, utterances, seed=seed)


NOISY = run("noisy", [1.0, 1.2, 1.1, 1.3])
DENSE = run("dense", [1.5, 1.7, NAN, 1.8])
METRICS = ("pesq", "si_sdr")


def cells(table, net):
    return dict(zip(table.header, next(row for row in table.rows if row[0] == net), strict=True))


def test_quality_by_net():
    table = quality_table([NOISY, DENSE], metrics=METRICS)
    assert table.header == ("net", "seeds", "PESQ", "SI-SDR dB")
    assert cells(table, "noisy")["PESQ"].startswith("1.15 [1.")
    assert cells(table, "dense")["PESQ"].startswith("1.67 [1.5")
    assert any("PESQ of dense: missing for 1 of 4" in note for note in table.notes)
    assert any("NoUtterancesError (1)" in note for note in table.notes)
    assert "4 utterances" in table.notes[0]
    assert not any("synthetic" in note for note in table.notes)
    # SI-SDR did not fail by name, so it has no note, though its value is missing.
    assert not any(note.startswith("SI-SDR") for note in table.notes)


def test_pesq_on_synthetic_speech_is_marked():
    table = quality_table([run("noisy", [1.0, 1.2], corpus="synthetic")], metrics=METRICS)
    assert "PESQ †" in table.header
    assert any("is no criterion" in note for note in table.notes)
    without = quality_table([run("noisy", [1.0], corpus="synthetic")], metrics=("si_sdr",))
    assert not any("is no criterion" in note for note in without.notes)


def test_seeds_are_averaged_per_utterance():
    runs = [run("dense", [1.0, 2.0, NAN, NAN]), run("dense", [2.0, 3.0, 4.0, NAN], seed=1)]
    values = utterance_values(runs, "pesq")
    assert values["u0"] == 1.5
    assert values["u2"] == 4.0
    assert values["u3"] != values["u3"]
    assert cells(quality_table(runs, metrics=METRICS), "dense")["seeds"] == "2"


def test_by_snr():
    table = snr_table([NOISY, DENSE], "pesq")
    assert table.header == ("net", "-5 dB", "5 dB")
    assert cells(table, "noisy")["-5 dB"] == "1.05 [1.00, 1.10]"
    assert cells(table, "dense")["-5 dB"] == "1.50"
    assert cells(table, "dense")["5 dB"] == "1.75 [1.70, 1.80]"


def test_differences_are_paired():
    table = difference_table([NOISY, DENSE], "noisy", metrics=METRICS)
    assert [row[0] for row in table.rows] == ["dense"]
    # The mean of .5, .5 and .5: the utterance that failed is out on both sides.
    assert cells(table, "dense")["PESQ"] == "+0.500 [+0.500, +0.500]"
    assert cells(table, "dense")["pairs"] == "3"


def test_differences_are_of_the_seeds_that_both_have():
    dense = [run("dense", [1.0] * 4, seed=0), run("dense", [3.0] * 4, seed=1)]
    gated = [run("gated", [1.5] * 4, seed=0), run("gated", [9.0] * 4, seed=2)]
    row = cells(difference_table([*dense, *gated], "dense", metrics=("pesq",)), "gated")
    assert (row["seeds"], row["PESQ"]) == ("1", "+0.500 [+0.500, +0.500]")
    # What has no seed is compared with all.
    row = cells(difference_table([run("noisy", [1.0] * 4, seed=None), *dense], "dense"), "noisy")
    assert (row["seeds"], row["PESQ"]) == ("1", "-1.000 [-1.000, -1.000]")


def test_groups_are_resampled_as_a_whole():
    records = [run("noisy", [1.0, 1.0, 3.0, 3.0])]
    grouped = quality_table(records, metrics=("pesq",), group_by="speaker")
    assert grouped.rows[0][2] == "2.00 [1.00, 3.00]"
    assert "groups (speaker)" in grouped.notes[0]
    with pytest.raises(ValueError, match="u0 of noisy has no attribute 'room'"):
        quality_table(records, metrics=("pesq",), group_by="room")


def test_other_test_sets_do_not_mix():
    other = run("dense", [1.0], test_set_hash="ef" * 8)
    with pytest.raises(ValueError, match="must share their test set"):
        quality_table([NOISY, other])
    with pytest.raises(ValueError, match="at least one run record"):
        quality_table([])
    with pytest.raises(ValueError, match="one of noisy, dense; got 'narrow'"):
        difference_table([NOISY, DENSE], "narrow")


def test_markdown_and_csv():
    table = Table("T", ("net", "a,b"), (("x|y", '1 "q"'), ("<b>", "2\n3")), ("A <note>.",))
    lines = table.markdown().splitlines()
    assert lines[:4] == ["| net | a,b |", "| --- | ---: |", '| x\\|y | 1 "q" |', "| &lt;b> | 2 3 |"]
    assert lines[-1] == "A &lt;note>."
    read = list(csv.reader(io.StringIO(table.csv())))
    assert read == [["net", "a,b"], ["x|y", '1 "q"'], ["<b>", "2\n3"]]
    with pytest.raises(ValueError, match="expected 2 cells, got 1"):
        Table("T", ("a", "b"), (("1",),))
