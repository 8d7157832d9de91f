import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import torch_layers
from models.complete import (
    check_costs,
    check_kernels_learn,
    check_waveforms,
    counts,
    parameter_shapes,
    random_variables,
    signed,
    train_gradients,
)

from dynse.audio.stft import STFT
from dynse.models.tcnn import TCNN, Block

# 16 - 16 - 8 - 3: strides, paddings and output paddings of all kinds.
SMALL = TCNN(frame_length=16, channels=(2, 3, 4), inner=6, stacks=1, blocks=2)


def test_published_counts_and_widths():
    net = TCNN()
    assert net.widths == (320, 320, 160, 79, 39, 19, 9, 4)
    params, macs, at_outputs = counts(net)
    assert params == 5_053_682
    assert (round(macs / 1e9, 3), round(at_outputs / 1e9, 3)) == (3.594, 4.746)
    shapes = parameter_shapes(net)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 5_053_682
    check_costs(net)
    decoders = [shapes[f"decoder{i}"]["deconv"]["kernel"].shape for i in range(6, -1, -1)]
    inputs, outputs = (128, 128, 64, 64, 32, 32, 32), (64, 32, 32, 16, 16, 16, 1)
    assert decoders == [(2, 5, *pair) for pair in zip(inputs, outputs, strict=True)]
    assert shapes["block17"]["conv1"]["kernel"].shape == (256, 512)
    assert shapes["block17"]["depthwise"]["kernel"].shape == (3, 512)
    assert net.dilations == (1, 2, 4, 8, 16, 32) * 3
    assert net.receptive_field_frames == 7 + 3 * 2 * 63 + 7


def test_the_decoders_give_every_width_back():
    for length, depth in ((40, 1), (43, 4)):
        net = TCNN(frame_length=length, channels=(2,) * depth, inner=2, stacks=1, blocks=1)
        frames = jax.ShapeDtypeStruct((1, 1, length), jnp.float32)
        assert jax.eval_shape(net.apply, parameter_shapes(net), frames)[1].shape == frames.shape


@pytest.mark.parametrize(
    "net",
    [
        TCNN(frame_length=9, channels=(2, 3), inner=4, stacks=1, blocks=2),
        pytest.param(SMALL.clone(stacks=2), marks=pytest.mark.slow),
    ],
    ids=["two-encoders", "three-encoders"],
)
def test_contract(net):
    frames = signed(net, 2, net.receptive_field_frames + 3)
    contract.check_causal_network(net, random_variables(net, 1), frames)


def reference(net, variables, frames):
    """The network in PyTorch."""
    torch = pytest.importorskip("torch")
    params, stats = variables["params"], variables["batch_stats"]
    depth = len(net.channels)

    def finish(name, x):
        x = torch_layers.batch_norm(params[name]["norm"], stats[name]["norm"], x)
        return torch_layers.prelu(params[name]["prelu"], x)

    x = torch_layers.tensor(frames)[:, None]
    strides, paddings = (1, 2, 2), (2, 2, 1)
    encoded, widths = [], [frames.shape[-1]]
    for index in range(depth):
        layer = params[f"encoder{index}"]["conv"]
        x = torch_layers.conv2d(layer, x, strides[index], paddings[index])
        x = finish(f"encoder{index}", x)
        encoded.append(x)
        widths.append(x.shape[-1])

    shape = x.shape
    # Our order of the channels of the blocks: of all channels of one frequency, the next one's.
    h = x.permute(0, 3, 1, 2).reshape(shape[0], -1, shape[2])
    for index in range(net.stacks * net.blocks):
        name = f"block{index}"
        h = block(params[name], stats[name], h, 2 ** (index % net.blocks))
    x = h.reshape(shape[0], shape[3], shape[1], shape[2]).permute(0, 2, 3, 1)

    for index in range(depth - 1, -1, -1):
        x = torch.cat([x, encoded[index]], 1)
        stride, padding = strides[index], paddings[index]
        more = widths[index] - (stride * (x.shape[-1] - 1) - 2 * padding + 5)
        x = torch_layers.deconv2d(params[f"decoder{index}"]["deconv"], x, stride, padding, more)
        x = finish(f"decoder{index}", x) if index else x
    return x[:, 0].numpy()


def block(params, stats, x, dilation):
    """The residual block in PyTorch, x (B, C, T)."""
    h = torch_layers.pointwise(params["conv1"], x)
    h = torch_layers.prelu(params["prelu1"], h)
    h = torch_layers.batch_norm(params["norm1"], stats["norm1"], h)
    h = torch_layers.depthwise(params["depthwise"], h, dilation)
    h = torch_layers.prelu(params["prelu2"], h)
    h = torch_layers.batch_norm(params["norm2"], stats["norm2"], h)
    return x + torch_layers.pointwise(params["conv2"], h)


def test_the_residual_block_is_that_of_pytorch():
    own, x = Block(6, 4), np.random.default_rng(0).normal(size=(2, 11, 5)).astype(np.float32)
    state = jnp.zeros((2, 8, 6))
    shapes = jax.eval_shape(lambda key: own.init(key, state, x, train=False), jax.random.key(0))
    variables = contract.random_like(shapes, 1)
    after, y = jax.jit(lambda: own.apply(variables, state, x, train=False))()
    expected = block(
        variables["params"], variables["batch_stats"], torch_layers.tensor(x).transpose(1, 2), 4
    )
    np.testing.assert_allclose(y, expected.transpose(1, 2), atol=1e-5)
    assert after.shape == state.shape


def test_the_net_is_that_of_pytorch():
    variables, frames = random_variables(SMALL), signed(SMALL, 2, 9)
    _, output, aux = jax.jit(SMALL.apply)(variables, frames)
    expected = reference(SMALL, variables, frames)
    np.testing.assert_allclose(output, expected, atol=1e-5 * np.abs(expected).max())
    assert aux.gates == aux.scores == ()


def test_training_moves_the_statistics_drops_skips_and_every_kernel_learns():
    variables, frames = random_variables(SMALL), signed(SMALL, 2, 4)
    gradients, dropped, stats = train_gradients(SMALL, variables, frames, key=jax.random.key(0))
    check_kernels_learn(gradients)
    moved = jax.tree.map(lambda a, b: bool((a != b).all()), stats, variables["batch_stats"])
    assert jax.tree.all(moved)
    run = jax.jit(lambda: SMALL.apply(variables, frames, train=True, mutable=["batch_stats"]))
    (_, kept, _), _ = run()
    assert np.abs(np.asarray(dropped) - np.asarray(kept)).max() > 1e-2


def test_it_enhances_waveforms():
    stft = STFT(16, 16, 8)
    check_waveforms(SMALL, random_variables(SMALL), stft)
    transform = SMALL.transform(stft)
    noisy = signed(SMALL, 1, 2)[0]
    seen = transform.forward(noisy)
    assert seen.shape[:2] == stft.forward(noisy).shape[:2]
    same = transform.inverse(SMALL.estimate(0 * seen, SMALL.inputs(seen)), noisy.shape[1])
    np.testing.assert_allclose(same, noisy, atol=1e-6)
    np.testing.assert_array_equal(SMALL.target(seen, 2 * seen), seen)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"expected frames \(B, T, 16\), got \(1, 2, 15\)"):
        SMALL.apply({}, jnp.ones((1, 2, 15)))
    with pytest.raises(ValueError, match="frames of 8 are too short for 4 encoders"):
        parameter_shapes(TCNN(frame_length=8, channels=(2, 2, 2, 2)))
