"""The integer net against the int64 oracle, bit for bit; and its own promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quantization import nets
from quantization.nets import LAYERS, random_genome, run_integer, signal, small_net
from quantization.oracle import Oracle, half_to_even
from quantization.uniform_noise import float_output, predicted_snr_db, snr_db

from dynse.quantization import (
    DenseLayer,
    GRULayer,
    apply_fake,
    apply_integer,
    build,
    calibrate,
    dequantize_output,
    homogeneous,
    init_state,
    quantize_input,
)
from dynse.quantization.linear import (
    accumulate,
    exact_in_float32,
    pick_linear,
)
from dynse.quantization.net import tensor_names

ROWS, FRAMES = 500, 10


def oracle_state(net, state):
    return [np.asarray(own) if len(own) else None for own in state]


def _codes(seed):
    """Codes of the input: as calibrated, and rows far outside of that range, at both ends."""
    _, net = small_net()
    x = signal(seed, ROWS, FRAMES)
    x[::3] *= 30
    x[1::50] = np.where(x[1::50] > 0, np.inf, -np.inf)
    x[2, 0, 0] = np.nan
    return np.array(quantize_input(net, x))


@pytest.mark.parametrize("case", range(20))
def test_integer_net_is_the_oracle(case):
    """20 cases of 5,000 GRU steps, 100,000 in all, every result equal."""
    draw = np.random.default_rng(case)
    _, net = small_net(*[("minmax", "minmax"), ("mse", "mse"), ("percentile", "minmax")][case % 3])
    genome = random_genome(draw)
    qx = _codes(case)
    state = init_state(net, genome, ROWS)
    if case % 2:  # from any state, not only from h = 0
        state = tuple(
            jnp.asarray(draw.integers(0, own.max() + 1, own.shape), jnp.int32) if len(own) else ()
            for own in state
        )
    last, q = run_integer(net, genome, state, qx)
    oracle = Oracle(net, genome)
    expected_last, expected = oracle(oracle_state(net, state), qx)
    np.testing.assert_array_equal(q, expected)
    for own, other in zip(last, expected_last, strict=True):
        if other is not None:
            np.testing.assert_array_equal(own, other)
    assert oracle.saturated > 0.005 * oracle.results, "nothing saturated: the case is too tame"
    assert len(np.unique(expected)) > 1


def test_extreme_weights():
    """Parameters ten times those that were calibrated: nearly everything saturates."""
    loud = nets.net_params(seed=5, spread=10.0)
    ranges = calibrate(LAYERS, nets.net_params(), [signal(1, 4, 20)])
    net = build(LAYERS, loud, ranges)
    genome = random_genome(np.random.default_rng(3))
    qx = _codes(2)
    state = init_state(net, genome, ROWS)
    oracle = Oracle(net, genome)
    _, expected = oracle(oracle_state(net, state), qx)
    np.testing.assert_array_equal(run_integer(net, genome, state, qx)[1], expected)
    assert oracle.saturated > 0.1 * oracle.results


def test_grus_in_a_row():
    """The second takes its input at the width of the first's last operation."""
    layers = (GRULayer("a"), GRULayer("b"))
    draw = np.random.default_rng(0)
    params = {"a": nets.gru_params(draw, 5, 6, 2.0), "b": nets.gru_params(draw, 6, 4, 2.0)}
    net = build(layers, params, calibrate(layers, params, [signal(1, 4, 20)]))
    run = jax.jit(apply_integer)
    for case in range(3):
        genome = random_genome(draw, layers)
        qx = quantize_input(net, signal(case, 16, FRAMES))
        state = init_state(net, genome, 16)
        _, expected = Oracle(net, genome)(state, qx)
        np.testing.assert_array_equal(run(net, genome, state, qx)[1], expected)


def _tied_net():
    """Scales in ratios of 1 / 2, so that sums often end on halves."""
    layers = (GRULayer("gru"),)
    params = {"gru": nets.gru_params(np.random.default_rng(0), 5, 7, 2.0)}
    ranges = dict.fromkeys(tensor_names(layers), (-1.0, 1.0))
    ranges |= {f"gru/{name}": (-2.0, 2.0) for name in ("r_pre", "z_pre", "n_pre", "h")}
    return build(layers, params, ranges)


