"""Differences by seed and by noise."""

import dataclasses

import numpy as np
import pytest

from dynse.evaluation.scores import RunRecord, UtteranceScore
from dynse.evaluation.split_tables import noise_table, seeds_table


def run(net, pesq, seed=0, stationary=None):
    """Of four mixtures, two at -5 and two at 5 dB; `stationary` says which noises are."""
    utterances = [
        UtteranceScore(f"u{index}", {"pesq": value}, {}, {"snr_db": (-5, 5)[index // 2]})
        for index, value in enumerate(pesq)
    ]
    if stationary is not None:
        utterances = [
            dataclasses.replace(
                one, attributes={**one.attributes, "nonstationarity_db": 2.0 if still else 6.0}
            )
            for one, still in zip(utterances, stationary, strict=True)
        ]
    return RunRecord(net, "c", "ab", "test v1", "cd", tuple(utterances), seed=seed)


def rows(table):
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_seeds_stand_beside_each_other():
    dense = [run("dense", np.full(4, 1.5 + 0.1 * seed), seed) for seed in (0, 1)]
    gated = [run("gated", np.full(4, 1.6), 0), run("gated", np.full(4, 1.63), 1)]
    other = [run("other", np.full(4, 2.0), 7)]
    noisy = [run("noisy", np.ones(4), None)]
    first, second, third = rows(seeds_table([*noisy, *dense, *gated, *other], "dense", "pesq"))
    assert (first["seed 0"], first["seed 1"], first["seed 7"]) == ("1.500", "1.600", "-")
    assert first["spread"] == f"{0.1 / 2**0.5:.3f}"
    assert (second["to dense, seed 0"], second["to dense, seed 1"]) == ("+0.100", "+0.030")
    assert second["spread of that"] == f"{0.07 / 2**0.5:.3f}"
    # A seed that dense was not trained with has nothing to be compared with.
    assert (third["seed 7"], third["to dense, seed 7"], third["spread"]) == ("2.000", "-", "-")
    # A reference without seeds is no partner of any.
    assert rows(seeds_table([*noisy, *dense], "noisy", "pesq"))[0]["to noisy, seed 0"] == "-"
    with pytest.raises(ValueError, match="two records of dense are of one seed"):
        seeds_table([*dense, dense[0]], "dense", "pesq")


def test_noise_is_told_by_one_record_for_all():
    noisy = run("noisy", np.ones(4), None, stationary=[True, False, True, False])
    dense, gated = run("dense", np.full(4, 1.5)), run("gated", [1.4, 1.7, 1.5, 1.8])
    found = rows(noise_table([noisy, dense, gated], "dense", "pesq"))
    still, moving = [row for row in found if row["net"] == "gated"]
    assert (still["noise"], still["-5 dB"], still["5 dB"]) == ("stationary", "-0.100", "+0.000")
    assert (moving["-5 dB"], moving["5 dB"], moving["mixtures"]) == ("+0.200", "+0.300", "2")
    assert moving["all"].startswith("+0.250 [")
    with pytest.raises(ValueError, match="reference must be one of noisy, dense"):
        noise_table([noisy, dense], "dens", "pesq")
    with pytest.raises(ValueError, match="how stationary the noise of u0 is"):
        noise_table([dense, gated], "dense", "pesq")
