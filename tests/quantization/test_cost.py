import jax
import numpy as np
import pytest
from quantization import nets
from quantization.nets import LAYERS, random_genome, small_net

from dynse.quantization import (
    GRU_OPERATIONS,
    DenseLayer,
    build,
    gene_names,
    genome_length,
    homogeneous,
    mac_bits,
    weight_bits,
)

D, H, K = nets.INPUTS, nets.HIDDEN, nets.OUTPUTS
costs = jax.jit(lambda net, genome: (weight_bits(net, genome), mac_bits(net, genome)))


def test_genes():
    names = gene_names(LAYERS)
    assert len(names) == genome_length(LAYERS) == 1 + 17 + 1 + 1
    assert len(set(names)) == len(names)
    assert len(GRU_OPERATIONS) == 17
    assert names[:3] == ("fc1", "gru1/W_ir", "gru1/W_iz")
    assert names[17:] == ("gru1/h", "fc2", "out")
    np.testing.assert_array_equal(homogeneous(LAYERS, 5), [5] * 20)


@pytest.mark.parametrize("bits", [2, 8])
def test_homogeneous_cost_by_hand(bits):
    _, net = small_net()
    weights = D * H + 6 * H * H + H * H + H * K
    biases = H + 6 * H + H + K
    by_weights, by_macs = costs(net, homogeneous(LAYERS, bits))
    assert int(by_weights) == weights * bits + biases * 32
    first = D * H * bits * 8  # the input has 8 bits
    assert int(by_macs) == first + (weights - D * H + 3 * H) * bits * bits


def test_any_genome_by_hand():
    _, net = small_net()
    genome = random_genome(np.random.default_rng(0))
    b = dict(zip(gene_names(LAYERS), genome.tolist(), strict=True))
    macs = D * H * b["fc1"] * 8
    bits = D * H * b["fc1"] + 32 * H
    w = {name.split("/")[1]: bits for name, bits in b.items() if "/" in name}
    for gate in "rzn":
        macs += H * H * (w[f"W_i{gate}"] * b["fc1"] + w[f"W_h{gate}"] * w["h"])
        bits += H * H * (w[f"W_i{gate}"] + w[f"W_h{gate}"]) + 2 * 32 * H
    macs += H * (w["r"] * w["W_hn"] + w["1-z"] * w["n"] + w["z"] * w["h"])
    macs += H * H * b["fc2"] * w["h"] + H * K * b["out"] * b["fc2"]
    bits += H * H * b["fc2"] + 32 * H + H * K * b["out"] + 32 * K
    by_weights, by_macs = costs(net, genome)
    assert (int(by_weights), int(by_macs)) == (bits, macs)


def test_a_net_too_large_for_int32():
    layers = (DenseLayer("fc"),)
    params = {"fc": {"kernel": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32)}}
    net = build(layers, params, {"input": (0.0, 1.0), "fc": (0.0, 1.0)})
    genome = homogeneous(layers, 2)
    assert int(mac_bits(net, genome)) == 4 * 2 * 8
    large = jax.ShapeDtypeStruct((7, 6000, 6000), np.int8)
    part = net.parts[0].replace(linear=net.parts[0].linear.replace(kernel=large))
    with pytest.raises(ValueError, match="fewer than 33554432 MACs a frame, got 36000000"):
        mac_bits(net.replace(parts=(part,)), genome)
