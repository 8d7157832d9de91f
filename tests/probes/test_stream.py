import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynse.models.conv_fsenet import ConvFSENet, GateConfig
from dynse.probes import (
    add_probes,
    additions_per_frame,
    causal_average,
    decide,
    frame_bits,
    init_probe_state,
    make_probe,
    outputs,
    probe_step,
    stack_probes,
    sum_of_open,
)

WIDTHS = (8, 6, 10)
TOTAL = sum(WIDTHS)


def random_probe(seed, outputs, window=1, kind="logistic", total=TOTAL):
    draw = np.random.default_rng(seed)
    channels = np.sort(draw.choice(total, total // 2, replace=False))
    weights, bias = draw.normal(size=(len(channels), outputs)), draw.normal(size=outputs)
    return make_probe(channels, weights, bias, kind=kind, window=window)


def several(total=TOTAL):
    return {
        "voice": random_probe(0, 1, total=total),
        "noise": random_probe(1, 3, window=5, total=total),
        "f0": random_probe(2, 1, window=2, kind="ridge", total=total),
        "snr": random_probe(3, 2, kind="ridge", total=total),
    }


def random_gates(batch=2, frames=13, seed=0):
    draw = np.random.default_rng(seed)
    return tuple((draw.random((batch, frames, w)) < 0.4).astype(np.float32) for w in WIDTHS)


def offline(probe, bits):
    """The probe on the averages of one utterance's bits, in NumPy."""
    average = causal_average(bits, probe.window)[:, np.asarray(probe.channels)]
    return average @ np.asarray(probe.weights) + np.asarray(probe.bias)


def test_the_sum_of_open_weights_is_the_product():
    """Integers, so that no rounding excuses a difference: against a loop, and a product."""
    draw = np.random.default_rng(0)
    bits = draw.random((4, 7, 30)) < 0.3
    channels = np.array([3, 0, 29, 11])
    weights = draw.integers(-50, 50, (4, 3))
    probe = make_probe(channels, weights, [1, 2, 3], kind="ridge")
    expected = np.zeros((4, 7, 3))
    for b in range(4):
        for t in range(7):
            for channel, row in zip(channels, weights, strict=True):
                if bits[b, t, channel]:
                    expected[b, t] += row
    np.testing.assert_array_equal(sum_of_open(probe, jnp.asarray(bits)), expected)
    np.testing.assert_array_equal(expected, outputs(probe, bits) - probe.bias)


def test_additions_are_the_open_channels_of_each_output():
    bits = np.array([[1, 0, 1, 1], [0, 0, 1, 0]], bool)
    probe = make_probe([0, 1, 2], np.ones((3, 2)), [0, 0], kind="ridge")
    assert additions_per_frame(probe, bits) == pytest.approx(2 * (2 + 1) / 2)
    assert additions_per_frame(probe, bits.mean(0)) == pytest.approx(3)
    assert additions_per_frame(probe.replace(window=5), bits) == pytest.approx(3 + 2 * 4)


step = jax.jit(probe_step, static_argnums=0)


def whole(probes, gates):
    layout, stack = stack_probes(probes, TOTAL)
    return step(layout, stack, init_probe_state(layout, 2), gates)[1]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 7]), min_size=1, max_size=8), st.integers(0, 100))
def test_any_split_is_the_offline_prediction(sizes, seed):
    probes = several()
    layout, stack = stack_probes(probes, TOTAL)
    gates = random_gates(frames=sum(sizes), seed=seed)
    state, parts, start = init_probe_state(layout, 2), [], 0
    for size in sizes:
        block = tuple(gate[:, start : start + size] for gate in gates)
        state, part = step(layout, stack, state, block)
        parts.append(part)
        start += size
    streamed = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)
    assert set(streamed) == set(probes)
    for name, probe in probes.items():
        for row, bits in enumerate(frame_bits(gates)):
            np.testing.assert_allclose(streamed[name][row], offline(probe, bits), atol=1e-5)


