"""Nets of a size."""

import pytest

from dynse.layers.cost import total_params
from dynse.training.nets import (
    ConvFSENetConfig,
    FDNNConfig,
    GCRNConfig,
    LSTMConfig,
    NsNet2Config,
    TCNNConfig,
    narrowed,
    net_of_size,
)

BINS = 161


def parameters(net):
    return total_params(net.build(BINS).cost())


@pytest.mark.parametrize(
    "net",
    [
        FDNNConfig((512, 512, 512)),
        LSTMConfig((256, 256)),
        TCNNConfig(),
        GCRNConfig(),
        ConvFSENetConfig(),
        NsNet2Config(),
    ],
    ids=lambda net: net.kind,
)
@pytest.mark.parametrize("share", [2, 20])
def test_the_widest_net_of_a_size(net, share):
    most = parameters(net) // share
    found = net_of_size(net, BINS, most)
    assert parameters(found) <= most
    assert parameters(found) > 0.7 * most  # widths are whole numbers
    assert net_of_size(net, BINS, parameters(net)) is net


def test_a_narrowed_fdnn():
    assert narrowed(FDNNConfig((512, 100, 3)), 0.1) == FDNNConfig((51, 10, 1))


def test_no_net_is_narrower_than_one_unit():
    assert net_of_size(FDNNConfig((8, 8)), BINS, 10) == FDNNConfig((1, 1))
