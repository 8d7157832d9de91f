import numpy as np
import pytest

from dynse.quantization import quantize_weights, weight_scale
from dynse.quantization.qtensor import METHODS, largest_weight


def weights(seed=0, shape=(40, 30)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", range(2, 9))
def test_invariants(bits, method):
    original = weights()
    scale = weight_scale(original, bits, method)
    tensor = quantize_weights(original, bits, scale)
    assert tensor.values.dtype == np.int8
    assert tensor.bits == bits
    assert np.abs(tensor.values.astype(int)).max() <= largest_weight(bits)
    inside = np.abs(original) <= scale * largest_weight(bits)
    error = np.abs(tensor.dequantize() - original)
    assert (error[inside] <= scale / 2 * 1.00001).all()
    beyond = scale * largest_weight(bits) * np.sign(original)
    np.testing.assert_allclose(tensor.dequantize()[~inside], beyond[~inside], rtol=1e-6)
    if method == "minmax":
        assert inside.mean() > 0.999
        assert np.abs(tensor.values.astype(int)).max() == largest_weight(bits)


@pytest.mark.parametrize("bits", range(2, 9))
def test_mse_is_no_worse_than_minmax_and_near_the_best(bits):
    original = weights()

    def error(scale):
        return np.square(quantize_weights(original, bits, scale).dequantize() - original).mean()

    minmax, mse = (weight_scale(original, bits, method) for method in METHODS)
    assert error(mse) <= error(minmax)
    best = min(error(scale) for scale in np.linspace(0.05, 1, 400) * minmax)
    assert error(mse) <= 1.05 * best
    if bits <= 4:
        assert error(mse) < 0.8 * error(minmax)


def test_expected_error_of_uniform_weights():
    """S^2 / 12, to five standard deviations of the mean square of 100,000 values."""
    original = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    for bits in (4, 6, 8):
        scale = weight_scale(original, bits)
        error = np.square(quantize_weights(original, bits, scale).dequantize() - original).mean()
        # The outermost codes have half a cell each, as good as a whole one.
        assert error == pytest.approx(scale**2 / 12, rel=0.015)


def test_weights_of_zero():
    tensor = quantize_weights(np.zeros((3, 2)), 4, weight_scale(np.zeros((3, 2)), 4))
    np.testing.assert_array_equal(tensor.values, 0)
    assert tensor.scale > 0


def test_wrong_arguments():
    with pytest.raises(ValueError, match="got 'percentile'"):
        weight_scale(weights(), 8, "percentile")
    with pytest.raises(ValueError, match="finite weights"):
        weight_scale(np.array([1.0, np.nan]), 8)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_agrees_with_qwix(bits):
    """qwix's absmax scale is max |w| / (2^(b-1) - 1/2) and its codes begin at -2^(b-1). Widened
    by the factor (2^(b-1) - 1/2) / (2^(b-1) - 1) its grid is this one: the same scale, and codes
    that differ on ties alone, of which there are none here."""
    pytest.importorskip("qwix")
    from qwix._src.core import qarray

    qtypes = {8: "int8", 4: "int4"}
    original = weights(bits)
    bound = largest_weight(bits)
    how = qarray.HowToQuantize(
        qtype=qtypes.get(bits, f"int{bits}"),
        calibration_method=f"absmax,{(bound + 0.5) / bound!r}",
    )
    theirs = qarray.quantize(original, how)
    scale = weight_scale(original, bits)
    ours = quantize_weights(original, bits, scale)
    np.testing.assert_allclose(np.asarray(theirs.scale).item(), scale, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(theirs.qvalue).astype(int), ours.values)

    plain = qarray.quantize(original, qarray.HowToQuantize(qtype=how.qtype))
    assert (np.asarray(plain.qvalue).astype(int) != ours.values).any()  # negative control
