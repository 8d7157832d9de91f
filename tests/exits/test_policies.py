"""Policies against plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.exits import Budget, ExitCosts, Fixed, Frame, Threshold

# nsNet2's MACs per frame, and those of a second at 62.5 frames.
MACS = (205_600, 1_165_600, 2_125_600, 2_777_000)
PER_S = [62.5 * macs for macs in MACS]


def run(policy, controls, gains, macs=MACS):
    """Exits (T, B) for gains (T, B, E, F), controls (T, ...) by frame."""

    @jax.jit
    def scan(controls, gains):
        def one(state, inputs):
            control, gain = inputs
            frame = Frame(ExitCosts(macs), gain[:, 0], gain)
            return policy.choose(control, state, frame)

        return jax.lax.scan(one, policy.init(gains.shape[1]), (controls, gains))[1]

    return np.asarray(scan(controls, jnp.asarray(gains, jnp.float32)))


def seconds(macs):
    """MACs (T,) of every second that begins or ends with a frame or in its middle: 125 halves."""
    halves = np.repeat(np.asarray(macs, np.int64), 2)
    total = np.concatenate([[0], np.cumsum(halves)])
    return (total[125:] - total[:-125]) / 2


def greedy(limits, wanted=None, macs=MACS):
    """The budget's exits in plain Python, one row: every later second is laid out and summed.

    What is wanted is given, or saved up for.
    """
    exits, spent, saved = [], [0] * 63, 0
    for frame, limit in enumerate(limits):
        cheapest = macs.index(min(macs))
        limit = int(limit * (1 + 1e-6))
        steady = max((i for i in range(len(macs)) if 62.5 * macs[i] <= limit), default=cheapest)
        taken, deeper = cheapest, min(steady + 1, len(macs) - 1)
        saved += int(limit / 62.5)
        alternate = deeper if saved >= macs[deeper] else steady
        want = wanted[frame] if wanted else alternate
        for index in range(want, -1, -1):
            future = [*spent[-63:], macs[index], *[macs[steady]] * 63]
            # Seconds that lie in the past altogether cannot be helped.
            if max(seconds(future)[2:]) <= limit:
                taken = index
                break
        exits.append(taken)
        spent.append(macs[taken])
        saved = min(max(saved - macs[taken], 0), macs[deeper])
    return exits


def test_fixed_is_fixed():
    gains = np.zeros((3, 2, 4, 1))
    np.testing.assert_array_equal(run(Fixed(2), (), gains), np.full((3, 2), 2))


def test_threshold_goes_on_while_the_gain_changes():
    draw = np.random.default_rng(0)
    gains = np.cumsum(draw.normal(size=(40, 3, 5, 6)) * 0.2, axis=2)
    limits = np.tile([0.1, 0.15, 0.2], (40, 1))
    exits = run(Threshold(), {"change": jnp.asarray(limits, jnp.float32)}, gains)
    for frame in range(40):
        for row in range(3):
            index = 1
            while index < 4:
                change = np.abs(gains[frame, row, index] - gains[frame, row, index - 1]).mean()
                if change <= limits[frame, row]:
                    break
                index += 1
            assert exits[frame, row] == index
    assert set(exits.ravel()) == {1, 2, 3, 4}


def test_threshold_looks_at_no_gain_behind_the_exit_it_takes():
    gains = np.random.default_rng(0).uniform(size=(20, 1, 4, 6))
    controls = {"change": jnp.full(20, 0.3)}
    exits = run(Threshold(), controls, gains)
    hidden = gains.copy()
    for frame, index in enumerate(exits[:, 0]):
        hidden[frame, 0, index + 1 :] = np.nan
    np.testing.assert_array_equal(run(Threshold(), controls, hidden), exits)
    assert len(set(exits.ravel())) > 1
    # A change that is not a number is none: the first exit with something to compare is taken.
    assert (run(Threshold(), controls, np.full_like(gains, np.nan)) == 1).all()
    with pytest.raises(ValueError, match="expected at least 3 exits, got 2"):
        run(Threshold(), controls, gains[:, :, :2])


# A row each: below the cheapest; exactly an exit's own; between two; above all; and two changed.
STEADY = [0.5 * PER_S[0], PER_S[1], 90e6, 150e6, 200e6]
DOWN = [150e6] * 100 + [40e6] * 100
FLICKER = ([150e6] * 6 + [30e6] * 6) * 16 + [150e6] * 8


@pytest.fixture(scope="module")
def budgets():
    """Budgets (T, B) in MAC/s and what was taken under them, nothing being asked for."""
    limits = np.stack([*(np.full(200, limit) for limit in STEADY), DOWN, FLICKER], axis=1)
    gains = np.zeros((200, limits.shape[1], 4, 1))
    return limits, run(Budget(), {"mmac_per_s": jnp.asarray(limits / 1e6, jnp.float32)}, gains)


def test_budget_is_that_of_plain_python(budgets):
    limits, exits = budgets
    for row in range(limits.shape[1]):
        assert list(exits[:, row]) == greedy(limits[:, row]), row


def test_no_second_costs_more_than_the_budget_and_little_is_left(budgets):
    _, exits = budgets
    spent = [seconds(np.asarray(MACS)[exits[:, row]]) for row in range(len(STEADY))]
    for limit, own in zip(STEADY[1:4], spent[1:4], strict=True):
        assert own.max() <= limit * (1 + 1e-6)
        assert own.min() > 0.98 * limit
    np.testing.assert_array_equal(exits[:, 0], 0)
    # After a first second with nothing behind it to pay for.
    np.testing.assert_array_equal(exits[63:, 1], 1)
    np.testing.assert_array_equal(exits[:, 4], 3)
    # The exits on both sides of the budget, mixed evenly: no two neighbours of the rarer one.
    for row, deeper in ((2, 2), (3, 3)):
        assert set(exits[:, row]) == {deeper - 1, deeper}
        rarer = exits[:, row] == deeper
        rarer = rarer if rarer.mean() < 0.5 else ~rarer
        assert not (rarer[1:] & rarer[:-1]).any()


def test_a_budget_that_falls_is_kept_from_the_second_after(budgets):
    _, exits = budgets
    row = len(STEADY)
    spent = np.asarray(MACS)[exits[:, row]]
    assert seconds(spent[:100]).max() <= 150e6 * (1 + 1e-6)
    assert seconds(spent[100:]).max() <= 40e6 * (1 + 1e-6)
    assert (exits[100:110, row] == 0).all()
    assert (exits[110:, row] > 0).any()
    flicker = exits[:, row + 1]
    assert np.count_nonzero(np.diff(flicker)) > 20


def test_a_demand_is_met_where_the_budget_allows():
    draw = np.random.default_rng(0)
    talks = np.repeat(draw.uniform(size=10) > 0.6, 20)  # stretches of 20 frames
    # With a change of 1 between all exits, and of 0 in pauses.
    gains = np.zeros((200, 1, 4, 1))
    gains[:, 0, :, 0] = talks[:, None] * np.arange(4)
    controls = {
        "mmac_per_s": jnp.full(200, 100.0),
        "demand": {"change": jnp.full(200, 0.5)},
    }
    exits = run(Budget(demand=Threshold()), controls, gains)[:, 0]
    assert list(exits) == greedy([100e6] * 200, [3 if talk else 1 for talk in talks])
    spent = np.asarray(MACS)[exits]
    assert seconds(spent).max() <= 100e6 * (1 + 1e-6)
    assert (exits[~talks] <= 1).all()
    # More than the deepest exit that is paid for in every frame.
    assert exits[talks].mean() > 1.5
    # What a pause left over is spent in the speech behind it: some second uses all there is.
    assert seconds(spent).max() > 0.98 * 100e6


def test_refreshing_is_set_aside():
    costs = ExitCosts(MACS, refresh=1000, every=8)
    assert costs.refresh_macs(62.5) == 8 * 1000
    assert ExitCosts(MACS).refresh_macs(62.5) == 0
