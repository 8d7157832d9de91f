import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.models.conv_fsenet import ConvFSENet, GateConfig
from dynse.models.nsnet2 import NsNet2
from dynse.pruning import (
    get_tensor,
    groups_by_rank,
    named_tensors,
    set_tensors,
    unstructured,
)


def shapes(model):
    frames = jnp.zeros((1, 1, model.bins))
    return jax.eval_shape(model.init, jax.random.key(0), frames)["params"]


def array(*shape):
    return np.zeros(shape, np.float32)


def test_conv_fsenet_with_gates():
    gate = GateConfig(hidden=2)
    model = ConvFSENet(
        bins=9, width=4, inner=6, stacks=1, blocks=2, block="original", gate=gate, exits=(0, 1)
    )
    block = {
        "conv1/kernel": (),
        "conv2/kernel": (),
        "depthwise/kernel": (0,),
        "gate/fc1/kernel": (1,),
        "gate/fc2/kernel": (1,),
    }
    expected = {f"block{index}/{name}": axes for index in (0, 1) for name, axes in block.items()}
    heads = {"front/kernel": (1,), "back/kernel": (1,), "exit0/kernel": (1,)}
    assert groups_by_rank(shapes(model)) == {**expected, **heads}


def test_nsnet2():
    expected = {f"fc{index}/kernel": (1,) for index in (1, 2, 3, 4)}
    for name in ("input_kernel", "hidden_kernel"):
        expected |= {f"gru1/{name}": (1,), f"gru2/{name}": (1,)}
    assert groups_by_rank(shapes(NsNet2(bins=9, first=4, hidden=4, wide=5))) == expected


def test_a_net_from_outside():
    """Lists and names with slashes in them; convolutions of every rank; a norm of rank 2."""
    params = {
        "net/~/conv": {"w": array(3, 3, 2, 4), "b": array(4)},
        "layers": [array(5, 2, 4), array(1, 2, 4), array(4, 7)],
        "deep": {"w": array(3, 3, 3, 2, 4), "scale": array(7, 4), "bias": array(7, 4)},
        "rnn": {"hidden_kernel": array(2, 5, 20), "input_bias": array(2, 20)},
    }
    assert groups_by_rank(params) == {
        "deep/w": (0, 1, 2),
        "layers/0": (0,),
        "layers/1": (0,),
        "layers/2": (1,),
        "net/~/conv/w": (0, 1),
        "rnn/hidden_kernel": (2,),
    }


def test_overrides():
    params = {"odd": {"w": array(4, 3)}, "fc": {"kernel": array(3, 2)}, "b": array(5)}
    overrides = {"odd/w": [0], "fc/kernel": None, "b": ()}
    assert groups_by_rank(params, overrides=overrides) == {"b": (), "odd/w": (0,)}
    assert unstructured({"b": (), "odd/w": (0,)}) == {"b": (), "odd/w": ()}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"fc": (0,)}, "expected a path of fc/kernel; got 'fc'"),
        ({"fc/kernel": (2,)}, r"axes below 2 for fc/kernel, got \(2,\)"),
        ({"fc/kernel": (0, 0)}, r"got \(0, 0\)"),
    ],
)
def test_wrong_overrides(overrides, message):
    with pytest.raises(ValueError, match=message):
        groups_by_rank({"fc": {"kernel": array(3, 2)}}, overrides=overrides)


def test_tensors_by_path():
    params = {"a": [array(2), {"b": array(3)}], "c/d": array(4)}
    assert list(named_tensors(params)) == ["a/0", "a/1/b", "c/d"]
    assert get_tensor(params, "a/1/b") is params["a"][1]["b"]
    changed = set_tensors(params, {"c/d": "other"})
    assert changed["c/d"] == "other"
    assert changed["a"][0] is params["a"][0]
    assert params["c/d"].shape == (4,)
    with pytest.raises(ValueError, match="a/0, a/1/b, c/d; got 'a'"):
        get_tensor(params, "a")
    with pytest.raises(ValueError, match="got 'nothing'"):
        set_tensors(params, {"nothing": 1})
