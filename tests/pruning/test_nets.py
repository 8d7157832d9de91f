"""The library's own nets: the rule for groups, Algorithm 1, masks, and units removed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.layers.cost import total_macs
from dynse.models.conv_fsenet import ConvFSENet, GateConfig
from dynse.models.fdnn import FDNN
from dynse.models.gcrn import GCRN
from dynse.models.lstm import LSTMMapping
from dynse.models.nsnet2 import NsNet2
from dynse.models.tcnn import TCNN
from dynse.models.waveform import signal_path
from dynse.pruning import (
    analyze_sensitivity,
    apply_masks,
    group_magnitudes,
    groups_by_rank,
    make_sweep,
    masks_by_thresholds,
    named_tensors,
    ratio_thresholds,
    set_tensors,
    shrink,
)

BATCH, FRAMES, BINS = 2, 6, 9
MODELS = {
    "conv_fsenet": ConvFSENet(
        bins=BINS, width=8, inner=12, stacks=1, blocks=1, gate=GateConfig(hidden=4, bias=0.0)
    ),
    "nsnet2": NsNet2(bins=BINS, first=8, hidden=8, wide=10),
}
ALPHA = 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_each_tensor_at_its_ratio_and_one_step_beyond(name):
    model = MODELS[name]
    frames = np.abs(np.random.default_rng(0).standard_normal((BATCH, FRAMES, BINS)))
    frames = frames.astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(1), frames)
    # Larger than at the start of a training: every tensor matters.
    params = jax.tree.map(lambda leaf: 3 * leaf, variables["params"])
    variables = {**variables, "params": params}
    target = jax.jit(model.apply)(variables, frames)[1]

    def loss(params, batch):
        gain = model.apply({**variables, "params": params}, batch[0])[1]
        return jnp.square(gain - batch[1]).mean()

    groups = groups_by_rank(params)
    batch = (frames, target)
    found = analyze_sensitivity(make_sweep(loss), params, groups, [batch], alpha=ALPHA)
    assert set(found.ratios) == set(groups)
    assert len(set(found.ratios.values())) > 2
    alone = jax.jit(loss)
    magnitudes = group_magnitudes(params, groups)
    for path, ratio in found.ratios.items():
        for further, limit in ((0, True), (5, False)):
            if ratio + further > 100:
                continue
            (threshold,) = ratio_thresholds(magnitudes[path], [ratio + further])
            masks = masks_by_thresholds(params, groups, {path: threshold})
            increase = float(alone(apply_masks(params, masks), batch)) - found.loss
            assert (increase <= ALPHA) == limit, (path, ratio, further, increase)
    masks = masks_by_thresholds(params, groups, found.thresholds)
    assert set(named_tensors(masks)) == set(groups)


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (FDNN(bins=9, hidden=(4, 4)), {"matrix"}),
        (LSTMMapping(bins=9, hidden=(4, 4)), {"matrix"}),
        (
            TCNN(frame_length=40, channels=(2, 2, 3), inner=4, stacks=1, blocks=1),
            {"convolution", "depthwise", "pointwise"},
        ),
        (GCRN(bins=9, channels=(2, 4)), {"matrix", "convolution"}),
    ],
    ids=["fdnn", "lstm", "tcnn", "gcrn"],
)
def test_groups_of_the_four_nets(model, kinds):
    """Every kernel has the groups of its kind of layer, and nothing else has."""
    frames = jnp.zeros((1, 1, *signal_path(model).frame_shape))
    params = jax.eval_shape(model.init, jax.random.key(0), frames)["params"]
    axes = {"matrix": (1,), "convolution": (0, 1), "depthwise": (0,), "pointwise": ()}

    def kind(path, rank):
        if rank == 4:
            return "convolution"
        if path.startswith("block"):
            return "depthwise" if "depthwise" in path else "pointwise"
        return "matrix"

    found = {
        path: kind(path, tensor.ndim)
        for path, tensor in named_tensors(params).items()
        if path.endswith("kernel")
    }
    assert groups_by_rank(params) == {path: axes[name] for path, name in found.items()}
    assert set(found.values()) == kinds


@pytest.mark.parametrize("name", ["fdnn", "lstm"])
def test_the_same_net_with_narrower_layers(name):
    """Structured pruning, then the units without a purpose removed: a net of the same class."""
    if name == "fdnn":
        model = FDNN(bins=BINS, hidden=(12, 10))
        chain = [("fc1", jax.nn.relu), ("fc2", jax.nn.relu), ("fc3", jax.nn.sigmoid)]
    else:
        model = LSTMMapping(bins=BINS, hidden=(8, 6))
        chain = [("lstm1", None), ("lstm2", None), ("fc", jax.nn.relu)]
    frames = np.abs(np.random.default_rng(0).standard_normal((BATCH, FRAMES, BINS)))
    frames = frames.astype(np.float32)
    params = jax.jit(model.init)(jax.random.key(1), frames)["params"]
    # The weights that leave a unit shrink with its number, to the next layer and to its own.
    first = f"{chain[0][0]}/kernel", f"{chain[0][0]}/input_kernel"
    faded = {
        path: tensor * 0.5 ** jnp.arange(len(tensor))[:, None]
        for path, tensor in named_tensors(params).items()
        if tensor.ndim == 2 and path not in first
    }
    params = set_tensors(params, faded)
    groups = groups_by_rank(params)
    magnitudes = group_magnitudes(params, groups)
    thresholds = {path: ratio_thresholds(magnitudes[path], [50])[0] for path in faded}
    pruned = apply_masks(params, masks_by_thresholds(params, groups, thresholds))

    smaller, units = shrink(pruned, chain)
    hidden = tuple(len(units[path]) for path, _ in chain[:-1])
    assert hidden == ((6, 5) if name == "fdnn" else (4, 3))
    narrower = model.clone(hidden=hidden)
    expected = jax.jit(model.apply)({"params": pruned}, frames)[1]
    enhanced = jax.jit(narrower.apply)({"params": smaller}, frames)[1]
    np.testing.assert_allclose(enhanced, expected, atol=1e-5)
    assert np.std(expected) > 1e-3
    assert total_macs(narrower.cost()) < 0.7 * total_macs(model.cost())
