import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.layers.cost import total_active_macs, total_macs, total_params
from dynse.models.conv_fsenet import ConvFSENet, GateConfig

BINS = 9


def magnitudes(batch, frames, bins=BINS, seed=5):
    """Of a wide range, so that the ReLUs behind differ from frame to frame."""
    draw = np.random.default_rng(seed)
    return np.exp(1.5 * draw.normal(size=(batch, frames, bins)) - 1).astype(np.float32)


def small_net(site=None, window=2, *, surrogate="sigmoid", detach=False, gate=None, **options):
    options["gate"] = site and GateConfig(
        site=site, window=window, surrogate=surrogate, detach=detach, bias=0.0, **(gate or {})
    )
    shape = {"bins": BINS, "width": 8, "inner": 16, "stacks": 1, "blocks": 2}
    return ConvFSENet(**{**shape, **options})


def random_variables(net, seed=2):
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 1, net.bins)))
    return contract.random_like(shapes, seed)


SLOW = pytest.mark.slow
FRONT = {"source": "front"}
NETS = [
    small_net(),
    small_net("output", 16, blocks=1),
    small_net("inner", 2, exits=(0, 1)),
    small_net("output", 9, gate={"source": "front", "level": True, "group": 2}),
    small_net("inner", 1, block="original", blocks=1, taps=2),
    pytest.param(
        small_net("inner", 2, exits=(0, 1, 2), blocks=3, exit_index=1, inner=32), marks=SLOW
    ),
    pytest.param(small_net("output", 2, block="original", blocks=1), marks=SLOW),
    pytest.param(small_net(block="original", features="magnitude"), marks=SLOW),
    pytest.param(small_net("output", 1), marks=SLOW),
    pytest.param(small_net("inner", 9, gate=FRONT, blocks=3, inner=32), marks=SLOW),
    pytest.param(small_net("output", 16), marks=SLOW),
    pytest.param(small_net("inner", 1), marks=SLOW),
    pytest.param(small_net("inner", 16), marks=SLOW),
    pytest.param(small_net("output", 16, block="original"), marks=SLOW),
    pytest.param(small_net("inner", 16, block="original", stacks=2, blocks=1), marks=SLOW),
]


def name_of(net):
    gate = f"{net.gate.site}{net.gate.window}" if net.gate else "dense"
    gate += "-front" if net.gate and net.gate.source == "front" else ""
    exits = f"-exits{len(net.exits)}" if net.exits else ""
    return f"{net.block}-{gate}{exits}"


@pytest.mark.parametrize("net", NETS, ids=name_of)
def test_contract(net):
    length = net.receptive_field_frames + 6
    contract.check_causal_network(net, random_variables(net), magnitudes(6, length))


def test_contract_sees_past_a_gate_that_stops_the_gradient():
    net = small_net("output", 4, surrogate="identity", detach=True, blocks=1)
    frames = magnitudes(4, net.receptive_field_frames + 3)
    variables = random_variables(net)
    passes = small_net("output", 4, blocks=1)
    contract.check_reach(net, variables, frames, through_gates=passes)
    with pytest.raises(AssertionError, match="measured a receptive field of 2"):
        contract.check_reach(net, variables, frames)


@pytest.mark.parametrize(
    ("site", "window", "expected"), [(None, 1, 42), ("output", 16, 135), ("inner", 16, 177)]
)
def test_published_receptive_fields(site, window, expected):
    assert small_net(site, window, stacks=3, blocks=3).receptive_field_frames == expected


def test_gates_that_see_the_front_end_reach_back_from_the_first_block():
    # 42 of the convs; 15 of a gate, behind which come all convs or, at the output site, all but
    # the first block's 2.
    shape = {"stacks": 3, "blocks": 3, "gate": FRONT}
    assert small_net("output", 16, **shape).receptive_field_frames == 15 + 40
    assert small_net("inner", 16, **shape).receptive_field_frames == 15 + 42
    assert small_net("output", 2, **shape).receptive_field_frames == 42


def test_groups_and_the_level_have_their_price():
    def macs(**gate):
        return total_macs(ConvFSENet(gate=GateConfig(**gate)).cost())

    assert macs() - macs(group=4) == 9 * 8 * (128 - 32)
    assert macs(level=True) - macs() == 9 * 8
    with pytest.raises(ValueError, match="128 channels do not part into groups of 3"):
        macs(group=3)


