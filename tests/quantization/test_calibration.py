import jax
import numpy as np
import pytest
from quantization import nets
from quantization.nets import LAYERS, signal

from dynse.quantization import DenseLayer, calibrate
from dynse.quantization.calibration import BINS, METHODS, Histogram
from dynse.quantization.net import tensor_names
from dynse.quantization.numerics import affine_grid, round_half_away

ONE = (DenseLayer("fc"),)
IDENTITY = {"fc": {"kernel": np.eye(1, dtype=np.float32), "bias": np.zeros(1, np.float32)}}


def ranges_of(values, method):
    """Ranges of a tensor with these values, (7, 2)."""
    batches = [part[None, :, None] for part in np.split(np.asarray(values, np.float32), 4)]
    return np.stack(calibrate(ONE, IDENTITY, batches, method=method)["fc"], axis=1)


def squared_error(values, low, high, bits):
    scale, zero_point = affine_grid(low, high, bits)
    codes = np.clip(round_half_away(values / scale) + zero_point, 0, 2**bits - 1)
    return np.square(scale * (codes - zero_point) - values).mean()


def test_minmax_is_the_extremes_of_the_float_net():
    params = nets.net_params()
    batches = [signal(seed, 3, 12) for seed in range(3)]
    ranges = calibrate(LAYERS, params, batches)
    assert set(ranges) == set(tensor_names(LAYERS))
    x = np.concatenate(batches).astype(np.float64)
    y = x @ params["fc1"]["kernel"] + params["fc1"]["bias"]
    own = params["gru1"]
    of_x = np.split(np.maximum(y, 0) @ own["input_kernel"] + own["input_bias"], 3, axis=-1)
    h = np.zeros((len(x), nets.HIDDEN))
    seen = {"input": [x], "fc1": [y], "gru1/W_in": [of_x[2]], "gru1/n_pre": [], "gru1/h": []}
    seen |= {"gru1/W_hr": [], "gru1/r*hn": [], "gru1/(1-z)*n": [], "gru1/z*h": []}
    for t in range(x.shape[1]):
        of_h = np.split(h @ own["hidden_kernel"] + own["hidden_bias"], 3, axis=-1)
        r, z = (1 / (1 + np.exp(-of_x[g][:, t] - of_h[g])) for g in range(2))
        pre = of_x[2][:, t] + r * of_h[2]
        new, kept = (1 - z) * np.tanh(pre), z * h
        h = new + kept
        for name, value in {
            "W_hr": of_h[0], "r*hn": r * of_h[2], "n_pre": pre, "(1-z)*n": new, "z*h": kept, "h": h
        }.items():  # fmt: skip
            seen[f"gru1/{name}"].append(value)
    for name, values in seen.items():
        low, high = (np.asarray(side) for side in ranges[name])
        expected = min(v.min() for v in values), max(v.max() for v in values)
        np.testing.assert_allclose(low, min(expected[0], 0), atol=1e-5, err_msg=name)
        np.testing.assert_allclose(high, max(expected[1], 0), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_frames_that_are_not_valid_do_not_count(method):
    params, x = nets.net_params(), signal(0, 3, 12)
    valid = np.ones((3, 12), bool)
    valid[0, 8:] = valid[2, 5:] = False
    padded = np.where(valid[..., None], x, 1e6).astype(np.float32)
    zeros = np.where(valid[..., None], x, 0).astype(np.float32)
    a, b = (calibrate(LAYERS, params, [(p, valid)], method=method) for p in (padded, zeros))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert calibrate(LAYERS, params, [padded])["input"][1][0] == 1e6  # negative control


@pytest.mark.parametrize("method", METHODS)
def test_zero_is_always_in_the_range(method):
    ranges = ranges_of(np.random.default_rng(0).uniform(2, 3, 400), method)
    assert (ranges[:, 0] == 0).all()
    assert (ranges[:, 1] > 0.4).all()


def test_percentile_leaves_the_outliers_out():
    values = np.random.default_rng(0).normal(size=40_000)
    values[:5] = 1000.0
    low, high = ranges_of(values, "percentile")[0]
    bin_width = 2 * 1024 / BINS
    expected = np.quantile(values, [1e-3, 1 - 1e-3])
    np.testing.assert_allclose([low, high], expected, atol=bin_width)
    assert ranges_of(values, "minmax")[0, 1] == 1000.0


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_range_has_a_smaller_error_than_minmax(bits):
    values = np.random.default_rng(0).laplace(size=4000).astype(np.float32)
    minmax, mse = (ranges_of(values, method)[bits - 2] for method in ("minmax", "mse"))
    errors = [squared_error(values, *ranges, bits) for ranges in (minmax, mse)]
    if bits < 8:
        assert errors[1] < 0.7 * errors[0]
    # Not far from the best there is, by brute force.
    best = min(
        squared_error(values, low, high, bits)
        for low in np.linspace(minmax[0], 0.1 * minmax[0], 40)
        for high in np.linspace(minmax[1], 0.1 * minmax[1], 40)
    )
    assert errors[1] < 1.15 * best


def test_histogram_grows_without_losing_a_value():
    draw = np.random.default_rng(0)
    parts = [draw.normal(0, spread, 1000) for spread in (0.01, 5.0, 0.3, 40.0)]
    histogram = Histogram()
    for part in parts:
        histogram = histogram.add(part)
    values = np.concatenate(parts)
    assert histogram.counts.sum() == len(values)
    assert (histogram.low, histogram.high) == (values.min(), values.max())
    # Merged bins are the bins of the whole, but for values on an edge.
    whole = np.histogram(values, BINS, (-histogram.reach, histogram.reach))[0]
    assert np.abs(whole - histogram.counts).sum() == 0
    assert Histogram().counts.sum() == 0  # the default is not shared


def test_wrong_arguments():
    x = np.ones((1, 4, 1), np.float32)
    with pytest.raises(ValueError, match="got 'median'"):
        calibrate(ONE, IDENTITY, [x], method="median")
    with pytest.raises(ValueError, match="at least one valid frame"):
        calibrate(ONE, IDENTITY, [])
    with pytest.raises(ValueError, match="at least one valid frame"):
        calibrate(ONE, IDENTITY, [(x, np.zeros((1, 4), bool))])
    with pytest.raises(ValueError, match="expected finite values"):
        calibrate(ONE, IDENTITY, [np.full_like(x, np.nan)])
