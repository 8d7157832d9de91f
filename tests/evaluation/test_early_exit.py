"""Tables and figures of nets with exits, on made-up records and nets."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exits.toy import Toy
from PIL import Image

from dynse.audio.stft import STFT
from dynse.evaluation.exit_figures import CostCurve, cost_figure, taken_figure
from dynse.evaluation.exit_policies import exit_macs, frame_errors
from dynse.evaluation.exit_tables import (
    JUMP,
    JUMP_CHEAPEST,
    click_table,
    depth_table,
    exit_entries,
    exit_table,
    exit_tables,
    goal_table,
    line_values,
    policy_entries,
    policy_table,
    seed_table,
    share_table,
    skipped_table,
    static_table,
)
from dynse.evaluation.scores import RunRecord, UtteranceScore
from dynse.evaluation.statistics import mean_interval

COUNT = 6
BASE = np.linspace(1.2, 2.2, COUNT)


def record(name, mmac_per_s, offset, seed=0, **config):
    """PESQ lies `offset` above a base that differs by utterance; ESTOI and SI-SDR follow it."""
    scores = [
        UtteranceScore(
            f"u{index}",
            {
                "pesq": base + offset,
                "stoi": 0.9,
                "estoi": 0.7 + offset / 10,
                "si_sdr": 5 + offset,
                "active_macs_per_s": 1e6 * mmac_per_s,
                "share_fc1": 0.25,
                "share_gru1": 0.75,
            },
        )
        for index, base in enumerate(BASE)
    ]
    cost = {"params": 1000} if "exit" in config else {}
    return RunRecord(name, "mini", "0" * 8, "test", "1" * 8, tuple(scores), config, seed, cost)


def exits(net, offsets, seed=0):
    costs = {"fc1": 10.0, "gru1": 50.0, "full": 100.0}
    return [
        record(f"{net}, {name}", costs[name], offset, seed, exit=name)
        for name, offset in offsets.items()
    ]


def policy(level, cost, offset, states="held"):
    name = f"joint, threshold {level}" + ("" if states == "held" else f" {states}")
    return record(name, cost, offset, policy="threshold", level=level, states=states)


RECORDS = [
    # Two seeds, whose mean counts; out of order, as a folder may be.
    *exits("joint", {"full": 0.58, "fc1": 0.1, "gru1": 0.3}),
    *exits("joint", {"full": 0.62, "fc1": 0.1, "gru1": 0.3}, seed=1),
    *exits("alone", {"fc1": 0.1, "gru1": 0.35, "full": 0.61}),
    *exits("sunk", {"fc1": 0.2, "gru1": 0.1}),
]


def rows(table):
    return {row[:2]: row for row in table.rows}


def test_exits_come_by_net_and_cost():
    nets = exit_entries([*RECORDS, policy(30, 30.0, 0.2)])
    assert {net: list(found) for net, found in nets.items()} == {
        "joint": ["fc1", "gru1", "full"],
        "alone": ["fc1", "gru1", "full"],
        "sunk": ["fc1", "gru1"],
    }
    assert len(nets["joint"]["full"].runs) == 2
    table = rows(exit_table(RECORDS))
    assert table["joint", "gru1"][2:5] == ("1,000", "50.00", "2")
    assert table["alone", "full"][5].startswith("2.31 [")


def test_differences_to_static_nets_and_between_exits():
    static = rows(static_table(RECORDS))
    assert set(static) == {(net, e) for net in ("joint", "sunk") for e in ("fc1", "gru1")} | {
        ("joint", "full")
    }
    assert static["joint", "gru1"][2:4] == ("50.00", "-0.050 [-0.050, -0.050]")
    # Of the one seed that both have.
    assert static["joint", "full"][3] == "-0.030 [-0.030, -0.030]"
    depth = rows(depth_table(RECORDS))
    assert depth["joint", "full - gru1"][2] == "+0.300 [+0.300, +0.300]"
    assert depth["sunk", "gru1 - fc1"][2] == "-0.100 [-0.100, -0.100]"


def test_an_exit_is_compared_at_its_own_cost():
    """Half way between the costs of two static nets it has to be half way in quality."""
    cheap = [
        record("divided, fc1", 5.0, 0.12, exit="fc1"),  # cheaper than the cheapest: that one
        record("divided, gru1", 30.0, 0.2, exit="gru1"),
    ]
    found = rows(static_table([*RECORDS, *cheap]))
    assert found["divided", "fc1"][3] == "+0.020 [+0.020, +0.020]"
    assert found["divided", "gru1"][3] == "-0.025 [-0.025, -0.025]"


def test_seeds_side_by_side():
    one = exits("alone", {"fc1": 0.1, "gru1": 0.35, "full": 0.61}, seed=1)
    table = seed_table([*RECORDS, *one])
    assert table.header == ("net", "exit", "seed 0", "seed 1", "spread")
    assert table.rows[2] == ("joint", "full", "-0.030", "+0.010", "0.028")
    assert seed_table(RECORDS).rows == ()


def test_goals():
    found = {row[0]: row[1:] for row in goal_table(RECORDS).rows}
    assert found["joint"] == ("yes", "-0.050 [-0.050, -0.050]", "gru1")
    assert found["sunk"] == ("no", "-0.250 [-0.250, -0.250]", "gru1")
    assert found["alone"] == ("yes", "-", "-")
    one = list(goal_table(exits("lone", {"fc1": 0.1})).rows)
    assert one == [("lone", "-", "-", "-")]


@pytest.mark.parametrize(
    ("cost", "offset"), [(30, 0.2), (50, 0.3), (75, 0.45), (5, 0.1), (120, 0.6)]
)
def test_the_line_between_the_fixed_exits(cost, offset):
    fixed = list(exit_entries(RECORDS)["joint"].values())
    (entry,) = policy_entries([policy(cost, float(cost), 0.0)])
    np.testing.assert_allclose(line_values(entry, fixed, "pesq"), BASE + offset, rtol=1e-12)


def test_policies_stand_above_below_or_on_the_line():
    records = [
        *RECORDS,
        policy(30, 30.0, 0.25),
        policy(75, 75.0, 0.40),
        policy(76, 75.0, 0.44, states="refreshed"),  # of the one seed that both have
        policy(75, 75.0, 0.47, states="held in whole net"),
    ]
    found = {row[0]: row for row in policy_table(records).rows}
    assert set(found) == {"threshold 30", "threshold 75", "threshold 76 refreshed"}
    assert found["threshold 30"][1] == "30.00"
    assert found["threshold 30"][5] == "+0.050 [+0.050, +0.050]"
    assert [row[-1] for row in found.values()][:2] == ["yes", "no"]
    assert found["threshold 76 refreshed"][5].startswith(("+0.000", "-0.000"))
    assert share_table(records).rows[0] == ("threshold 30", "0.250", "0.750", "-")
    prices = skipped_table(records).rows
    assert [row[:2] for row in prices] == [("threshold 75", "held")]
    assert prices[0][3] == "-0.070 [-0.070, -0.070]"


def test_without_exits_or_policies_tables_are_empty():
    assert exit_table([]).rows == static_table([]).rows == policy_table(RECORDS).rows == ()


def test_clicks():
    switching = policy(0, 50.0, 0.1)
    jumps = (0.1, 0.2, 0.4, 0.4, 1.05, 1.2)
    scores = [
        dataclasses.replace(score, values={**score.values, JUMP: jump, JUMP_CHEAPEST: 1.1})
        for score, jump in zip(switching.utterances, jumps, strict=True)
    ]
    switching = dataclasses.replace(switching, utterances=tuple(scores))
    table = click_table([*RECORDS, policy(30, 30.0, 0.2), switching])
    assert table.rows == (("joint", "6", "2", "0.400", "1.200", "6", "1.100", "1.100", "1"),)
    titles = [table.title for table in exit_tables([*RECORDS, switching])]
    assert titles[0] == "Every exit"
    assert titles[-1] == "A budget changed ten times a second"
    assert "What skipped states cost" not in titles


def test_errors_of_the_oracle():
    stft = STFT(64, 64, 32)
    draw = np.random.default_rng(0)
    clean = draw.normal(size=(1, 640)).astype(np.float32)
    noisy = clean + draw.normal(size=(1, 640)).astype(np.float32)
    spectrum, target = stft.forward(jnp.asarray(noisy)), stft.forward(jnp.asarray(clean))
    ideal = jnp.abs(target) / jnp.abs(spectrum)
    errors = frame_errors([jnp.ones_like(ideal), ideal], spectrum, clean, stft)
    assert errors.shape == (1, stft.frames(640), 2)
    assert float(errors[..., 1].max()) < 1e-8 < float(errors[..., 0].min())
    # A level is no error.
    louder = frame_errors([jnp.ones_like(ideal)], 10 * spectrum, 10 * clean, stft)
    np.testing.assert_allclose(louder[..., 0], errors[..., 0], rtol=1e-4)
    assert exit_macs(Toy()).total.tolist() == [11, 112, 1113]
    assert jax.tree.leaves(errors)[0].dtype == jnp.float32


def test_figures():
    def pixels(png):
        with Image.open(io.BytesIO(png)) as image:
            return np.asarray(image.convert("RGB"))

    intervals = [mean_interval(BASE + offset) for offset in (0, 0.3)]
    curve = CostCurve([10, 50], {"pesq": intervals})
    options = {"metrics": {"pesq": "PESQ"}, "levels": {"noisy": {"pesq": 1.2}}}
    one = pixels(cost_figure({"joint": curve}, **options))
    two = pixels(cost_figure({"joint": curve._replace(dashed=True)}, **options))
    assert (one != two).any()

    noisy = np.random.default_rng(0).normal(size=4000)
    stft = STFT()
    index = np.zeros(stft.frames(4000), int)
    index[::3] = 1
    names = ("fc1", "gru1")
    steps = pixels(taken_figure(noisy, {"budget": (noisy, index)}, names))
    flat = pixels(taken_figure(noisy, {"budget": (noisy, 0 * index)}, names))
    assert steps.shape == flat.shape
    assert (steps != flat).mean() > 0.01
    with pytest.raises(ValueError, match=r"budget: expected \(4000,\) and \(17,\)"):
        taken_figure(noisy, {"budget": (noisy, index[1:])}, names)
