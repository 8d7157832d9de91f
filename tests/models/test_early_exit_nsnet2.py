import functools

import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.exits import Budget, EarlyExit, Router, SkippedState, Threshold
from dynse.layers.cost import total_macs, total_params
from dynse.layers.gru import LONG_BLOCK
from dynse.models.early_exit_nsnet2 import EXITS, EarlyExitNsNet2
from dynse.models.nsnet2 import NsNet2

BINS = 5
TINY = {"bins": BINS, "first": 6, "hidden": 6, "wide": 6}
SPLITS = ("none", "duplicate", "divide")
SLOW = pytest.mark.slow


def small_net(split="none", **options):
    return EarlyExitNsNet2(**{**TINY, "split": split, "fraction": 0.5, **options})


def magnitudes(batch=2, frames=4, seed=5):
    draw = np.random.default_rng(seed)
    return np.exp(1.5 * draw.normal(size=(batch, frames, BINS)) - 3).astype(np.float32)


def random_variables(net, seed=2):
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 1, net.bins)))
    return contract.random_like(shapes, seed)


@functools.partial(jax.jit, static_argnums=0, compiler_options=contract.QUICK)
def run(net, variables, frames, state=None):
    return net.apply(variables, frames, state)


def mmac_per_s(net):
    return 62.5e-6 * total_macs(net.cost())


def per_exit(net):
    return [mmac_per_s(net.clone(exit_index=index)) for index in range(len(net.exits))]


def test_published_counts():
    net = EarlyExitNsNet2(exits=EXITS)
    expected = [12.85, 72.85, 132.85, 151.0625, 173.5625]
    np.testing.assert_allclose(per_exit(net), expected, rtol=1e-12)
    # Each net alone, and a net of some: an exit costs the same with others or without.
    for name, cost in zip(EXITS, expected, strict=True):
        assert mmac_per_s(EarlyExitNsNet2(exits=(name,))) == pytest.approx(cost, rel=1e-12)
    np.testing.assert_allclose(per_exit(EarlyExitNsNet2()), expected[:3] + expected[4:])
    plain = EarlyExitNsNet2(exits=("full",))
    assert plain.cost() == NsNet2().cost()
    assert total_params(plain.cost()) == 2_783_657
    assert total_params(net.cost()) == 2_783_657 + 3 * 401 * 257 + 601 * 257
    # Computed side by side, every head is paid for.
    assert mmac_per_s(net) == pytest.approx(173.5625 + 62.5e-6 * (3 * 400 + 600) * 257)


def test_counts_of_splits():
    duplicate = EarlyExitNsNet2(split="duplicate")
    # An exit needs its own layer in the place of the one that goes on.
    assert per_exit(duplicate) == per_exit(EarlyExitNsNet2())
    gru = 6 * 400 * 400
    side = 257 * 400 + 2 * gru
    assert total_macs(duplicate.cost()) == total_macs(EarlyExitNsNet2().cost()) + side
    divided = EarlyExitNsNet2(split="divide", fraction=0.25)
    # 100 units for each head, 300 that go on.
    small = 3 * 100 * (300 + 100)
    large = 3 * 300 * (300 + 300)
    expected = [
        100 * (257 + 257),
        257 * 300 + small + 100 * 257,
        257 * 300 + large + small + 100 * 257,
        257 * 300 + 2 * large + 300 * 600 + 600 * 600 + 600 * 257,
    ]
    np.testing.assert_allclose(per_exit(divided), 62.5e-6 * np.array(expected))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("exits", [EXITS, ("gru1", "full"), ("fc1",)], ids="-".join)
def test_costs_list_the_parameters_layer_by_layer(split, exits):
    net = small_net(split, exits=exits)
    for one in (net, net.clone(exit_index=0)):
        shapes = jax.eval_shape(one.init, jax.random.key(0), jnp.ones((1, 1, BINS)))["params"]
        by_layer = {name: sum(leaf.size for leaf in own.values()) for name, own in shapes.items()}
        assert by_layer == {cost.path: cost.params for cost in one.cost()}


