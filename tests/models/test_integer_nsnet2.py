"""nsNet2 in integers stays near the float network, block by block as at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.models.integer_nsnet2 import LAYERS, IntegerNsNet2, quantize_nsnet2
from dynse.models.nsnet2 import NsNet2, feature_statistics
from dynse.quantization import genome_length, homogeneous

MODEL = NsNet2(bins=9, first=12, hidden=10, wide=14)
FRAMES = jnp.asarray(np.random.default_rng(0).gamma(1.0, size=(6, 20, 9)), jnp.float32)


@pytest.fixture(scope="module")
def variables():
    found = jax.jit(MODEL.init)(jax.random.key(0), FRAMES[:1])
    # Larger weights than at the start of a training, so that gains leave the middle.
    params = jax.tree.map(lambda leaf: 3 * leaf, found["params"])
    return {"params": params, "batch_stats": feature_statistics([FRAMES])}


@pytest.fixture(scope="module")
def run(variables):
    net = quantize_nsnet2(MODEL, variables, [FRAMES])
    integer = IntegerNsNet2(MODEL)

    @jax.jit
    def run(bits, frames, state=None):
        own = {"net": net, "genome": bits, "batch_stats": variables["batch_stats"]}
        return integer.apply(own, frames, state)

    return run


def snr_db(value, reference):
    spread = np.square(reference - reference.mean()).sum()
    return 10 * np.log10(spread / np.square(value - reference).sum())


def test_eight_bits_are_near_the_float_net_and_fewer_are_not(variables, run):
    _, gain, _ = jax.jit(MODEL.apply)(variables, FRAMES)
    found = {
        bits: snr_db(np.asarray(run(homogeneous(LAYERS, bits), FRAMES)[1]), np.asarray(gain))
        for bits in (3, 8)
    }
    assert found[8] > 20
    assert found[3] < found[8] - 10


def test_any_split_gives_the_same_bits(run):
    genome = jax.random.randint(jax.random.key(1), (genome_length(LAYERS),), 2, 9)
    _, whole, _ = run(genome, FRAMES)
    state, first, _ = run(genome, FRAMES[:, :7])
    _, second, _ = run(genome, FRAMES[:, 7:], state)
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)


def test_there_are_38_genes_and_the_cost_is_that_of_the_float_net():
    assert genome_length(LAYERS) == 38
    assert IntegerNsNet2(MODEL).cost() == MODEL.cost()


def test_a_net_without_the_first_relu_is_refused(variables):
    linear = NsNet2(bins=9, first=12, hidden=10, wide=14, first_relu=False)
    with pytest.raises(ValueError, match="a ReLU after its first layer"):
        quantize_nsnet2(linear, variables, [FRAMES])