@pytest.mark.slow
@pytest.mark.parametrize(("site", "window"), [(None, 1), ("output", 16), ("inner", 16)])
def test_the_published_receptive_fields_are_the_measured_ones(site, window):
    net = small_net(site, window, stacks=3, blocks=3, width=12, inner=32)
    frames = magnitudes(6, net.receptive_field_frames + 2)
    contract.check_reach(net, random_variables(net), frames)


def net_of(width, inner, site=None, **options):
    return ConvFSENet(width=width, inner=inner, gate=site and GateConfig(site=site), **options)


@pytest.mark.parametrize(
    ("width", "inner", "params", "macs"),
    [
        (128, 256, 674_433, 662_528),
        (192, 384, 1_453_889, 1_436_160),
        (106, 212, None, 464_704),
        (75, 150, None, 245_100),
    ],
)
def test_published_counts(width, inner, params, macs):
    costs = net_of(width, inner).cost()
    assert total_macs(costs) == macs
    assert params in (None, total_params(costs))


def test_active_macs_at_a_quarter():
    quarter = [0.25] * 9
    for site, expected in (("output", 459_776), ("inner", 242_624)):
        costs = net_of(128, 256, site).cost()
        assert total_active_macs(costs, quarter) == expected
        # All open: the dense net and what the gates cost.
        channels = 128 if site == "output" else 256
        assert total_macs(costs) == 662_528 + 9 * 8 * (128 + channels)
        assert total_active_macs(costs, [1.0] * 9) == total_macs(costs)


@pytest.mark.parametrize(
    ("block", "site", "stacks", "blocks", "taps"),
    [
        ("quantization_friendly", None, 3, 3, 3),
        ("quantization_friendly", "inner", 2, 1, 2),
        ("original", None, 1, 4, 3),
        ("original", "output", 2, 2, 5),
    ],
)
def test_costs_list_the_parameters_path_by_path(block, site, stacks, blocks, taps):
    net = net_of(10, 14, site, block=block, stacks=stacks, blocks=blocks, taps=taps)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 1, 257)))["params"]
    counted: dict[str, int] = {}
    paths = [cost.path for cost in net.cost()]
    for path, leaf in jax.tree.leaves_with_path(shapes):
        name = "/".join(part.key for part in path)
        (owner,) = [one for one in paths if name.startswith(f"{one}/")]
        counted[owner] = counted.get(owner, 0) + leaf.size
    assert counted == {cost.path: cost.params for cost in net.cost()}
    assert len(set(paths)) == len(paths)


def test_macs_are_those_that_xla_counts():
    """Two flops a MAC; what is left over are biases, norms and activations: a few a value."""
    frames = 40
    for width, inner in ((32, 64), (64, 96)):
        net = net_of(width, inner, features="magnitude", stacks=1, blocks=2)
        shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 1, 257)))
        x = jax.ShapeDtypeStruct((1, frames, 257), jnp.float32)
        compiled = jax.jit(lambda v, x, net=net: net.apply(v, x)[1]).lower(shapes, x).compile()
        flops = compiled.cost_analysis()["flops"] / frames
        macs = total_macs(net.cost())
        # Per value: bias and ReLU of the front; bias, two norms (2 each), two ReLUs inside;
        # the residual sum; bias and sigmoid behind. The norms' factors come once per call.
        elementwise = 2 * width + 2 * (1 + 4 + 2) * inner + 2 * width + 5 * 257
        assert 2 * macs * 0.98 <= flops <= 2 * macs + 1.2 * elementwise


