import pytest

from dynse.layers.conv import depthwise_cost, pointwise_cost
from dynse.layers.conv2d import conv2d_cost, deconv2d_cost
from dynse.layers.cost import (
    LayerCost,
    total_active_macs,
    total_macs,
    total_macs_at_outputs,
    total_params,
)
from dynse.layers.grouped_lstm import grouped_lstm_costs
from dynse.layers.layer_norm import layer_norm_cost
from dynse.layers.norm import batch_norm_cost


def test_counts_by_hand():
    assert pointwise_cost("a", 3, 5) == LayerCost("a", 3 * 5 + 5, 15)
    assert pointwise_cost("a", 3, 5, use_bias=False) == LayerCost("a", 15, 15)
    assert depthwise_cost("a", 3, 5) == LayerCost("a", 15, 15)
    assert batch_norm_cost("a", 5) == LayerCost("a", 10, 0)
    assert layer_norm_cost("a", 5) == LayerCost("a", 10, 0)
    assert depthwise_cost("a", 3, 5, use_bias=True) == LayerCost("a", 15 + 5, 15)
    assert conv2d_cost("a", (2, 5), 3, 4, outputs=7) == LayerCost("a", 120 + 4, 7 * 120)
    # Two groups of 2 inputs and 3 units each: 4 gates of 5 weights a unit, two biases a gate.
    assert grouped_lstm_costs("a", 4, 6, 2) == [
        LayerCost(f"a/group{index}", 4 * 3 * (2 + 3) + 8 * 3, 4 * 3 * (2 + 3)) for index in (0, 1)
    ]


def test_a_transposed_convolution_is_counted_at_its_inputs_and_beside_it_at_its_outputs():
    deconv = deconv2d_cost("a", (1, 3), 4, 2, inputs=9, outputs=19)
    assert (deconv.params, deconv.macs, deconv.macs_at_outputs) == (24 + 2, 9 * 24, 19 * 24)
    costs = [deconv, pointwise_cost("b", 4, 2)]
    assert total_macs(costs) == 9 * 24 + 8
    assert total_macs_at_outputs(costs) == 19 * 24 + 8


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
