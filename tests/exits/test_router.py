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


def test_the_router_learns_what_the_oracle_does():
    draw = np.random.default_rng(0)
    features = jnp.asarray(draw.normal(size=(4, 50, 6)), jnp.float32)
    exits = jnp.argmax(features @ draw.normal(size=(6, 3)), axis=-1)
    start = init_router(6, 3)
    assert float(router_loss(start, features, exits)) == pytest.approx(np.log(3))

    @jax.jit
    def train(params):
        def step(params, _):
            gradient = jax.grad(router_loss)(params, features, exits)
            return jax.tree.map(lambda a, g: a - 2 * g, params, gradient), None

        return jax.lax.scan(step, params, None, length=300)[0]

    params = train(start)
    router = Router(6, 3)
    frame = Frame(None, features.reshape(-1, 6), None)
    _, chosen = router.choose(params, router.init(200), frame)
    assert (np.asarray(chosen).reshape(4, 50) == np.asarray(exits)).mean() > 0.95
    shuffled = draw.permutation(200)
    assert (np.asarray(chosen) == np.asarray(exits).reshape(-1)[shuffled]).mean() < 0.6
    (cost,) = router.cost()
    assert (cost.params, cost.macs) == (6 * 3 + 3, 6 * 3)
