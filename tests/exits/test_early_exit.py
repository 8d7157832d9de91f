"""A net under a policy: what runs, what it costs and what skipped states do."""

import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exits.test_policies import seconds
from exits.toy import COSTS, Replay, Toy, frames, variables

from dynse.exits import Budget, EarlyExit, Fixed, Router, SkippedState, Threshold

STAGES = ("first", "one", "two")


def reference(net, variables, frames, exits):
    """Gains and MACs in NumPy, row by row and frame by frame; only what runs is computed."""
    params = variables["params"]
    gains, macs = np.zeros(frames.shape), np.zeros(frames.shape[:2])
    for row in range(len(frames)):
        state = {"one": np.zeros(4), "two": np.zeros(4)}
        for t, x in enumerate(frames[row]):
            taken = exits[row, t]
            refresh = net.skipped.every and t % net.skipped.every == 0
            h, outputs = np.tanh(x @ params["first"]), []
            outputs.append(h)
            for depth, name in enumerate(("one", "two"), start=1):
                if depth <= taken or refresh:
                    h = np.tanh(h @ params[name]["x"] + state[name] @ params[name]["h"])
                    state[name] = h
                    outputs.append(h)
                else:
                    state[name] = net.skipped.factor * state[name]
            gains[row, t] = 1 / (1 + np.exp(-outputs[taken] @ params["heads"][taken]))
            ran = STAGES if refresh else STAGES[: taken + 1]
            macs[row, t] = sum(COSTS[name] for name in ran) + COSTS[f"head{taken}"]
    return gains, macs, state


@pytest.mark.parametrize(
    "skipped",
    [SkippedState(), SkippedState(factor=0.5), SkippedState(every=3), SkippedState(0.5, 5)],
    ids=["held", "decayed", "refreshed", "both"],
)
def test_skipped_states(skipped):
    x = frames(3, 20)
    exits = np.random.default_rng(2).choice(3, size=(3, 20), p=[0.5, 0.3, 0.2]).astype(np.int32)
    net = EarlyExit(Toy(), Replay(), skipped)
    own = variables(controls=jnp.asarray(exits))
    state, gain, taken = jax.jit(net.apply)(own, x)
    expected, macs, last = reference(net, own, x, exits)
    np.testing.assert_allclose(gain, expected, atol=1e-5)
    np.testing.assert_array_equal(taken.macs, macs)
    np.testing.assert_array_equal(taken.exit_index, exits)
    for name, value in last.items():
        np.testing.assert_allclose(state.net[name][-1], value, atol=1e-5)


def test_rules_for_skipped_states_differ():
    x, exits = frames(1, 20), np.zeros((1, 20), np.int32)
    exits[0, ::4] = 2
    own = variables(controls=jnp.asarray(exits))
    rules = (SkippedState(), SkippedState(0.5), SkippedState(every=3))
    one, *others = (reference(EarlyExit(Toy(), Replay(), rule), own, x, exits)[0] for rule in rules)
    assert all(np.abs(one - other).max() > 1e-3 for other in others)
    with pytest.raises(ValueError, match="expected a factor in 0 to 1 and every >= 0"):
        SkippedState(factor=1.1)


def test_costs_are_those_of_the_layers_that_run():
    def macs(policy, refreshed=False):
        net = EarlyExit(Toy(), policy)
        costs = net.refreshed_costs() if refreshed else net.exit_costs()
        return [sum(cost.macs for cost in one) for one in costs]

    assert macs(Fixed(0)) == [11, 112, 1113]
    # Every head on the way.
    assert macs(Threshold()) == macs(Budget(Threshold())) == [11, 113, 1116]
    assert macs(Router(4, 3)) == [11 + 12, 112 + 12, 1113 + 12]
    assert macs(Fixed(0), refreshed=True) == [1111, 1112, 1113]
    assert macs(Threshold(), refreshed=True) == [1111, 1113, 1116]


def test_refreshing_keeps_to_the_budget():
    net = EarlyExit(Toy(), Budget(), SkippedState(every=8))
    limit = 35_000
    own = variables(controls={"mmac_per_s": jnp.float32(limit / 1e6)})
    _, _, taken = jax.jit(net.apply)(own, frames(1, 200))
    spent = np.asarray(taken.macs[0], np.int64)
    assert seconds(spent).max() <= limit * (1 + 1e-6)
    assert len(set(np.asarray(taken.exit_index[0]))) > 1
    # Negative control: without the part set aside, refreshing would have broken it.
    free = jax.jit(EarlyExit(Toy(), Budget()).apply)(own, frames(1, 200))[2].exit_index[0]
    _, macs, _ = reference(net, own, frames(1, 200), np.asarray(free)[None])
    assert seconds(macs[0].astype(np.int64)).max() > limit


ROUTER = {
    "kernel": jnp.asarray(np.random.default_rng(7).normal(size=(4, 3)), jnp.float32),
    "bias": jnp.zeros(3),
}
POLICIES = {
    "threshold": (Threshold(), {"change": jnp.float32(0.2)}, SkippedState(every=3)),
    # Seconds of a few frames, so that a short test sees the budget at work.
    "budget": (
        Budget(Threshold(), frames_per_s=4.5),
        {"mmac_per_s": jnp.float32(3e-3), "demand": {"change": jnp.float32(0.1)}},
        SkippedState(),
    ),
    "alternating budget": (
        Budget(frames_per_s=4.5),
        {"mmac_per_s": jnp.float32(2.5e-3)},
        SkippedState(0.7, 3),
    ),
    "router": (Router(4, 3), ROUTER, SkippedState(0.7)),
    "budgeted router": (
        Budget(Router(4, 3), frames_per_s=4.5),
        {"mmac_per_s": jnp.float32(3e-3), "demand": ROUTER},
        SkippedState(every=4),
    ),
}


def policy_net(name):
    policy, controls, skipped = POLICIES[name]
    return EarlyExit(Toy(), policy, skipped), variables(3, controls), frames(4, 9, seed=3)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_causal_row_by_row_and_not_borderline(name):
    net, own, x = policy_net(name)
    contract.check_state(net, own, x)
    contract.check_batch_rows(net, own, x)
    contract.check_future(net, own, x)
    # With inputs a little off, every decision is the same: the contract may compare two roundings.
    run = jax.jit(lambda own, x: net.apply(own, x)[2].exit_index, compiler_options=contract.QUICK)
    exits = run(own, x)
    assert len(set(np.asarray(exits).ravel())) > 1
    for scale in (1 - 1e-4, 1 + 1e-4):
        np.testing.assert_array_equal(run(own, (scale * x).astype(np.float32)), exits)


@pytest.mark.parametrize("name", POLICIES)
def test_contract_of_every_policy(name):
    contract.check_causal_network(*policy_net(name))


def test_contract_of_a_fixed_exit():
    net = EarlyExit(Toy(), Fixed(1), SkippedState(every=3))
    contract.check_causal_network(net, variables(3), frames(4, 9, seed=3))
