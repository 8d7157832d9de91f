"""nsNet2 in integers stays near the float network, block by block as at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import QUICK
from quantization.uniform_noise import predicted_snr_db, snr_db

from dynse.models.integer_nsnet2 import LAYERS, IntegerNsNet2, quantize_nsnet2
from dynse.models.nsnet2 import NsNet2, feature_statistics
from dynse.quantization import calibrate, genome_length, homogeneous

MODEL = NsNet2(bins=9, first=12, hidden=10, wide=14)
FRAMES = jnp.asarray(np.random.default_rng(0).gamma(1.0, size=(6, 20, 9)), jnp.float32)


@pytest.fixture(scope="module")
def variables():
    found = jax.jit(MODEL.init)(jax.random.key(0), FRAMES[:1])
    # Larger weights than at the start of a training, so that gains leave the middle.
    params = jax.tree.map(lambda leaf: 3 * leaf, found["params"])
    return {"params": params, "batch_stats": feature_statistics([FRAMES])}


@pytest.fixture(scope="module")
def net(variables):
    return quantize_nsnet2(MODEL, variables, [FRAMES])


@pytest.fixture(scope="module")
def run(variables, net):
    apply = jax.jit(IntegerNsNet2(MODEL).apply, compiler_options=QUICK)

    def run(bits, frames, state=None):
        # The net is an argument: as a constant, its tables would be folded into the program.
        own = {"net": net, "genome": bits, "batch_stats": variables["batch_stats"]}
        return apply(own, frames, state)

    return run


def test_the_error_is_that_of_uniform_noise(variables, run):
    """The same model of the noise as in the tests of `dynse.quantization`, on this net."""
    params = variables["params"]
    features = MODEL.apply(variables, FRAMES, method="log_features")
    ranges = calibrate(LAYERS, params, [features])
    _, gain, _ = jax.jit(MODEL.apply)(variables, FRAMES)
    found = {}
    for bits in (8, 6, 4):
        found[bits] = snr_db(np.asarray(run(homogeneous(LAYERS, bits), FRAMES)[1]), gain)
        mean, deviation = predicted_snr_db(LAYERS, params, ranges, features, bits)
        assert abs(found[bits] - mean) < 3 * deviation
        # Negative control: one bit is 6 dB.
        fewer, _ = predicted_snr_db(LAYERS, params, ranges, features, bits - 1)
        assert abs(found[bits] - fewer) > 3 * deviation


def test_any_split_gives_the_same_bits(run):
    genome = jax.random.randint(jax.random.key(1), (genome_length(LAYERS),), 2, 9)
    _, whole, _ = run(genome, FRAMES)
    state, first, _ = run(genome, FRAMES[:, :7])
    _, second, _ = run(genome, FRAMES[:, 7:], state)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)


def test_no_gain_is_below_the_floor(variables, net, run):
    """As the float net does at inference; the rest of the gains stay as they are."""
    floored = dataclasses.replace(MODEL, gain_floor_db=-6.0)
    genome = homogeneous(LAYERS, 8)
    own = {"net": net, "genome": genome, "batch_stats": variables["batch_stats"]}
    _, gain, _ = jax.jit(IntegerNsNet2(floored).apply, compiler_options=QUICK)(own, FRAMES)
    _, free, _ = run(genome, FRAMES)
    floor = np.float32(10 ** (-6 / 20))
    assert (np.asarray(free) < floor).any(), "nothing to floor: no test"
    np.testing.assert_array_equal(gain, np.maximum(free, floor))


def test_the_cost_is_that_of_the_integer_arrays(net):
    """A MAC for each weight, a parameter for each weight and bias, layer by layer."""
    assert genome_length(LAYERS) == 38
    costs = IntegerNsNet2(MODEL).cost()
    for cost, layer, part in zip(costs, LAYERS, net.parts, strict=True):
        gru = hasattr(part, "linears")
        linears = list(part.linears.values()) if gru else [part.linear]
        weights = sum(linear.kernel[0].size for linear in linears)
        biases = sum(linear.bias[0, 0].size for linear in linears)
        assert (cost.path, cost.macs, cost.params) == (layer.name, weights, weights + biases)


def test_a_net_without_the_first_relu_is_refused(variables):
    linear = NsNet2(bins=9, first=12, hidden=10, wide=14, first_relu=False)
    with pytest.raises(ValueError, match="a ReLU after its first layer"):
        quantize_nsnet2(linear, variables, [FRAMES])
