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
from dynse.layers.lstm import LONG_BLOCK
from dynse.models.gcrn import GCRN

# 18 - 8 - 3: one decoder with, one without output padding.
SMALL = GCRN(bins=18, channels=(3, 4))


def test_published_counts_and_widths():
    net = GCRN()
    assert net.widths == (161, 80, 39, 19, 9, 4)
    params, macs, at_outputs = counts(net)
    assert params == 9_771_340
    assert (round(macs / 1e9, 3), round(at_outputs / 1e9, 3)) == (6.575, 9.549)
    shapes = parameter_shapes(net)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 9_771_340
    check_costs(net)
    kernels = [
        (shapes[f"encoder{i}"]["conv"], shapes[f"real{i}"]["deconv"], shapes[f"imag{i}"]["deconv"])
        for i in range(5)
    ]
    widths = [
        tuple(part[half]["kernel"].shape[2:] for part in layers for half in ("linear", "sigmoid"))
        for layers in kernels
    ]
    assert widths == [
        ((2, 16),) * 2 + ((32, 1),) * 4,
        ((16, 32),) * 2 + ((64, 16),) * 4,
        ((32, 64),) * 2 + ((128, 32),) * 4,
        ((64, 128),) * 2 + ((256, 64),) * 4,
        ((128, 256),) * 2 + ((512, 128),) * 4,
    ]
    assert shapes["lstm1"]["group1"]["input_kernel"].shape == (512, 4 * 512)


def test_the_decoders_give_every_width_back():
    nets = [GCRN(bins=bins, channels=(2,) * depth) for bins, depth in ((31, 1), (32, 3))]
    for net in nets:
        shape = (1, 1, *net.frame_shape)
        variables = parameter_shapes(net)
        frames = jax.ShapeDtypeStruct(shape, jnp.float32)
        assert jax.eval_shape(net.apply, variables, frames)[1].shape == shape


# Seeds at which the last decoder's one channel has gradients whose terms, over all frames and
# bins, do not cancel to less than their rounding.
@pytest.mark.parametrize(
    ("net", "seed"),
    [
        (GCRN(bins=9, channels=(3,)), 5),
        pytest.param(SMALL, 3, marks=pytest.mark.slow),
    ],
    ids=["one-encoder", "two-encoders"],
)
def test_contract(net, seed):
    frames = signed(net, 2, LONG_BLOCK + 2)
    contract.check_causal_network(net, random_variables(net, seed), frames)


def reference(net, variables, frames):
    """The network in PyTorch."""
    torch = pytest.importorskip("torch")
    params, stats = variables["params"], variables["batch_stats"]
    depth, elu = len(net.channels), torch.nn.functional.elu

    def norm(name, x):
        return torch_layers.batch_norm(params[name]["norm"], stats[name]["norm"], x)

    x = torch_layers.tensor(frames).permute(0, 3, 1, 2)
    batch, _, length, _ = x.shape
    encoded = []
    for index in range(depth):
        layer = params[f"encoder{index}"]["conv"]
        x = elu(norm(f"encoder{index}", torch_layers.glu(torch_layers.conv2d, layer, x, 2, 0)))
        encoded.append(x)

    h = x.transpose(1, 2).reshape(batch, length, -1)
    for name, number in (("lstm1", "norm1"), ("lstm2", "norm2")):
        parts = [
            torch_layers.lstm(params[name][f"group{index}"], part)
            for index, part in enumerate(h.chunk(net.groups, dim=-1))
        ]
        h = torch.stack(parts, -1).flatten(-2) if name == "lstm1" else torch.cat(parts, -1)
        h = torch_layers.layer_norm(params[number], h)
    h = h.reshape(batch, length, x.shape[1], x.shape[3]).transpose(1, 2)

    spectra = []
    for part in ("real", "imag"):
        d = torch.cat([h, x], 1)
        for index in range(depth - 1, -1, -1):
            width = (encoded[index - 1] if index else torch_layers.tensor(frames)[..., 0]).shape[-1]
            more = width - (2 * (d.shape[-1] - 1) + 3)
            layer = params[f"{part}{index}"]["deconv"]
            d = norm(
                f"{part}{index}", torch_layers.glu(torch_layers.deconv2d, layer, d, 2, 0, more)
            )
            d = elu(torch.cat([d, encoded[index - 1]], 1) if index else d)
        spectra.append(torch_layers.dense(params[f"{part}_fc"], d[:, 0]))
    return torch.stack(spectra, -1).numpy()


def test_the_net_is_that_of_pytorch():
    variables, frames = random_variables(SMALL), signed(SMALL, 2, 6)
    _, output, aux = jax.jit(SMALL.apply)(variables, frames)
    expected = reference(SMALL, variables, frames)
    np.testing.assert_allclose(output, expected, atol=1e-5 * np.abs(expected).max())
    assert aux.gates == aux.scores == ()


def test_training_moves_the_statistics_and_every_kernel_learns():
    variables, frames = random_variables(SMALL), signed(SMALL, 2, 4)
    gradients, _, stats = train_gradients(SMALL, variables, frames, key=jax.random.key(0))
    check_kernels_learn(gradients)
    moved = jax.tree.map(lambda a, b: bool((a != b).all()), stats, variables["batch_stats"])
    assert jax.tree.all(moved)


def test_it_enhances_waveforms():
    check_waveforms(SMALL, random_variables(SMALL), STFT(34, 34, 17))


def test_the_parts_of_a_spectrum_and_back():
    draw = np.random.default_rng(0)
    spectrum = draw.normal(size=(1, 3, 18)) + 1j * draw.normal(size=(1, 3, 18))
    spectrum = jnp.asarray(spectrum, jnp.complex64)
    frames = SMALL.inputs(spectrum)
    assert frames.shape == (1, 3, 18, 2)
    np.testing.assert_array_equal(SMALL.estimate(2 * spectrum, frames), spectrum)
    np.testing.assert_array_equal(SMALL.target(spectrum, 2 * spectrum), frames)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"expected frames \(B, T, 18, 2\), got \(1, 2, 18\)"):
        SMALL.apply({}, jnp.ones((1, 2, 18)))
    with pytest.raises(ValueError, match="9 bins are too few for 4 encoders"):
        parameter_shapes(GCRN(bins=9, channels=(2, 2, 2, 2)))
    with pytest.raises(ValueError, match="features that 2 groups divide, got 9"):
        parameter_shapes(GCRN(bins=18, channels=(2, 3)))
