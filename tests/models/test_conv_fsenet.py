import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.models.conv_fsenet import ConvFSENet, GateConfig

BINS = 9


def magnitudes(batch, frames, bins=BINS, seed=5):
    return jax.random.uniform(jax.random.key(seed), (batch, frames, bins), minval=0.01)


def small_net(site=None, window=2, surrogate="sigmoid", detach=False, **options):
    gate = site and GateConfig(
        site=site, hidden=4, window=window, surrogate=surrogate, detach=detach, bias=0.0
    )
    shape = {"bins": BINS, "width": 6, "inner": 8, "stacks": 1, "blocks": 2}
    return ConvFSENet(**{**shape, "gate": gate, **options})


def random_variables(net, seed=1):
    variables = net.init(jax.random.key(seed), jnp.ones((1, 1, net.bins)))
    return contract.randomized(variables, jax.random.key(seed + 1))


NETS = [
    small_net(),
    small_net("output", 1),
    small_net("output", 2),
    small_net("output", 16),
    small_net("inner", 1),
    small_net("inner", 2),
    small_net("inner", 16),
    small_net(block="original", features="magnitude"),
    small_net("output", 2, block="original"),
    small_net("inner", 16, block="original", taps=2, stacks=2, blocks=1),
]


def name_of(net):
    gate = f"{net.gate.site}{net.gate.window}" if net.gate else "dense"
    return f"{net.block}-{gate}"


@pytest.mark.parametrize("net", NETS, ids=name_of)
def test_contract(net):
    length = net.receptive_field_frames + 6
    contract.check_causal_network(net, random_variables(net), magnitudes(2, length))