def test_a_probe_alone_is_the_probe_among_others():
    gates, probes = random_gates(), several()
    together = whole(probes, gates)
    for name in ("noise", "voice"):
        alone = whole({name: probes[name]}, gates)[name]
        np.testing.assert_allclose(alone, together[name], atol=1e-5)
    assert decide(probes["voice"], together["voice"]).dtype == bool
    assert decide(probes["noise"], together["noise"]).max() == 2
    assert decide(probes["f0"], together["f0"]).shape == (2, 13, 1)
    with pytest.raises(ValueError, match="at least one probe, got none"):
        stack_probes({}, TOTAL)


def test_one_frame_late_is_another_prediction():
    """Negative control: what the offline comparison would say to probes off by a frame."""
    gates = random_gates()
    right = whole(several(), gates)
    late = whole(several(), tuple(np.roll(gate, 1, axis=1) for gate in gates))
    for name in right:
        assert np.abs(right[name] - late[name]).max() > 0.1


def test_probes_of_another_network_are_refused():
    probes = {"voice": random_probe(0, 1)}
    layout, stack = stack_probes(probes, TOTAL)
    state = init_probe_state(layout, 2)
    for gates in ((), random_gates()[:1]):
        with pytest.raises(ValueError, match=f"expected gates of {TOTAL} channels in all, got"):
            probe_step(layout, stack, state, gates)
    highest = int(probes["voice"].channels.max())
    stack_probes(probes, highest + 1)
    message = f"probe 'voice' reads channel {highest} of a network with {highest}"
    with pytest.raises(ValueError, match=message):
        stack_probes(probes, highest)
    dense = ConvFSENet(bins=9, width=8, inner=16, stacks=1, blocks=1)
    with pytest.raises(ValueError, match="expected a gated network"):
        add_probes(dense, {}, probes)


def test_predictions_are_a_mapping_over_one_array():
    probes = several()
    predictions = whole(probes, random_gates())
    assert list(predictions) == ["snr", "voice", "f0", "noise"]  # shortest window first
    assert len(jax.tree.leaves(predictions)) == 1
    assert len(predictions) == len(probes)
    assert {name: value.shape[-1] for name, value in predictions.items()} == {
        name: len(probe.bias) for name, probe in probes.items()
    }
    with pytest.raises(KeyError, match="'pitch'; the probes are snr, voice, f0, noise"):
        predictions["pitch"]


def small_net_with_probes():
    gate = GateConfig(hidden=8, window=2, surrogate="sigmoid", detach=False, bias=0.0)
    net = ConvFSENet(bins=9, width=8, inner=16, stacks=1, blocks=1, gate=gate)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 1, 9)))
    probes = {"voice": random_probe(0, 1, total=8), "noise": random_probe(1, 3, 5, total=8)}
    return *add_probes(net, contract.random_like(shapes, 2), probes), probes


def magnitudes(batch, frames):
    draw = np.random.default_rng(5)
    return np.exp(1.5 * draw.normal(size=(batch, frames, 9)) - 1).astype(np.float32)


def test_contract_of_a_net_with_probes():
    net, variables, _ = small_net_with_probes()
    frames = magnitudes(6, net.receptive_field_frames + 6)
    contract.check_causal_network(net, variables, frames)


def test_a_net_with_probes_is_the_net_and_the_probes():
    net, variables, probes = small_net_with_probes()
    frames = magnitudes(2, 9)
    _, gain, aux = jax.jit(net.apply)(variables, frames)
    of_net = {name: value for name, value in variables.items() if name != "probes"}
    _, plain, plain_aux = jax.jit(net.net.apply)(of_net, frames)
    np.testing.assert_array_equal(gain, plain)
    np.testing.assert_array_equal(aux.gates, plain_aux.gates)
    assert net.cost() == net.net.cost()

    one, state, parts = jax.jit(net.step), net.init_state(2), []
    for t in range(9):
        state, _, told = one(variables, state, frames[:, t : t + 1])
        parts.append(told)
    streamed = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)
    np.testing.assert_array_equal(streamed.gates, aux.gates)
    for name, probe in probes.items():
        for row, bits in enumerate(np.asarray(frame_bits(aux.gates))):
            expected = offline(probe, bits)
            np.testing.assert_allclose(aux.predictions[name][row], expected, atol=1e-5)
            np.testing.assert_allclose(streamed.predictions[name][row], expected, atol=1e-5)
