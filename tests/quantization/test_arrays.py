"""The arrays that `build` makes, recomputed from ranges and float parameters in float64.

The oracle of the integer net reads these arrays: a wrong scale of a bias or a wrong table would be
wrong in both. Here every one is held against its definition, at all widths:

    S = (high - low) / (2^b - 1),  Z = round(-low / S),  S_w = max |w| / (2^(b-1) - 1)
    q_w = round(w / S_w),  q_b = round(b / (S_w S_x))
    M 2^-s = a ratio of scales, to half a unit of M's last place
    table[q] = clip(round(f(S_in (q - Z_in)) / S_out) + Z_out)

A rounding is held to lie within 1/2 of what was rounded (the library rounds float32 products, so
2^-22 of it more), which leaves the side of a tie open: the rounding of ties has its own tests.
"""

import jax
import numpy as np
import pytest
from quantization import nets
from quantization.nets import LAYERS

from dynse.quantization import build

BITS = np.arange(2, 9)
SUMS = {
    "r_pre": ("W_ir", "W_hr"),
    "z_pre": ("W_iz", "W_hz"),
    "n_pre": ("W_in", "r*hn"),
    "h": ("(1-z)*n", "z*h"),
}
PRODUCTS = {"r*hn": ("r", "W_hn"), "(1-z)*n": ("1-z", "n"), "z*h": ("z", "h")}
TABLES = {"r": "r_pre", "z": "z_pre", "n": "n_pre"}
LINEARS = ("W_ir", "W_iz", "W_in", "W_hr", "W_hz", "W_hn")
RANGED = (*LINEARS, "r_pre", "z_pre", "n_pre", "r*hn", "(1-z)*n", "z*h", "h")


@pytest.fixture(scope="module")
def ranges():
    """Each tensor's own, and each width's own."""
    draw = np.random.default_rng(0)
    names = ["input", "fc1", "fc2", "out", *(f"gru1/{name}" for name in RANGED)]
    return {
        name: (-draw.uniform(0.3, 2) * np.linspace(0.7, 1, 7), draw.uniform(0.3, 4, 7))
        for name in names
    }


@pytest.fixture(scope="module")
def net(ranges):
    return jax.tree.map(np.asarray, build(LAYERS, nets.net_params(), ranges))


def affine(low, high):
    """Scales and zero points of the seven widths."""
    scale = (high - low) / (2.0**BITS - 1)
    return scale, np.floor(-low / scale + 0.5)


def unit():
    return affine(np.zeros(7), np.ones(7))


def grids_of(ranges):
    """Grids of the GRU's operations."""
    grids = {name: affine(*ranges[f"gru1/{name}"]) for name in RANGED}
    grids |= {name: unit() for name in ("r", "z", "1-z")}
    return grids | {"n": affine(-np.ones(7), np.ones(7))}


def assert_rounded(codes, real):
    """Codes are the real numbers rounded to the nearest."""
    assert (np.abs(codes - real) <= 0.5 + 2.0**-22 * np.abs(real)).all()


def assert_ratio(multiplier, shift, ratio, bits):
    """M of so many bits: rounded by at most 1/2 where M >= 2^(bits - 1)."""
    assert multiplier.shape == shift.shape == np.shape(ratio)
    assert ((multiplier >= 2 ** (bits - 1)) & (multiplier < 2**bits)).all()
    found = multiplier * 2.0 ** -shift.astype(float)
    assert (np.abs(found - ratio) <= 2.0**-bits * ratio).all()


def assert_grid(grid, expected):
    scale, zero_point = expected
    np.testing.assert_allclose(grid.scale, scale, rtol=2**-23)
    np.testing.assert_array_equal(grid.zero_point, zero_point)


def assert_linear(linear, kernel, bias, input_scale, output_scale):
    kernel, bias = kernel.astype(np.float64), bias.astype(np.float64)
    scale = np.abs(kernel).max() / (2.0 ** (BITS - 1) - 1)
    product = scale[:, None] * input_scale  # widths of the weights x of the input
    assert_rounded(linear.kernel, kernel / scale[:, None, None])
    assert_rounded(linear.bias, bias / product[..., None])
    assert_ratio(linear.multiplier, linear.shift, product / output_scale[:, None], 15)
    np.testing.assert_allclose(linear.scale, scale, rtol=2**-23)
    np.testing.assert_allclose(linear.inverse_scale, 1 / scale, rtol=2**-23)
    np.testing.assert_allclose(linear.inverse_bias_scale, 1 / product, rtol=2**-23)


def assert_sum(multiplier_a, multiplier_b, shift, ratio_a, ratio_b):
    """The larger M has 21 bits; both are rounded to the same last place."""
    larger = np.maximum(multiplier_a, multiplier_b)
    assert ((larger >= 2**20) & (larger < 2**21)).all()
    for multiplier, ratio in ((multiplier_a, ratio_a), (multiplier_b, ratio_b)):
        assert (np.abs(multiplier - ratio * 2.0 ** shift.astype(float)) <= 0.5).all()


