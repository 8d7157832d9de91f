import numpy as np
import pytest

from dynse.layers.cost import LayerCost
from dynse.pruning.accounting import (
    Sizes,
    by_group,
    entropy_bits,
    frequency_bits,
    position_bits,
    pruned_macs,
    published_bits,
    sizes,
)

# 6 of 8 weights left, in 3 clusters; 3 of 4 left, not clustered; a bias.
PARAMS = {
    "fc1": {
        "kernel": np.array([[1, 1, 2, 0], [3, 3, 0, 1]], np.float32),
        "bias": np.array([0.5, 0.0, 0.25], np.float32),
    },
    "fc2": {"kernel": np.array([[0.1, 0.2], [0.3, 0.0]], np.float32)},
}
GROUPS = {"fc1/kernel": (1,), "fc2/kernel": (1,)}
BOOKS = {"fc1/kernel": np.array([1, 2, 3, 9], np.float32)}


def test_published_by_hand():
    """n log2 K + 32 K of the clustered tensor, 32 n of the other, 32 of every bias, 0 or not."""
    assert published_bits(PARAMS, GROUPS, BOOKS) == 6 * 2 + 32 * 4 + 3 * 32 + 3 * 32
    assert published_bits(PARAMS, GROUPS, {}) == 6 * 32 + 3 * 32 + 3 * 32
    assert published_bits(PARAMS, {}, {}) == 32 * 15
    empty = {"w": np.zeros((4, 4), np.float32)}
    assert published_bits(empty, {"w": (1,)}, {"w": np.zeros(0)}) == 0


def test_the_papers_own_sizes():
    """From the numbers of parameters alone: 34.54 and 37.27 times 2^20 bytes."""
    for count, size in ((9_054_369, 34.54), (9_771_340, 37.27), (30_217_377, 115.27)):
        params = {"w": np.broadcast_to(np.float32(1), (count,))}
        assert published_bits(params, {}, {}) / 8 / 2**20 == pytest.approx(size, abs=0.005)


def plain_entropy(symbols):
    symbols = list(symbols)
    return sum(-np.log2(symbols.count(symbol) / len(symbols)) for symbol in symbols)


def test_frequencies_by_a_loop():
    symbols = [0, 1, 1, 2, 2, 2, 2, 5]
    assert frequency_bits(np.bincount(symbols)) == pytest.approx(plain_entropy(symbols))
    assert frequency_bits([7]) == 0
    assert frequency_bits([]) == 0
    assert frequency_bits([0, 0]) == 0


@pytest.mark.parametrize("axes", [(), (0,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_positions_by_a_loop(axes):
    rng = np.random.default_rng(4)
    kept = rng.random((3, 4, 5)) < 0.4
    outside = [axis for axis in range(3) if axis not in axes]
    rows = {}
    for index in np.ndindex(kept.shape):
        rows.setdefault(tuple(index[axis] for axis in outside), []).append(bool(kept[index]))
    live = [any(row) for row in rows.values()]
    within = [flag for row in rows.values() if any(row) for flag in row]
    expected = plain_entropy(live) + plain_entropy(within)
    assert position_bits(kept, axes) == pytest.approx(expected)
    assert sorted(map(sorted, by_group(kept, axes).tolist())) == sorted(map(sorted, rows.values()))


def test_whole_groups_are_cheaper_by_group_and_single_weights_are_not():
    rng = np.random.default_rng(0)
    columns = np.broadcast_to((rng.random(100) < 0.4)[:, None], (100, 50))
    assert position_bits(columns, (1,)) < 100
    assert position_bits(columns, ()) > 4000
    single = rng.random((400, 5)) < 0.1
    assert position_bits(single, ()) < position_bits(single, (1,))


def test_entropy_by_hand():
    values = PARAMS["fc1"]["kernel"].ravel()
    kept = plain_entropy(values != 0)
    # Code books of 3 of 6 values pay (96 + 8.8 < 192 bits); of 3 of 3, or 2 of 2, they do not.
    clustered = 32 * 3 + plain_entropy(values[values != 0])
    fc2, bias = plain_entropy([1, 1, 1, 0]) + 96, plain_entropy([1, 0, 1]) + 64
    assert entropy_bits(PARAMS, {}) == pytest.approx(kept + clustered + fc2 + bias)
    assert entropy_bits({"w": np.zeros((50, 50), np.float32)}, {}) == 0


def test_sizes_and_rates(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 30)
    found = sizes(path, PARAMS, GROUPS, BOOKS)
    assert found == Sizes(60, (12 + 128 + 192) / 8, entropy_bits(PARAMS, GROUPS) / 8, 30)
    assert found.true_rate == 2
    assert found.published_rate == pytest.approx(60 / 41.5)


@pytest.mark.parametrize("axes", [(2,), (-1,), (0, 0)])
def test_wrong_axes(axes):
    with pytest.raises(ValueError, match="expected distinct axes below 2"):
        by_group(np.zeros((2, 3)), axes)


def test_macs_of_the_weights_that_are_left():
    """6 of 8 weights at 10 positions, 3 of 4 at one; what has no MACs needs no weights."""
    layers = [LayerCost("fc1", 11, 80), LayerCost("norm", 6, 0), LayerCost("fc2", 4, 4)]
    assert pruned_macs(layers, PARAMS, GROUPS) == pytest.approx(60 + 3)
    with pytest.raises(ValueError, match="below 'fc2', got none"):
        pruned_macs(layers, PARAMS, {"fc1/kernel": (1,)})
