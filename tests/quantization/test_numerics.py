import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from quantization import oracle

from dynse.quantization import numerics
from dynse.quantization.numerics import (
    PRODUCT_BITS,
    affine_grid,
    inverse,
    multiplier_and_shift,
    multipliers_of_sum,
    quantize,
    quantize_on_host,
    round_half_away,
)

LARGEST = 2**31 - 1
BEYOND_ALL_GRIDS = 2**14 - 1

rescale = jax.jit(numerics.rescale)
round_shift = jax.jit(numerics.round_shift)


def exactly(value, multiplier, shift):
    """round(value M 2^-s), halves away from zero, in Python's integers."""
    product = abs(value) * multiplier
    return int(np.sign(value)) * ((product + (1 << (shift - 1))) >> shift)


def saturated(value):
    return min(max(int(value), -BEYOND_ALL_GRIDS), BEYOND_ALL_GRIDS)


@settings(deadline=None, max_examples=400)
@given(
    value=st.integers(-LARGEST, LARGEST),
    multiplier=st.integers(2**14, 2**15 - 1),
    shift=st.integers(1, 46),
)
@example(value=0, multiplier=2**14, shift=16)
@example(value=0, multiplier=2**14, shift=17)
@example(value=LARGEST, multiplier=2**15 - 1, shift=17)
@example(value=-LARGEST, multiplier=2**15 - 1, shift=17)
@example(value=LARGEST, multiplier=2**15 - 1, shift=16)
@example(value=-LARGEST, multiplier=2**15 - 1, shift=46)
@example(value=65535, multiplier=2**15 - 1, shift=16)
@example(value=-65536, multiplier=2**14, shift=16)
@example(value=-1, multiplier=2**14, shift=15)  # a tie: -1/2
@example(value=1, multiplier=2**14, shift=1)
@example(value=-(2**20), multiplier=2**14, shift=35)
@example(value=-3 * 2**16, multiplier=2**14, shift=31)  # a tie with no low half: -3/2
@example(value=-1, multiplier=0, shift=46)
def test_rescale_is_exact(value, multiplier, shift):
    result = rescale(jnp.int32(value), jnp.int32(multiplier), jnp.int32(shift))
    assert saturated(result) == saturated(exactly(value, multiplier, shift))


