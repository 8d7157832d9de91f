import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.exits import Frame, Router, init_router, oracle_exits, router_loss


def test_oracle_is_the_best_of_all_exits():
    errors = np.random.default_rng(0).uniform(size=(2, 30, 3)).astype(np.float32)
    errors[0, 0] = 0.5
    macs = (100, 400, 900)
    choose = jax.jit(lambda price: oracle_exits(jnp.asarray(errors), macs, price))
    means = []
    for price in (0.0, 3e-4, 1e-2):
        exits = np.asarray(choose(price))
        for row in range(2):
            for frame in range(30):
                paid = [errors[row, frame, i] + price * macs[i] for i in range(3)]
                assert exits[row, frame] == paid.index(min(paid))
        means.append(exits.mean())
    assert means[0] > means[1] > means[2] == 0
    assert np.asarray(choose(0.0))[0, 0] == 0
    with pytest.raises(ValueError, match=r"errors of 2 exits, got \(2, 30, 3\)"):
        oracle_exits(errors, macs[:2], 0.0)


def trained(features, paid):
    @jax.jit
    def train(params):
        def step(params, _):
            gradient = jax.grad(router_loss)(params, features, paid)
            return jax.tree.map(lambda a, g: a - 2 * g, params, gradient), None

        return jax.lax.scan(step, params, None, length=300)[0]

    return train(init_router(features.shape[-1], paid.shape[-1]))


def choices(params, features):
    router = Router(features.shape[-1], params["bias"].shape[0])
    _, chosen = router.choose(params, router.init(len(features)), Frame(None, features, None))
    return np.asarray(chosen)


def test_the_router_learns_what_pays():
    draw = np.random.default_rng(0)
    features = jnp.asarray(draw.normal(size=(200, 6)), jnp.float32)
    paid = -features @ draw.normal(size=(6, 3)).astype(np.float32)
    start = init_router(6, 3)
    assert float(router_loss(start, features, paid)) == pytest.approx(float(paid.mean()), abs=1e-5)
    chosen, best = choices(trained(features, paid), features), np.argmin(paid, axis=-1)
    assert (chosen == best).mean() > 0.95
    assert (chosen == draw.permutation(best)).mean() < 0.6
    (cost,) = Router(6, 3).cost()
    assert (cost.params, cost.macs) == (6 * 3 + 3, 6 * 3)


def test_a_few_frames_in_which_much_is_at_stake_weigh_more_than_many_with_little():
    """Imitation of the best exit would take the second in all frames: mostly it is the better."""
    features = jnp.ones((100, 1))
    paid = jnp.where(jnp.arange(100)[:, None] < 80, jnp.array([0.01, 0.0]), jnp.array([0.0, 1.0]))
    assert (jnp.argmin(paid, axis=-1) == 1).sum() == 80
    assert (choices(trained(features, paid), features) == 0).all()
