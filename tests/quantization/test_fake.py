"""Fake quantisation: equal to the integer net, and a gradient that trains it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import QUICK
from quantization import nets
from quantization.nets import LAYERS, random_genome, run_fake, run_integer, signal, small_net

from dynse.quantization import (
    apply_fake,
    dequantize_output,
    homogeneous,
    init_state,
    quantize_input,
    requantize,
)
from dynse.quantization.calibration import _record
from dynse.quantization.fake import fake_quant, straight_through

ONES = np.ones((8, 20, nets.OUTPUTS), np.float32)


def _both(net, params, genome, x):
    """Output and state of the fake and of the integer net."""
    state = init_state(net, genome, len(x))
    fake_state, fake = run_fake(net, params, genome, state, x)
    last, q = run_integer(net, genome, state, quantize_input(net, x))
    return (fake, fake_state), (dequantize_output(net, genome, q), last)


def _assert_equal(fake, integer):
    for own, other in zip(jax.tree.leaves(fake), jax.tree.leaves(integer), strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize("case", range(6))
def test_fake_is_the_integer_net_on_the_grid(case):
    draw = np.random.default_rng(case)
    params, net = small_net(*[("minmax", "minmax"), ("mse", "mse")][case % 2])
    x = signal(case, 8, 20) * draw.choice([1, 20])
    _assert_equal(*_both(net, params, random_genome(draw), x))


def test_other_weights_are_those_of_requantize():
    _, net = small_net()
    other = nets.net_params(seed=3, spread=1.5)  # some beyond the grid of the weights
    genome = random_genome(np.random.default_rng(1))
    x = signal(3, 8, 20)
    fake, _ = _both(net, other, genome, x)
    _, integer = _both(requantize(net, other), other, genome, x)
    _assert_equal(fake, integer)
    _, stale = _both(net, other, genome, x)  # negative control
    assert (np.asarray(fake[0]) != np.asarray(stale[0])).any()


def test_requantize_with_the_same_weights_changes_nothing():
    params, net = small_net()
    again = requantize(net, params)
    assert jax.tree.structure(again) == jax.tree.structure(net)
    _assert_equal(again, net)


def _fake_loss(params, net, genome, x, target):
    _, y = apply_fake(net, params, genome, init_state(net, genome, x.shape[0]), x)
    return jnp.square(y - target).mean()


fake_gradient = jax.jit(jax.value_and_grad(_fake_loss, argnums=(0, 3)), compiler_options=QUICK)


@jax.jit
def _float_loss(params, x, target):
    return jnp.square(_record(LAYERS, params, x)["out"] - target).mean()


def _cosine(a, b):
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_gradient_at_eight_bits_is_near_that_of_the_float_net():
    params, net = small_net()
    x = signal(4, 8, 20)
    _, (to_params, to_x) = fake_gradient(params, net, homogeneous(LAYERS, 8), x, ONES)
    expected, expected_x = jax.grad(_float_loss, argnums=(0, 1))(params, x, ONES)
    for name in params:
        assert _cosine(to_params[name], expected[name]) > 0.98, name
    # Few frames are outside of the input's range, where nothing flows.
    assert _cosine(to_x, expected_x) > 0.9
    # Finite differences of the float net along the gradient: the slope is its norm.
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(to_params)))
    along = []
    for step in (-0.01 / norm, 0.01 / norm):
        moved = jax.tree.map(lambda p, g, step=step: p + step * g, params, to_params)
        along.append(float(_float_loss(moved, x, ONES)))
    assert (along[1] - along[0]) / 0.02 == pytest.approx(norm, rel=0.1)


def test_nothing_flows_where_a_code_saturates():
    scale, low, high = 0.5, -3, 4
    x = jnp.array([-2.0, -1.74, -1.0, 0.1, 2.24, 2.26, 9.0])
    codes = jnp.clip(jnp.round(x / scale), low, high).astype(jnp.int32)
    slope = jax.grad(lambda x: fake_quant(x, codes, scale, low, high).sum())(x)
    np.testing.assert_array_equal(slope, [0, 1, 1, 1, 1, 0, 0])


def test_input_out_of_range_has_no_gradient():
    params, net = small_net()
    x = signal(4, 8, 20)
    x[:, 10, 0] = 1000.0
    _, (_, to_x) = fake_gradient(params, net, homogeneous(LAYERS, 8), x, ONES)
    np.testing.assert_array_equal(to_x[:, 10, 0], 0)
    assert (np.asarray(to_x)[:, 10, 1] != 0).all()


def test_weights_beyond_their_grid_have_no_gradient():
    params, net = small_net()
    loud = jax.tree.map(np.copy, params)
    loud["gru1"]["input_kernel"][0, 0] = 100.0
    _, (to_params, _) = fake_gradient(loud, net, homogeneous(LAYERS, 8), signal(4, 8, 20), ONES)
    slope = np.asarray(to_params["gru1"]["input_kernel"])
    assert slope[0, 0] == 0
    assert slope[0, 1] != 0


def test_straight_through_keeps_the_value_to_the_bit():
    """The usual form smooth + stop_gradient(value - smooth) does not: negative control."""
    draw = np.random.default_rng(0)
    smooth = draw.normal(0, 1000, 1000).astype(np.float32)
    value = np.clip(np.round(smooth * 7) / np.float32(7), -0.9, 0.9).astype(np.float32)
    np.testing.assert_array_equal(straight_through(value, smooth), value)
    assert (smooth + (value - smooth) != value).any()


def test_fine_tuning_helps_and_survives_requantisation():
    params, net = small_net("mse", "mse")
    genome = homogeneous(LAYERS, 3)
    x = signal(11, 8, 20)
    target = np.asarray(_record(LAYERS, params, x)["out"])
    tuned, losses = params, []
    for _ in range(20):
        loss, (slope, _) = fake_gradient(tuned, net, genome, x, target)
        losses.append(float(loss))
        tuned = jax.tree.map(lambda p, g: p - 0.1 * g, tuned, slope)
    assert min(losses[10:]) < 0.8 * losses[0]
    tuned = jax.tree.map(np.asarray, tuned)
    fake, _ = _both(net, tuned, genome, x)
    _, integer = _both(requantize(net, tuned), tuned, genome, x)
    _assert_equal(fake, integer)


def test_state_is_carried_from_block_to_block():
    params, net = small_net()
    genome, x = random_genome(np.random.default_rng(2)), signal(5, 8, 40)
    fake_state = state = init_state(net, genome, 8)
    for block in (x[:, :20], x[:, 20:]):
        fake_state, y = run_fake(net, params, genome, fake_state, block)
        state, q = run_integer(net, genome, state, quantize_input(net, block))
        np.testing.assert_array_equal(y, dequantize_output(net, genome, q))
    _assert_equal(fake_state, state)
