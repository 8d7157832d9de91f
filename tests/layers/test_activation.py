import jax
import jax.numpy as jnp
import numpy as np

from dynse.layers.activation import PReLU, dropout, prelu_cost


def test_prelu_by_hand():
    x = jnp.asarray([-2.0, 0.0, 3.0])
    variables = PReLU().init(jax.random.key(0), x)
    assert variables["params"]["slope"].shape == ()
    np.testing.assert_array_equal(PReLU().apply(variables, x), [-0.5, 0.0, 3.0])
    slope = jax.grad(lambda v: PReLU().apply(v, x).sum())(variables)["params"]["slope"]
    assert slope == -2.0
    assert (prelu_cost("p").params, prelu_cost("p").macs) == (1, 0)


def test_dropout_keeps_its_share_and_the_mean():
    x = jnp.ones((100, 100))
    y = np.asarray(dropout(x, 0.25, jax.random.key(0)))
    assert set(np.unique(y)) == {np.float32(0), np.float32(4 / 3)}
    assert abs((y == 0).mean() - 0.25) < 0.02  # four standard deviations
    assert dropout(x, 0.25, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x