def reference(net, variables, frames):
    """All exits' gains from the equations: NumPy, float64, frame by frame."""
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    params, stats = variables["params"], variables["batch_stats"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    def gru(name, memory, x):
        p = params[name]
        h = memory.get(name, np.zeros(len(p["hidden_kernel"])))
        a = np.split(x @ p["input_kernel"] + p["input_bias"], 3)
        b = np.split(h @ p["hidden_kernel"] + p["hidden_bias"], 3)
        r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
        memory[name] = (1 - z) * np.tanh(a[2] + r * b[2]) + z * h
        return memory[name]

    def stage(name, memory, x):
        return gru(name, memory, x) if "gru" in name else np.maximum(dense(name, x), 0)

    gains = np.zeros((len(net.exits), *frames.shape))
    for row, signal in enumerate(np.asarray(frames, np.float64)):
        memory = {}
        for t, frame in enumerate(signal):
            x = (np.log10(frame**2 + 1e-12) - stats["mean"]) / np.sqrt(stats["var"])
            for name in ("fc1", "gru1", "gru2", "fc2", "fc3"):
                y = stage(name, memory, x)
                exit_name = "full" if name == "fc3" else name
                if exit_name in net.exits:
                    split = net.split != "none" and exit_name != net.exits[-1]
                    read = stage(f"side_{name}", memory, x) if split else y
                    head = "fc4" if name == "fc3" else f"head_{name}"
                    gains[net.exits.index(exit_name), row, t] = sigmoid(dense(head, read))
                if exit_name == net.exits[-1]:
                    break
                x = y
    return gains


@pytest.mark.parametrize("split", SPLITS)
def test_every_exit_is_the_one_of_the_equations(split):
    net, frames = small_net(split), magnitudes()
    variables = random_variables(net)
    expected = reference(net, variables, frames)
    _, gain, aux = run(net, variables, frames)
    np.testing.assert_allclose(np.stack(aux.exits), expected, atol=1e-5)
    np.testing.assert_array_equal(gain, aux.exits[-1])
    assert np.abs(np.diff(expected, axis=0)).max((1, 2, 3)).min() > 1e-2


def test_the_whole_net_alone_is_nsnet2():
    net, plain, frames = small_net(exits=("full",)), NsNet2(**TINY), magnitudes()
    variables = random_variables(plain)
    state, gain, _ = run(net, variables, frames)
    expected_state, expected, _ = run(plain, variables, frames)
    np.testing.assert_array_equal(gain, expected)
    np.testing.assert_array_equal(state["gru2"], expected_state[1])
    floored = small_net(gain_floor_db=-6.0)
    variables = random_variables(floored)
    gains = run(floored, variables, frames)[2].exits
    assert min(float(gain.min()) for gain in gains) == pytest.approx(10 ** (-6 / 20))


def test_a_fixed_exit_is_the_same_gain_and_leaves_the_other_states():
    net, frames = small_net("divide"), magnitudes()
    variables = random_variables(net)
    start = jax.tree.map(lambda leaf: leaf + 0.3, net.init_state(2))
    moved, _, aux = run(net, variables, frames, start)
    for index in (0, 2, 3):
        program = net.clone(exit_index=index)
        state, gain, own = run(program, variables, frames, start)
        np.testing.assert_allclose(gain, aux.exits[index], atol=1e-6)
        assert len(own.exits) == 1
        ran = {cost.path for cost in program.cost()}
        assert state.keys() == start.keys()
        for name in start:
            expected = moved[name] if name in ran else start[name]
            np.testing.assert_allclose(state[name], expected, atol=1e-6)


def test_a_stream_may_change_its_program():
    net, frames = small_net(exits=("fc1", "gru1")), magnitudes(1, 6)
    variables = random_variables(net)
    deep, shallow = net.clone(exit_index=1), net.clone(exit_index=0)
    state, _, _ = run(deep, variables, frames[:, :2], net.init_state(1))
    state, _, _ = run(shallow, variables, frames[:, 2:4], state)
    _, gain, _ = run(deep, variables, frames[:, 4:], state)
    # The GRU held what it had: the frames between were not there for it.
    kept = np.concatenate([frames[:, :2], frames[:, 4:]], axis=1)
    _, expected, _ = run(deep, variables, kept)
    np.testing.assert_allclose(gain, expected[:, 2:], atol=1e-6)


def long(batch=3):
    # The whole goes the way of long blocks, its parts that of short ones.
    return magnitudes(batch, LONG_BLOCK + 2)


@pytest.mark.parametrize(
    "net",
    [
        small_net("divide", exits=("fc1", "gru1")),
        pytest.param(small_net("none", exits=EXITS), marks=SLOW),
        pytest.param(small_net("duplicate"), marks=SLOW),
        pytest.param(small_net("divide"), marks=SLOW),
        pytest.param(small_net(exit_index=0), marks=SLOW),
        pytest.param(small_net("duplicate", exit_index=2), marks=SLOW),
    ],
    ids=lambda net: f"{net.split}-{len(net.exits)}-{net.exit_index}",
)
def test_contract(net):
    contract.check_causal_network(net, random_variables(net), long())


def under_policy(name, split):
    """A net, its variables; decisions that are neither borderline nor all alike."""
    model = small_net(split)
    if name == "threshold":
        net = EarlyExit(model, Threshold(), SkippedState(every=3))
        controls = {"change": jnp.float32(0.15)}
    elif name == "budget":
        # Seconds of a few frames, so that a short test sees the budget at work.
        net = EarlyExit(model, Budget(frames_per_s=4.5), SkippedState())
        _, one, two, three = (total_macs(costs) for costs in net.exit_costs())
        between = [0.6 * one + 0.4 * two, 0.7 * two + 0.3 * three, 0.3 * two + 0.7 * three]
        controls = {"mmac_per_s": 4.5e-6 * jnp.array(between)}
    else:
        net = EarlyExit(model, Router(model.policy_features, 4), SkippedState(0.7))
        draw = np.random.default_rng(65)
        shapes = {"kernel": (model.policy_features, 4), "bias": (4,)}
        controls = {
            part: jnp.asarray(draw.normal(size=shape), jnp.float32)
            for part, shape in shapes.items()
        }
    return net, {**random_variables(model), "exit_policy": controls}


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["threshold", "budget", "router"])
def test_contract_of_policies(name, split):
    """Every policy on every split; tests/exits runs the contract on a smaller net."""
    net, variables = under_policy(name, split)
    taken = jax.jit(net.apply)(variables, long())[2]
    assert len(set(np.asarray(taken.exit_index).ravel())) > 1
    contract.check_causal_network(net, variables, long())


def test_what_cannot_be_is_named():
    for exits in (("gru2", "gru1"), (), ("gru3",), ("fc1", "fc1")):
        with pytest.raises(ValueError, match="exits must be some of fc1, gru1, gru2, fc2, full"):
            small_net(exits=exits).cost()
    with pytest.raises(ValueError, match="expected an exit_index of 4 exits or None, got 4"):
        small_net(exit_index=4).cost()
    with pytest.raises(ValueError, match="split must be one of none, duplicate, divide"):
        small_net("half").cost()
    with pytest.raises(ValueError, match=r"expected frames \(B, T, 5\), got \(1, 2, 4\)"):
        small_net().apply(random_variables(small_net()), jnp.ones((1, 2, 4)))
