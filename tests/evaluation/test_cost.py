import pytest

from dynse.evaluation.cost import cost_table, cost_totals, layer_table
from dynse.layers.cost import LayerCost

# 100 MACs always; 8 channels of 5 MACs of 60 behind gate 0; 4 channels of 10 behind gate 1.
LAYERS = [
    LayerCost("front", 10, 100),
    LayerCost("block0/conv", 20, 60, gate=0, channels=8, gated_macs=5),
    LayerCost("block1/conv", 30, 40, gate=1, channels=4, gated_macs=10),
]


def test_totals_by_hand():
    totals = cost_totals(LAYERS, [0.25, 0.5])
    assert (totals.params, totals.bytes, totals.macs) == (60, 240, 200)
    assert totals.active_macs == 100 + (60 - 5 * 6) + (40 - 10 * 2)
    assert totals.macs_per_s == 200 * 62.5
    assert totals.active_macs_per_s == 150 * 62.5
    assert totals.saving(200) == pytest.approx(0.25)
    assert cost_totals(LAYERS, [1, 1]).active_macs == 200
    assert cost_totals(LAYERS, [1, 1], bytes_per_param=1).bytes == 60
    assert cost_totals(LAYERS[:1]).active_macs == 100


def test_wrong_kept_fractions_are_refused():
    with pytest.raises(ValueError, match="of 2 gates, got 1"):
        cost_totals(LAYERS, [0.5])
    with pytest.raises(ValueError, match="of 0 gates, got 1"):
        cost_totals(LAYERS[:1], [0.5])
    with pytest.raises(ValueError, match="in 0 to 1"):
        cost_totals(LAYERS, [0.5, 25])
    with pytest.raises(ValueError, match="must be positive"):
        cost_totals(LAYERS[:1]).saving(0)


def test_layer_table_ends_with_the_total():
    table = layer_table(LAYERS, [0.25, 0.5])
    assert table.rows[1] == ("block0/conv", "20", "80", "60", "30", "0.002", "20.0")
    assert table.rows[-1] == ("total", "60", "240", "200", "150", "0.009", "100.0")


def test_cost_table():
    nets = {"dense": cost_totals(LAYERS[:1]), "gated": cost_totals(LAYERS, [0.25, 0.5])}
    table = cost_table(nets, dense="dense")
    assert table.rows[0][-2:] == ("-", "+0.0 %")
    assert table.rows[1][-2:] == ("0.375", "-50.0 %")
    assert "saved" not in " ".join(cost_table(nets).header)