def _random_cases(count=300_000):
    draw = np.random.default_rng(0)
    value = draw.integers(-LARGEST, LARGEST, count) >> draw.integers(0, 31, count)
    multiplier, shift = draw.integers(2**14, 2**15, count), draw.integers(1, 47, count)
    # Half of the cases are ties: an odd multiple of half a step.
    ties = slice(0, count // 2)
    multiplier[ties] = 2**14
    shift[ties] = draw.integers(15, 40, count // 2)
    step = np.int64(1) << (shift[ties] - 15)
    odd = 2 * (draw.integers(-LARGEST, LARGEST, count // 2) // (2 * step)) // 2 * 2 + 1
    value[ties] = np.where(np.abs(odd * step) <= LARGEST, odd * step, step)
    return value, multiplier, shift


def test_rescale_of_many_cases_against_int64():
    value, multiplier, shift = _random_cases()
    result = rescale(*(jnp.asarray(a, jnp.int32) for a in (value, multiplier, shift)))
    expected = oracle.round_away(value * multiplier, shift)
    bound = (-BEYOND_ALL_GRIDS, BEYOND_ALL_GRIDS)
    np.testing.assert_array_equal(np.clip(result, *bound), np.clip(expected, *bound))
    even = oracle.half_to_even(value * multiplier, shift)
    ties = (value * multiplier - (even << shift)) * 2 == (np.int64(1) << shift)
    assert (np.clip(result, *bound) != np.clip(even, *bound)).sum() > 1000, "no tie was tried"
    assert ties.sum() > 1000


def test_float32_rounding_would_not_do():
    """Negative control: the same in float32, with jnp.round."""
    value, multiplier, shift = _random_cases(30_000)
    result = jnp.round(value.astype(np.float32) * (multiplier * 2.0**-shift).astype(np.float32))
    bound = (-BEYOND_ALL_GRIDS, BEYOND_ALL_GRIDS)
    expected = np.clip(oracle.round_away(value * multiplier, shift), *bound)
    assert (np.clip(result, *bound) != expected).mean() > 0.01


@settings(deadline=None, max_examples=200)
@given(
    a=st.integers(-255, 255),
    b=st.integers(-255, 255),
    ratio_a=st.floats(1e-6, 1e7),
    ratio_b=st.floats(1e-6, 1e7),
)
@example(a=255, b=255, ratio_a=2.0**20 - 1, ratio_b=2.0**20 - 1)
@example(a=-255, b=-255, ratio_a=1e-9, ratio_b=2.0**-10 * 0.9999)
@example(a=-255, b=-255, ratio_a=2.0**-10, ratio_b=2.0**-10)
@example(a=1, b=0, ratio_a=0.5, ratio_b=0.5)
@example(a=-1, b=0, ratio_a=0.5, ratio_b=0.25)
@example(a=255, b=255, ratio_a=1 - 2.0**-40, ratio_b=1 - 2.0**-40)
def test_sums_fit_in_int32_and_are_near_the_real_sum(a, b, ratio_a, ratio_b):
    multiplier_a, multiplier_b, shift = (int(v) for v in multipliers_of_sum(ratio_a, ratio_b))
    assert 0 <= multiplier_b < 2**21
    assert 0 <= multiplier_a < 2**21
    assert 1 <= shift <= 30
    total = multiplier_a * a + multiplier_b * b
    assert abs(total) + (1 << (shift - 1)) < 2**31
    result = int(round_shift(jnp.int32(total), jnp.int32(shift)))
    assert result == exactly(total, 1, shift)
    real = ratio_a * a + ratio_b * b
    if max(ratio_a, ratio_b) < 2**20:
        # Half a step, and half a unit of each multiplier.
        assert abs(result - real) <= 0.5 + 255 * 2.0**-shift + 1e-9 * abs(real)
        assert max(multiplier_a, multiplier_b) >= 2**20 or max(ratio_a, ratio_b) < 2.0**-10


@settings(deadline=None, max_examples=200)
@given(product=st.integers(-(255**2), 255**2), ratio=st.floats(1e-9, 1e6))
@example(product=255**2, ratio=2.0**-17)
@example(product=-(255**2), ratio=2.0**-17 * 0.99999)
@example(product=255**2, ratio=2.0**13 * 0.99999)
@example(product=-(255**2), ratio=1e6)
def test_products_fit_in_int32(product, ratio):
    multiplier, shift = (int(v) for v in multiplier_and_shift(ratio, PRODUCT_BITS))
    assert abs(product) * multiplier + (1 << (shift - 1)) < 2**31
    result = int(round_shift(jnp.int32(product * multiplier), jnp.int32(shift)))
    assert result == exactly(product, multiplier, shift)
    # The same integers serve the general rescaling.
    assert saturated(result) == saturated(rescale(product, multiplier, shift))
    error = abs(result - product * ratio)
    assert error <= 0.5 + abs(product * ratio) * 2.0**-14 or abs(result) > 2000


@settings(deadline=None, max_examples=200)
@given(ratio=st.floats(1e-12, 1e6))
@example(ratio=1.0)
@example(ratio=1 - 2.0**-20)
@example(ratio=2.0**-32)
@example(ratio=2.0**-32 * 0.999999)
@example(ratio=2.0**14 * 0.9999)
def test_multiplier_and_shift(ratio):
    multiplier, shift = (int(v) for v in multiplier_and_shift(ratio))
    assert 1 <= shift <= 46
    if ratio < 2.0**-32 * (1 - 2.0**-15):  # above, it is rounded up to 2^-32
        assert multiplier == 0
        assert ratio * LARGEST < 0.5
    elif ratio < 2.0**14:
        assert 2**14 <= multiplier < 2**15
        assert multiplier * 2.0**-shift == pytest.approx(ratio, rel=2.0**-15)
    else:
        assert multiplier * 2.0**-shift > BEYOND_ALL_GRIDS


def test_equal_scales_rescale_to_the_same_code():
    codes = jnp.arange(-255, 256, dtype=jnp.int32)
    np.testing.assert_array_equal(rescale(codes, *multiplier_and_shift(1.0)), codes)


def test_round_half_away():
    x = [0.5, 1.5, -0.5, -2.5, 0.49999999999999994, -0.49999999999999994, 2.0**52 + 1]
    np.testing.assert_array_equal(round_half_away(x), [1, 2, -1, -3, 0, 0, 2.0**52 + 1])
    assert np.round(2.5) != round_half_away(2.5)  # why it is not np.round


@settings(deadline=None, max_examples=200)
@given(low=st.floats(-1e6, 0), width=st.floats(1e-6, 1e6), bits=st.integers(2, 8))
def test_grid_of_a_range(low, width, bits):
    scale, zero_point = affine_grid(low, low + width, bits)
    levels = 2**bits - 1
    high = max(low + width, 0)
    assert 0 <= zero_point <= levels
    # Both ends are within half a step of the grid, and 0 is on it.
    assert scale * (0 - zero_point) == pytest.approx(low, abs=0.5001 * scale)
    assert scale * (levels - zero_point) == pytest.approx(high, abs=0.5001 * scale)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.0, 1e-40), (-1e-35, 0.0)])
def test_a_range_of_zero(low, high):
    scale, zero_point = affine_grid(low, high, np.array([2, 8]))
    np.testing.assert_array_equal(scale, 1)
    np.testing.assert_array_equal(zero_point, 0)


def test_a_range_on_one_side_is_widened_to_zero():
    assert affine_grid(2.0, 3.0, 8)[1] == 0
    assert affine_grid(-3.0, -2.0, 8)[1] == 255
    assert affine_grid(2.0, 3.0, 2)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("bounds", [(np.nan, 1.0), (0.0, np.inf), (1.0, 0.0)])
def test_ranges_that_are_none(bounds):
    with pytest.raises(ValueError, match="finite ranges low <= high"):
        affine_grid(*bounds, 8)


def test_quantize_edges():
    x = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 0.25, -0.25, 0.75, 1e30, 0.0])
    codes = jax.jit(quantize)(x, inverse(0.5), -3, 12)
    np.testing.assert_array_equal(codes, [0, 12, -3, 1, -1, 2, 12, 0])
    np.testing.assert_array_equal(quantize_on_host(x, inverse(0.5), -3, 12), codes)
    assert jnp.round(0.25 / 0.5) == 0  # jnp.round has ties to even