def test_another_rounding_would_be_seen():
    """Negative control: an oracle that rounds halves to even is not this net."""
    net, qx = _tied_net(), _codes(0)
    genome = np.asarray(homogeneous(net.layers, 5))
    state = init_state(net, genome, ROWS)
    _, q = run_integer(net, genome, state, qx)
    _, expected = Oracle(net, genome)(state, qx)
    _, even = Oracle(net, genome, half_to_even)(state, qx)
    np.testing.assert_array_equal(q, expected)
    assert (even != expected).mean() > 0.01


def test_one_compilation_for_all_genomes():
    params, net = small_net()
    traces = []

    @jax.jit
    def both(net, params, genome, qx, x):
        traces.append(1)
        state = init_state(net, genome, qx.shape[0])
        return apply_integer(net, genome, state, qx), apply_fake(net, params, genome, state, x)

    x = signal(0, 2, 3)
    for case in range(5):
        genome = random_genome(np.random.default_rng(case))
        jax.eval_shape(both, net, params, genome, quantize_input(net, x), x)
    # Another calibration is other numbers in the same arrays.
    jax.eval_shape(both, small_net("mse")[1], params, genome, quantize_input(net, x), x)
    assert len(traces) == 1


def test_a_genome_that_is_static_would_be_compiled_anew():
    """Negative control of the count."""
    _, net = small_net()
    traces = []

    def count(genome, state, qx):
        traces.append(1)
        return apply_integer(net, np.asarray(genome), state, qx)

    traced = jax.jit(count, static_argnums=0)
    for bits in (3, 4):
        genome = tuple(int(b) for b in homogeneous(LAYERS, bits))
        jax.eval_shape(
            traced, genome, init_state(net, np.array(genome), 2), jnp.zeros((2, 3, 5), int)
        )
    assert len(traces) == 2


@pytest.mark.parametrize("sizes", [(1,) * 10, (5, 5)])
def test_any_split_into_blocks_gives_the_same_bits(sizes):
    _, net = small_net()
    genome = random_genome(np.random.default_rng(9))
    qx = _codes(1)[:4]
    state = init_state(net, genome, 4)
    whole_state, whole = run_integer(net, genome, state, qx)
    parts, start = [], 0
    for size in sizes:
        state, part = run_integer(net, genome, state, qx[:, start : start + size])
        parts.append(part)
        start += size
    np.testing.assert_array_equal(jnp.concatenate(parts, axis=1), whole)
    for own, other in zip(state, whole_state, strict=True):
        np.testing.assert_array_equal(own, other)


def test_a_population_mapped_is_each_genome_alone():
    _, net = small_net()
    genomes = np.stack([random_genome(np.random.default_rng(seed)) for seed in range(3)])
    qx = _codes(4)[:4]

    @jax.jit
    def population(net, genomes, qx):
        return jax.vmap(
            lambda genome: apply_integer(net, genome, init_state(net, genome, 4), qx)[1]
        )(genomes)

    together = population(net, genomes, qx)
    for genome, q in zip(genomes, together, strict=True):
        alone = run_integer(net, genome, init_state(net, genome, 4), qx)[1]
        np.testing.assert_array_equal(q, alone)


def test_codes_are_within_their_width():
    _, net = small_net()
    for bits in (2, 5, 8):
        genome = homogeneous(LAYERS, bits)
        state, q = run_integer(net, genome, init_state(net, genome, ROWS), _codes(0))
        for codes in (q, *jax.tree.leaves(state)):
            assert codes.dtype == jnp.int32
            assert codes.min() >= 0
            assert codes.max() <= 2**bits - 1


def _output_snr_db(net, x, y, bits):
    """SNR of the integer net's output against the float net's."""
    genome = homogeneous(net.layers, bits)
    state = init_state(net, genome, len(x))
    _, q = run_integer(net, genome, state, quantize_input(net, x))
    return snr_db(np.asarray(dequantize_output(net, genome, q)), y)