def reference(net, variables, frames):
    """The gated network at inference from its equations: NumPy, float64, frame by frame."""
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    params, stats = variables["params"], variables["batch_stats"]
    gate = net.gate

    def norm(name, part, value):
        p, s = params[name][part], stats[name][part]
        return p["scale"] * (value - s["mean"]) / np.sqrt(s["var"] + 1e-5) + p["bias"]

    gains, decisions = [], []
    for row in np.asarray(frames, np.float64):
        inner_past = [[] for _ in range(net.stacks * net.blocks)]
        input_past = [[] for _ in range(net.stacks * net.blocks)]
        for frame in row:
            x = (frame + 1e-9) ** 0.3
            h = front = np.maximum(x @ params["front"]["kernel"] + params["front"]["bias"], 0)
            for index in range(net.stacks * net.blocks):
                name, p = f"block{index}", params[f"block{index}"]
                input_past[index].append(front if gate.source == "front" else h)
                pooled = sum(input_past[index][-gate.window :]) / gate.window
                fc1, fc2 = p["gate"]["fc1"], p["gate"]["fc2"]
                hidden = np.maximum(pooled @ fc1["kernel"] + fc1["bias"], 0)
                g = (hidden @ fc2["kernel"] + fc2["bias"] > 0).astype(float)
                inner_g, output_g = (g, 1) if gate.site == "inner" else (1, g)
                w1 = h @ p["conv1"]["kernel"] + p["conv1"]["bias"]
                inner_past[index].append(inner_g * np.maximum(norm(name, "norm1", w1), 0))
                past, dilation = inner_past[index], 2 ** (index % net.blocks)
                conv = np.zeros(net.inner)
                for k in range(net.taps):
                    t = len(past) - 1 - (net.taps - 1 - k) * dilation
                    conv += p["depthwise"]["kernel"][k] * past[t] if t >= 0 else 0
                v = inner_g * np.maximum(norm(name, "norm2", conv), 0)
                h = h + output_g * (v @ p["conv2"]["kernel"])
                decisions.append(g)
            logits = h @ params["back"]["kernel"] + params["back"]["bias"]
            gains.append(1 / (1 + np.exp(-logits)))
    blocks = len(inner_past)
    shape = (len(frames), frames.shape[1])
    by_block = [np.reshape(decisions[i::blocks], (*shape, -1)) for i in range(blocks)]
    return np.reshape(gains, frames.shape), by_block


@pytest.mark.parametrize(("site", "source"), [("output", "block"), ("inner", "front")])
def test_the_gated_net_is_the_one_of_the_equations(site, source):
    net, frames = small_net(site, 3, gate={"source": source}), magnitudes(2, 14)
    variables = random_variables(net)
    expected, decisions = reference(net, variables, frames)
    _, gain, aux = jax.jit(net.apply)(variables, frames)
    for gate, decision in zip(aux.gates, decisions, strict=True):
        np.testing.assert_array_equal(gate, decision)
        assert 0 < decision.mean() < 1
    np.testing.assert_allclose(gain, expected, atol=1e-5)


def test_an_inner_channel_that_is_off_leaves_a_zero_in_the_past():
    net = small_net("inner", 2)
    state, _, aux = jax.jit(net.apply)(random_variables(net), magnitudes(2, 14))
    for block, gate in zip(state.values(), aux.gates, strict=True):
        past = np.asarray(block.conv)
        gate = np.asarray(gate)[:, -past.shape[1] :]
        assert (gate == 0).any()
        assert not past[gate == 0].any()
        assert past[gate == 1].any()