def test_host_and_program_quantize_alike():
    draw = np.random.default_rng(0)
    scale = 0.0371
    near_ties = (
        (draw.integers(-300, 300, 20_000) + 0.5) * scale * (1 + 1e-7 * draw.normal(size=20_000))
    )
    x = near_ties.astype(np.float32)
    constant = jax.jit(lambda x: quantize(x, inverse(scale), -200, 200))
    expected = quantize_on_host(x, inverse(scale), -200, 200)
    np.testing.assert_array_equal(constant(x), expected)
    np.testing.assert_array_equal(jax.jit(quantize)(x, inverse(scale), -200, 200), expected)


@pytest.mark.parametrize("bits", range(2, 9))
def test_quantisation_error_is_that_of_theory(bits):
    """Uniform values over the range: mean square error S^2 / 12, none beyond S / 2.

    With n = 200,000 the relative standard deviation of the mean square is sqrt(0.8 / n) = 0.2 %;
    the bound is five of it.
    """
    x = np.random.default_rng(bits).uniform(-1, 1, 200_000).astype(np.float32)
    scale, zero_point = affine_grid(-1.0, 1.0, bits)
    centred = quantize_on_host(x, inverse(scale), -zero_point, 2**bits - 1 - zero_point)
    error = np.square(scale * centred - x).mean()
    assert error == pytest.approx(scale**2 / 12, rel=0.01)
    assert np.abs(scale * centred - x).max() <= scale * 0.50001
    truncated = np.square(scale * np.floor(x / scale) - x).mean()
    assert truncated > 3 * scale**2 / 12  # negative control: rounding down costs S^2 / 3