@pytest.mark.parametrize("weights", ["minmax", "mse"])
@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_the_error_is_that_of_uniform_noise(method, weights):
    """At 8, 6 and 4 bits as predicted, up to what the noise draws differ by; at 2 bits no use.

    One net is one draw, so three standard deviations of the draws are allowed. The model knows no
    clipping: at 2 bits it does not hold, and there the error is as large as the output varies.
    """
    params, net = small_net(method, weights)
    ranges = calibrate(LAYERS, params, [signal(1, 8, 40)], method=method)
    x = signal(7, 8, 20)
    y = float_output(LAYERS, params, x)
    found = {bits: _output_snr_db(net, x, y, bits) for bits in (8, 6, 4, 2)}
    for bits in (8, 6, 4):
        mean, deviation = predicted_snr_db(LAYERS, params, ranges, x, bits)
        assert abs(found[bits] - mean) < 3 * deviation
        # Negative control: that of the net with two bits less is not within it.
        assert abs(found[bits - 2] - mean) > 3 * deviation
    assert found[2] < 0 < found[4]


def test_float32_matmul_is_used_only_where_it_is_exact():
    inputs = 700  # 700 * 127 * 255 > 2^24
    draw = np.random.default_rng(0)
    kernel = np.sign(draw.normal(size=(inputs, 4))).astype(np.float32)
    kernel[:, 1:] *= draw.uniform(0, 1, (inputs, 3))
    layers = (DenseLayer("fc"),)
    params = {"fc": {"kernel": kernel, "bias": np.zeros(4, np.float32)}}
    ranges = {"input": (0.0, 1.0), "fc": (-60.0, 60.0)}
    net = build(layers, params, ranges)
    linear = net.parts[0].linear
    assert not linear.exact
    picked = pick_linear(linear, 8, 8, -128, 127)
    assert picked.kernel.dtype == jnp.int32

    # Signs as the weights' and odd sums: beyond 2^24 float32 has even integers only.
    x = 255 * (kernel[:, 0] > 0).astype(np.int32)[None] - 255 * (kernel[:, 0] < 0)[None]
    x[0, 0] -= np.sign(x[0, 0])
    expected = x.astype(np.int64) @ np.asarray(picked.kernel, np.int64)
    assert abs(expected[0, 0]) > 2**24
    assert expected[0, 0] % 2
    np.testing.assert_array_equal(accumulate(picked, jnp.asarray(x)), expected)
    wrong = accumulate(picked._replace(kernel=picked.kernel.astype(jnp.float32)), jnp.asarray(x))
    assert (np.asarray(wrong) != expected).any(), "float32 would have done: no control"

    small = build(layers, {"fc": {"kernel": kernel[:500], "bias": np.zeros(4, np.float32)}}, ranges)
    assert small.parts[0].linear.exact
    assert pick_linear(small.parts[0].linear, 8, 8, -128, 127).kernel.dtype == jnp.float32


def test_bound_of_exact_sums():
    assert exact_in_float32(400 * 127)
    assert exact_in_float32((2**24 - 1) // 255)
    assert not exact_in_float32(2**24 // 255 + 1)


def test_degenerate_nets():
    """Weights of zero, a constant input, tensors that were always 0: defined, equal the oracle."""
    params = jax.tree.map(np.zeros_like, nets.net_params())
    params["out"]["bias"] = np.array([0.5, 0.0, -0.25], np.float32)
    x = np.zeros((4, FRAMES, nets.INPUTS), np.float32)
    net = build(LAYERS, params, calibrate(LAYERS, params, [x]))
    for bits in (2, 8):
        genome = homogeneous(LAYERS, bits)
        state = init_state(net, genome, 4)
        qx = quantize_input(net, x)
        _, q = run_integer(net, genome, state, qx)
        _, expected = Oracle(net, genome)(oracle_state(net, state), qx)
        np.testing.assert_array_equal(q, expected)
        y = dequantize_output(net, genome, q)
        step = 0.75 / (2**bits - 1)
        np.testing.assert_allclose(y, np.broadcast_to(params["out"]["bias"], y.shape), atol=step)


def test_wrong_arguments():
    params, net = small_net()
    with pytest.raises(ValueError, match=r"expected 20 genes, got shape \(3,\)"):
        apply_integer(net, jnp.array([8, 8, 8]), (), jnp.zeros((1, 1, 5), jnp.int32))
    with pytest.raises(ValueError, match="got none of"):
        build(LAYERS, params, {"input": (0, 1)})
    with pytest.raises(ValueError, match="names of their own"):
        build((LAYERS[0], LAYERS[0]), params, {})
    with pytest.raises(ValueError, match="'softplus'"):
        DenseLayer("fc", "softplus")
    with pytest.raises(ValueError, match="2 to 8 bits, got 9"):
        homogeneous(LAYERS, 9)