def test_replayed_gates_may_be_traced_and_broadcast():
    net, frames = small_net("output", 2), magnitudes(2, 5)
    variables = random_variables(net)
    run = jax.jit(lambda gates: net.apply(variables, frames, gates=gates)[1:])
    closed, aux = run((jnp.zeros((1, 1, 8)),) * 2)
    opened, _ = run((jnp.ones((1, 1, 8)),) * 2)
    assert run._cache_size() == 1
    assert all(gate.shape == (2, 5, 8) and not gate.any() for gate in aux.gates)
    assert not np.allclose(closed, opened)
    # With every channel off the blocks add nothing.
    params = variables["params"]
    h = np.maximum((frames + 1e-9) ** 0.3 @ params["front"]["kernel"] + params["front"]["bias"], 0)
    logits = h @ params["back"]["kernel"] + params["back"]["bias"]
    np.testing.assert_allclose(closed, 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_training_normalises_by_the_batch_and_moves_the_statistics():
    net, frames = small_net("output", 2), magnitudes(2, 5)
    variables = random_variables(net)
    run = jax.jit(lambda v: net.apply(v, frames, train=True, mutable=["batch_stats"]))
    (_, gain, _), updated = run(variables)
    for before, after in zip(
        jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(updated), strict=True
    ):
        assert (before != after).all()
    # Other running statistics, same batch: same result.
    other = {**variables, "batch_stats": random_variables(net, seed=8)["batch_stats"]}
    np.testing.assert_array_equal(run(other)[0][1], gain)


def test_wrong_shapes_and_names_are_named():
    net = small_net("output", 2)
    variables = random_variables(net)
    with pytest.raises(ValueError, match=r"expected frames \(B, T, 9\), got \(1, 2, 8\)"):
        net.apply(variables, jnp.ones((1, 2, 8)))
    with pytest.raises(ValueError, match="expected gates for 2 blocks, got 1"):
        net.apply(variables, jnp.ones((1, 2, 9)), gates=(jnp.ones(6),))
    dense = small_net()
    with pytest.raises(ValueError, match="expected gates for 0 blocks, got 2"):
        dense.apply(random_variables(dense), jnp.ones((1, 2, 9)), gates=(jnp.ones(6),) * 2)
    with pytest.raises(ValueError, match="quantization_friendly, original; got 'origin'"):
        random_variables(small_net(block="origin"))
    with pytest.raises(ValueError, match="features must be one of compressed, magnitude"):
        random_variables(small_net(features="log"))
    with pytest.raises(ValueError, match="site must be one of output, inner; got 'input'"):
        GateConfig(site="input")
    with pytest.raises(ValueError, match=r"surrogate must be one of identity, .*; got 'relu'"):
        GateConfig(surrogate="relu")
    with pytest.raises(ValueError, match="must be positive"):
        GateConfig(window=0)


AHEAD = [
    (small_net(causal=False), (3, 3)),
    (small_net("output", 4, causal=False), (4, 3)),
    (small_net("inner", 4, causal=False, taps=5), (10, 8)),
    (small_net("output", 10, causal=False, gate={"source": "front", "level": True}), (7, 6)),
]


@pytest.mark.parametrize(("net", "reach"), AHEAD, ids=["dense", "output", "inner", "front"])
def test_a_net_that_sees_ahead_sees_as_far_as_it_says(net, reach):
    """Of what an output depends on, by its gradient; the reach is counted by hand."""
    assert (net.receptive_field_frames, -net.latency_frames) == reach
    past, ahead = reach
    frames, now = magnitudes(6, past + ahead + 5), past + 2

    def at_now(frames):
        gain = net.apply(random_variables(net), frames)[1]
        return gain[:, now].sum()

    influence = np.abs(jax.jit(jax.grad(at_now))(frames)).max((0, 2))
    assert list(np.flatnonzero(influence)) == list(range(now - past, now + ahead + 1))


@pytest.mark.parametrize("site", [None, "output", "inner"])
def test_backwards_in_time_it_is_the_net_with_its_taps_turned_round(site):
    net = small_net(site, 3, causal=False)
    variables, frames = random_variables(net), magnitudes(3, 20)

    def turn(path, leaf):
        return leaf[::-1] if path[-2].key == "depthwise" else leaf

    turned = jax.tree_util.tree_map_with_path(turn, variables)
    run = jax.jit(lambda variables, frames: net.apply(variables, frames)[1])
    expected = run(variables, frames)
    np.testing.assert_allclose(run(turned, frames[:, ::-1])[:, ::-1], expected, atol=1e-5)
    assert np.abs(run(variables, frames[:, ::-1])[:, ::-1] - expected).max() > 1e-2


def test_the_published_net_sees_21_frames_each_way():
    net = ConvFSENet(causal=False)
    assert (net.receptive_field_frames, net.latency_frames) == (21, -21)
    assert net.cost() == ConvFSENet().cost()


def test_a_net_that_sees_ahead_takes_whole_signals_alone():
    net = small_net(causal=False)
    variables, frames = random_variables(net), magnitudes(2, 4)
    assert net.apply(variables, frames)[0] == {}
    with pytest.raises(ValueError, match="has no state"):
        net.init_state(2)
    with pytest.raises(ValueError, match="has no state"):
        net.step(variables, small_net().init_state(2), frames)
    with pytest.raises(ValueError, match="odd number of taps, got 2"):
        small_net(causal=False, taps=2).init(jax.random.key(0), frames)