def assert_table(table, function, argument, value, width_in, width_out):
    """One table, its entries beyond 2^b_in left out."""
    (scale_in, zero_in), (scale_out, zero_out) = (
        (scale[width - 2], zero[width - 2])
        for (scale, zero), width in ((argument, width_in), (value, width_out))
    )
    real = scale_in * (np.arange(2**width_in) - zero_in)
    codes = {"sigmoid": 1 / (1 + np.exp(-real)), "tanh": np.tanh(real)}[function] / scale_out
    limited = np.clip(codes + zero_out, 0, 2**width_out - 1)
    assert_rounded(table[: 2**width_in], limited)


def test_linears_at_all_widths(net, ranges):
    params = nets.net_params()
    gru, grids = params["gru1"], grids_of(ranges)
    relu = affine(np.zeros(7), ranges["fc1"][1])
    fc1, part, fc2, out = net.parts
    assert_linear(fc1.linear, *params["fc1"].values(), affine(*ranges["input"])[0], relu[0])
    for place, name in enumerate(LINEARS):
        side, source = ("input", relu) if place < 3 else ("hidden", grids["h"])
        columns = slice(7 * (place % 3), 7 * (place % 3) + 7)
        kernel, bias = gru[f"{side}_kernel"][:, columns], gru[f"{side}_bias"][columns]
        assert_linear(part.linears[name], kernel, bias, source[0], grids[name][0])
    assert_linear(fc2.linear, *params["fc2"].values(), grids["h"][0], affine(*ranges["fc2"])[0])
    assert_linear(out.linear, *params["out"].values(), unit()[0], affine(*ranges["out"])[0])


def test_grids_at_all_widths(net, ranges):
    fc1, part, fc2, out = net.parts
    assert_grid(net.input_grid, affine(*ranges["input"]))
    np.testing.assert_allclose(
        net.input_inverse_scale, 1 / affine(*ranges["input"])[0], rtol=2**-23
    )
    assert_grid(fc1.grid, affine(np.zeros(7), ranges["fc1"][1]))
    assert_grid(fc2.linear_grid, affine(*ranges["fc2"]))
    assert_grid(fc2.grid, unit())
    assert_grid(out.grid, affine(*ranges["out"]))
    expected = grids_of(ranges)
    assert part.grids.keys() == expected.keys()
    for name, grid in part.grids.items():
        assert_grid(grid, expected[name])


def test_multipliers_at_all_widths(net, ranges):
    part, grids = net.parts[1], grids_of(ranges)
    scale = {name: grid[0] for name, grid in grids.items()}
    for name, (a, b) in SUMS.items():
        ratios = scale[a][:, None, None] / scale[name], scale[b][:, None] / scale[name]
        assert_sum(*part.sums[name], *np.broadcast_arrays(*ratios))
    for name, (a, b) in PRODUCTS.items():
        ratio = scale[a][:, None, None] * scale[b][:, None] / scale[name]
        assert_ratio(*part.products[name], ratio, 14)
    assert_ratio(*part.complement, scale["z"][:, None] / scale["1-z"], 15)


@pytest.mark.parametrize("width_in", [2, 5, 8])
@pytest.mark.parametrize("width_out", [2, 4, 8])
def test_tables(net, ranges, width_in, width_out):
    _, part, fc2, _ = net.parts
    grids = grids_of(ranges)
    for name, argument in TABLES.items():
        function = "tanh" if name == "n" else "sigmoid"
        table = part.tables[name][width_in - 2, width_out - 2]
        assert_table(table, function, grids[argument], grids[name], width_in, width_out)
    own = width_out  # a dense layer has one width
    assert_table(fc2.table[own - 2], "sigmoid", affine(*ranges["fc2"]), unit(), own, own)


def test_wrong_arrays_are_seen(net, ranges):
    """Negative controls: each check fails on arrays that are wrong in one way."""
    kernel, bias = nets.net_params()["out"].values()
    linear, scales = net.parts[3].linear, (unit()[0], affine(*ranges["out"])[0])
    wrong_linears = [
        linear.replace(bias=2 * linear.bias),  # a factor in its scale
        linear.replace(bias=linear.bias.swapaxes(0, 1)),  # the widths the other way round
        linear.replace(multiplier=linear.multiplier + 1),
        linear.replace(shift=linear.shift + 1),
        linear.replace(kernel=linear.kernel[::-1]),
    ]
    for wrong in wrong_linears:
        with pytest.raises(AssertionError):
            assert_linear(wrong, kernel, bias, *scales)
    part, grids = net.parts[1], grids_of(ranges)
    table = part.tables["n"][3, 3].astype(int)
    for wrong in (table[::-1], table + 1, part.tables["n"][3, 4], part.tables["r"][3, 3]):
        with pytest.raises(AssertionError):
            assert_table(wrong, "tanh", grids["n_pre"], grids["n"], 5, 5)
    a, b, shift = part.sums["h"]
    scale_a, scale_b, scale = (grids[name][0] for name in (*SUMS["h"], "h"))
    ratios = np.broadcast_arrays(scale_a[:, None, None] / scale, scale_b[:, None] / scale)
    for wrong in ((b, a, shift), (a + 1, b, shift), (a, b, shift - 1)):
        with pytest.raises(AssertionError):
            assert_sum(*wrong, *ratios)
    low, high = ranges["out"]
    with pytest.raises(AssertionError):
        assert_grid(net.parts[3].grid, affine(low, 1.01 * high))
