import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.layers.grouped_lstm import GroupedLSTM
from dynse.layers.lstm import lstm


@pytest.mark.parametrize("interleave", [False, True])
def test_each_group_hears_its_part_alone_and_the_outputs_are_joined(interleave):
    layer = GroupedLSTM(6, 3, interleave=interleave)
    x = np.random.default_rng(0).normal(size=(2, 4, 9)).astype(np.float32)
    start = jax.tree.map(lambda h: h + 0.3, layer.init_state(2))
    params = jax.jit(layer.init)(jax.random.key(0), start, x)["params"]
    assert set(params) == {"group0", "group1", "group2"}
    assert params["group1"]["input_kernel"].shape == (3, 4 * 2)

    state, y = jax.jit(layer.apply)({"params": params}, start, x)
    parts = [
        lstm(params[f"group{index}"], start[index], x[..., 3 * index : 3 * index + 3])
        for index in range(3)
    ]
    expected = np.empty((2, 4, 6), np.float32)
    for group, (after, h) in enumerate(parts):
        for channel in range(2):
            place = 3 * channel + group if interleave else 2 * group + channel
            expected[..., place] = h[..., channel]
        jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=1e-6), state[group], after)
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_groups_that_do_not_divide_are_named():
    layer = GroupedLSTM(6, 3)
    with pytest.raises(ValueError, match="features that 3 groups divide, got 8"):
        layer.init(jax.random.key(0), layer.init_state(1), jnp.ones((1, 1, 8)))
    with pytest.raises(ValueError, match="features that 4 groups divide, got 6"):
        GroupedLSTM(6, 4).init_state(1)
