"""Exits of Conv-FSENet: programs of one exit, and an exit per frame, gates or not."""

import dataclasses
import functools

import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.test_conv_fsenet import magnitudes, net_of, random_variables, small_net

from dynse.exits import Budget, EarlyExit, Router, SkippedState, Threshold
from dynse.layers.cost import total_active_macs, total_macs, total_params


def test_exits_are_those_of_the_net_up_to_each_block():
    net, frames = small_net("inner", 2, blocks=3, exits=(0, 1, 2)), magnitudes(2, 6)
    variables = random_variables(net)

    @functools.partial(jax.jit, static_argnums=0, compiler_options=contract.QUICK)
    def run(net, variables):
        start = jax.tree.map(lambda leaf: leaf + 7, net.init_state(2))
        return net.apply(variables, frames, start)

    _, gain, whole = run(net, variables)
    assert len(whole.exits) == 3
    np.testing.assert_array_equal(whole.exits[-1], gain)
    state, gain, aux = run(net.clone(exit_index=1), variables)
    np.testing.assert_allclose(gain, whole.exits[1], atol=1e-6)
    assert len(aux.gates) == 2
    # The block behind it is skipped: its state stays.
    assert (state["block2"].conv == 7).all()
    assert not (state["block1"].conv == 7).all()
    # Cut off behind a block, with the exit's head in the place of the last: the same net.
    params = {**variables["params"], "back": variables["params"]["exit1"]}
    _, gain, aux = run(small_net("inner", 2), {**variables, "params": params})
    np.testing.assert_allclose(gain, whole.exits[1], atol=1e-6)
    for gate, expected in zip(aux.gates, whole.gates, strict=False):
        np.testing.assert_array_equal(gate, expected)


def test_costs_and_reach_of_exits():
    net = net_of(128, 256, exits=(2, 5, 8))
    block = 2 * 128 * 256 + 3 * 256
    expected = [2 * 257 * 128 + 3 * count * block for count in (1, 2, 3)]
    programs = [net.clone(exit_index=index) for index in range(3)]
    assert [total_macs(program.cost()) for program in programs] == expected
    assert total_macs(net.cost()) == expected[-1] + 2 * 128 * 257
    assert total_macs(net.memory_cost()) == expected[-1] - 128 * 257
    assert programs[-1].cost() == net_of(128, 256).cost()
    assert [program.receptive_field_frames for program in programs] == [14, 28, 42]
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 1, 257)))["params"]
    assert {"exit2", "exit5", "back"} < set(shapes)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == total_params(net.cost())
    cut = jax.eval_shape(programs[0].init, jax.random.key(0), jnp.ones((1, 1, 257)))["params"]
    assert set(cut) == {"front", "block0", "block1", "block2", "exit2"}


def test_exits_that_cannot_be_are_named():
    for exits in ((8, 9), (1, 1, 8), (2, 0, 8), (-1, 8), (2, 5)):
        with pytest.raises(ValueError, match="rising indices of blocks, the last one 8"):
            net_of(8, 8, exits=exits).cost()
    with pytest.raises(ValueError, match="expected an exit_index of 2 exits or None, got 2"):
        net_of(8, 8, exits=(1, 8), exit_index=2).cost()


def under_policy(name, site):
    """A net of three blocks with an exit behind each, and its variables."""
    model = small_net(site, 2, blocks=3, exits=(0, 1, 2))
    if name == "threshold":
        net, controls = EarlyExit(model, Threshold(), SkippedState(every=3)), {"change": 0.19}
    elif name == "budget":
        # Seconds of a few frames, so that a short test sees the budget at work.
        net = EarlyExit(model, Budget(frames_per_s=4.5))
        _, two, three = (total_macs(layers) for layers in net.exit_costs())
        controls = {"mmac_per_s": 4.5e-6 * (0.5 * two + 0.5 * three)}
    else:
        net = EarlyExit(model, Router(model.policy_features, 3), SkippedState(0.7))
        kernel = np.random.default_rng(6).normal(size=(model.policy_features, 3))
        controls = {"kernel": kernel - kernel.mean(0), "bias": np.zeros(3)}
    controls = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), controls)
    return net, {**random_variables(model), "exit_policy": controls}


@pytest.mark.parametrize("site", [None, "output", "inner"])
def test_a_stream_that_goes_from_program_to_program(site):
    """Held states, a frame at a time, each by the program of the exit taken alone."""
    net, variables = under_policy("budget", site)
    frames = magnitudes(1, 9)
    _, gain, taken = jax.jit(net.apply, compiler_options=contract.QUICK)(variables, frames)
    assert len(set(np.asarray(taken.exit_index[0]))) > 1
    programs = [net.model.clone(exit_index=index) for index in range(3)]
    steps = [jax.jit(program.step, compiler_options=contract.QUICK) for program in programs]
    state = net.model.init_state(1)
    for t, index in enumerate(np.asarray(taken.exit_index[0])):
        state, expected, aux = steps[index](variables, state, frames[:, t : t + 1])
        np.testing.assert_allclose(gain[:, t : t + 1], expected, atol=1e-5)
        kept = [float(gate.mean()) for gate in aux.gates]
        macs = total_active_macs(programs[index].cost(), kept)
        np.testing.assert_allclose(taken.macs[0, t], macs, rtol=1e-6)
        # Gates close channels: less is done than the policy reckoned with.
        assert (macs < total_macs(programs[index].cost())) == (site is not None)


def test_states_that_decay_and_are_refreshed():
    net, variables = under_policy("threshold", "output")
    net = dataclasses.replace(net, skipped=SkippedState(0.7, every=3))
    frames = magnitudes(1, 9)
    last, gain, taken = jax.jit(net.apply, compiler_options=contract.QUICK)(variables, frames)

    @functools.partial(jax.jit, compiler_options=contract.QUICK)
    def all_exits(state, frame):
        return net.model.apply(variables, frame, state, method="all_exits")

    state, skipped = net.model.init_state(1), 0
    for t, index in enumerate(np.asarray(taken.exit_index[0])):
        found = all_exits(state, frames[:, t : t + 1])
        costs = (net.exit_costs() if t % 3 else net.refreshed_costs())[index]
        kept = [float(gate.mean()) for gate in found.gates]
        np.testing.assert_allclose(taken.macs[0, t], total_active_macs(costs, kept), rtol=1e-6)
        np.testing.assert_allclose(gain[:, t : t + 1], found.gains[index], atol=1e-5)
        ran = {cost.path.split("/")[0] for cost in costs}
        held = jax.tree.map(lambda leaf: 0.7 * leaf, state)
        state = {name: (found.state if name in ran else held)[name] for name in state}
        skipped += "block2" not in ran
    assert 0 < skipped < 6
    for ours, theirs in zip(*map(jax.tree.leaves, (dict(last.net), state)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_net_without_exits_has_none_to_take():
    with pytest.raises(ValueError, match="expected a network with exits"):
        EarlyExit(small_net(), Budget())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "site"), [("budget", "inner"), ("threshold", "output"), ("router", None)]
)
def test_contract_of_policies(name, site):
    net, variables = under_policy(name, site)
    frames = magnitudes(4, 9)
    taken = jax.jit(net.apply)(variables, frames)[2]
    assert len(set(np.asarray(taken.exit_index).ravel())) > 1
    contract.check_causal_network(net, variables, frames)
