import pytest

from dynse.layers.conv import depthwise_cost, pointwise_cost
from dynse.layers.cost import LayerCost, total_active_macs, total_macs, total_params
from dynse.layers.norm import batch_norm_cost


def test_counts_by_hand():
    assert pointwise_cost("a", 3, 5) == LayerCost("a", 3 * 5 + 5, 15)
    assert pointwise_cost("a", 3, 5, use_bias=False) == LayerCost("a", 15, 15)
    assert depthwise_cost("a", 3, 5) == LayerCost("a", 15, 15)
    assert batch_norm_cost("a", 5) == LayerCost("a", 10, 0)


def test_a_gate_scales_its_share():
    # 4 channels of 3 MACs each follow gate 1; 2 more MACs are always done.
    gated = LayerCost("a", 14, 14, gate=1, channels=4, gated_macs=3)
    assert gated.active_macs([0.0, 1.0]) == 14
    assert gated.active_macs([1.0, 0.0]) == 2
    assert gated.active_macs([1.0, 0.25]) == 5
    assert LayerCost("b", 7, 7).active_macs([]) == 7


def test_totals():
    costs = [
        pointwise_cost("a", 4, 2, gate=0, channels=2, gated_macs=4),
        pointwise_cost("b", 2, 8, use_bias=False, gate=1, channels=2, gated_macs=8),
        batch_norm_cost("c", 3),
    ]
    assert total_params(costs) == 10 + 16 + 6
    assert total_macs(costs) == 24
    assert total_active_macs(costs, [0.5, 0.25]) == pytest.approx(4 + 4)
