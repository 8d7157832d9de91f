"""Thresholds, prices and routers: settled once, on what no test sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.small import corpus, run_config

from dynse.data.drawing import make_test_set
from dynse.evaluation.exit_policies import decide_mixtures, policy_program
from dynse.exits import EarlyExit, Threshold, router_scores
from dynse.training.exit_controls import _bisect, exit_levels, fit_router, settle_controls
from dynse.training.nets import EarlyExitNsNet2Config
from dynse.training.runs import new_state

# Its second level lies within a threshold's reach, the first one below.
NET = EarlyExitNsNet2Config(first=6, hidden=24, exits=("fc1", "gru1", "gru2"))


def test_bisection_hits_a_falling_cost_or_its_nearest():
    def cost(x):
        return 1 / x

    assert _bisect(cost, 10, (1e-4, 1.0)) == pytest.approx(0.1, rel=0.01)
    assert _bisect(cost, 0.5, (1e-4, 1.0)) == pytest.approx(1.0, rel=0.01)
    assert _bisect(cost, 1e6, (1e-4, 1.0)) == pytest.approx(1e-4, rel=0.01)


def test_a_router_learns_a_rule_whatever_the_scale_of_its_features():
    draw = np.random.default_rng(0)
    features = draw.normal(size=(500, 4)).astype(np.float32)
    paid = -1e-3 * features @ draw.normal(size=(4, 3)).astype(np.float32)
    exits = np.argmin(paid, axis=1)
    scaled = features * np.float32([1, 100, 0.01, 1]) + np.float32([0, 50, 0, -3])
    params = fit_router(scaled, paid)
    chosen = np.argmax(router_scores(params, scaled), axis=-1)
    assert (chosen == exits).mean() > 0.95
    assert (chosen == draw.permutation(exits)).mean() < 0.6


def test_controls_are_settled_once_and_for_one_net(tmp_path):
    config = run_config(net=NET)
    model, state = NET.build(config.stft.bins), new_state(config)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    # Gains that change from exit to exit, and not alike in every frame.
    variables["params"] = jax.tree.map(lambda leaf: 2 * leaf, variables["params"])
    own = corpus()
    valid = make_test_set(own, "valid", name="v", seed=0, snrs_db=(0,), per_snr=2, min_s=1, max_s=2)

    def settle(variables):
        path = tmp_path / "controls.json"
        return settle_controls(path, model, variables, config, own, valid, batches=2)

    found = settle(variables)
    assert found.levels == exit_levels(model)
    assert len(found.changes) == len(found.prices) == len(found.routers) == 2
    assert found.prices[0] >= found.prices[1] > 0
    program = policy_program(EarlyExit(model, Threshold()), config.stft)
    costs = []
    for change in (1e-4, *found.changes[::-1], 1.0):
        controls = {**variables, "exit_policy": {"change": jnp.float32(change)}}
        decided = decide_mixtures(program, controls, own, valid, stft=config.stft)
        costs.append(np.mean([one.macs_per_s for one in decided]) / 1e6)
    dearest, high, low, cheapest = costs
    assert dearest > high > low == cheapest > found.levels[0]
    assert high == pytest.approx(found.levels[1], rel=0.05)

    path = tmp_path / "controls.json"
    before = path.stat().st_mtime_ns
    jax.tree.map(np.testing.assert_array_equal, vars(settle(variables)), vars(found))
    assert path.stat().st_mtime_ns == before
    other = jax.tree.map(lambda leaf: leaf / 2, variables)
    assert settle(other).changes != found.changes
    assert path.stat().st_mtime_ns != before
