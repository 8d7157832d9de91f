import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.exits import ExitHead, split_widths, take_exit


@pytest.mark.parametrize(
    ("width", "split", "fraction", "expected"),
    [
        (400, "none", 0.25, (400, 0)),
        (400, "duplicate", 0.25, (400, 400)),
        (400, "divide", 0.25, (300, 100)),
        (5, "divide", 0.5, (3, 2)),
    ],
)
def test_widths(width, split, fraction, expected):
    assert split_widths(width, split, fraction) == expected


def test_widths_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="split must be one of none, duplicate, divide; got 'no'"):
        split_widths(4, "no", 0.5)
    for fraction in (0.0, 0.1, 1.0):
        with pytest.raises(ValueError, match="a fraction of 4 units that divides them"):
            split_widths(4, "divide", fraction)


def test_a_head_is_a_matrix_and_a_sigmoid():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    head = ExitHead(5)
    variables = head.init(jax.random.key(0), x)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    expected = 1 / (1 + np.exp(-(x @ np.asarray(kernel) + np.asarray(bias))))
    np.testing.assert_allclose(head.apply(variables, x), expected, atol=1e-6)


def test_the_exit_taken():
    draw = np.random.default_rng(0)
    gains = [draw.normal(size=(2, 4, 3)) for _ in range(3)]
    index = draw.integers(3, size=(2, 4))
    taken = take_exit([jnp.asarray(gain, jnp.float32) for gain in gains], jnp.asarray(index))
    for row in range(2):
        for frame in range(4):
            expected = gains[index[row, frame]][row, frame]
            np.testing.assert_allclose(taken[row, frame], expected, rtol=1e-6)
