import jax
import numpy as np
import pytest

from dynse.gating.controls import shuffled_gates
from dynse.gating.statistics import gather_statistics, kept_over_time, measure, slope_per_10_db

# Four frames; block 0 has two channels, block 1 one.
GATES = (np.array([[1, 0], [1, 0], [1, 1], [1, 0]]), np.array([[0], [1], [1], [0]]))
VOICE = np.array([False, True, True, False])


def test_one_utterance_by_hand():
    one = measure(GATES, VOICE, snr_db=5)
    assert one.frames == 4
    assert one.speech_frames == 2
    assert one.snr_db == 5
    assert one.kept == pytest.approx(7 / 12)
    np.testing.assert_allclose(one.kept_per_block, [5 / 8, 2 / 4])
    assert one.kept_speech == pytest.approx(5 / 6)
    assert one.kept_pauses == pytest.approx(2 / 6)
    assert one.flips_per_frame == pytest.approx(4 / 9)
    # Channels open in 4, 1, 2 of 4 frames: 0, 2*1*3/12, 2*2*2/12.
    assert one.flips_per_frame_shuffled == pytest.approx((0 + 0.5 + 2 / 3) / 3)
    assert [count.tolist() for count in one.open_counts] == [[4, 1], [2]]
    np.testing.assert_allclose(kept_over_time(GATES), [[0.5, 0], [0.5, 1], [1, 1], [0.5, 0]])


def test_shuffled_flips_are_those_of_shuffling():
    rng = np.random.default_rng(0)
    gates = (np.repeat(rng.random((10, 6)) > 0.6, 5, axis=0).astype(np.float32),)
    one = measure(gates, np.ones(50, bool))
    shuffle = jax.jit(lambda key: shuffled_gates(key, [gates[0][None]]))
    drawn = [
        measure([g[0] for g in shuffle(key)], np.ones(50, bool))
        for key in jax.random.split(jax.random.key(0), 200)
    ]
    flips = [other.flips_per_frame for other in drawn]
    assert one.flips_per_frame_shuffled == pytest.approx(np.mean(flips), abs=0.01)
    assert one.flips_per_frame < 0.5 * one.flips_per_frame_shuffled


def test_a_set_of_utterances_by_hand():
    long = measure(GATES, VOICE, snr_db=0)
    short = measure([np.ones((2, 2)), np.zeros((2, 1))], [True, True], snr_db=10)
    both = gather_statistics([long, short], frame_rate_hz=50)
    assert both.kept == pytest.approx((7 + 4) / 18)
    np.testing.assert_allclose(both.kept_per_block, [9 / 12, 2 / 6])
    np.testing.assert_allclose(both.rates[0], [1, 0.5])
    np.testing.assert_allclose(both.rates[1], [2 / 6])
    assert both.kept_speech == pytest.approx((5 + 4) / 12)
    assert both.kept_pauses == pytest.approx(2 / 6)
    assert both.flips_per_frame == pytest.approx(4 / 12)
    assert both.switches_per_second == pytest.approx(50 * 4 / 12)
    assert both.snrs_db.tolist() == [0, 10]
    np.testing.assert_allclose(both.kept_by_snr, [7 / 12, 4 / 6])
    assert both.kept_slope_per_10_db == pytest.approx(4 / 6 - 7 / 12)
    assert both.utterances == (long, short)


def test_constant_gates_show():
    rng = np.random.default_rng(1)
    gates = np.zeros((1000, 8))
    gates[:, :3] = 1
    gates[::50, 3] = 1  # 2 %
    gates[:, 4] = rng.random(1000) > 0.5
    gates[:60, 5] = 1  # 6 %
    gates[:950, 6] = 1  # 95 % exactly
    statistics = gather_statistics([measure([gates], np.ones(1000, bool))])
    assert statistics.always_on == 3 / 8
    assert statistics.always_off == 2 / 8
    assert statistics.varying == 3 / 8
    frozen = gather_statistics([measure([gates[:, :3]], np.ones(1000, bool))])
    assert frozen.varying == frozen.flips_per_frame == frozen.flips_per_frame_shuffled == 0


def test_slope_against_polyfit():
    rng = np.random.default_rng(2)
    snr_db = rng.choice([-5.0, 0, 5, 10, 15], 40)
    kept = 0.3 - 0.004 * snr_db + rng.normal(0, 0.01, 40)
    expected = 10 * np.polyfit(snr_db, kept, 1)[0]
    assert slope_per_10_db(snr_db, kept) == pytest.approx(expected)
    with_unknown = slope_per_10_db([*snr_db, np.nan], [*kept, 0.9])
    assert with_unknown == pytest.approx(expected)


def test_what_is_missing_is_nan():
    one = measure([np.ones((1, 2))], [True])
    assert np.isnan([one.snr_db, one.kept_pauses, one.flips_per_frame]).all()
    alone = gather_statistics([one])
    assert np.isnan([alone.kept_pauses, alone.kept_slope_per_10_db, alone.flips_per_frame]).all()
    assert alone.snrs_db.size == alone.kept_by_snr.size == 0
    # And it does not spoil those who have it.
    both = gather_statistics([one, measure([np.ones((3, 2))], [True, False, True])])
    assert both.kept_pauses == 1
    assert both.flips_per_frame == 0


@pytest.mark.parametrize(
    ("gates", "voice", "message"),
    [
        ([np.ones((3, 2))], np.ones(4, bool), r"\(4, channels\), got \(3, 2\)"),
        ([np.ones((1, 3, 2))], np.ones(3, bool), r"got \(1, 3, 2\)"),
        ([np.full((3, 2), 0.5)], np.ones(3, bool), "exact zeros and ones"),
        ([np.full((3, 2), np.nan)], np.ones(3, bool), "exact zeros and ones"),
        ([np.ones((0, 2))], np.ones(0, bool), "at least one frame"),
    ],
)
def test_wrong_gates_are_refused(gates, voice, message):
    with pytest.raises(ValueError, match=message):
        measure(gates, voice)
    with pytest.raises(ValueError, match="at least one utterance"):
        gather_statistics([])
