import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.gating.budget import (
    BUDGETS,
    budget_loss,
    init_dual,
    kept_fraction,
    kept_per_block,
    kept_per_utterance,
    update_dual,
)
from dynse.gating.step import hard_step

# Block 0: 3 of 4 gates open; block 1: 2 of 8.
GATES = (
    jnp.array([[[1.0, 1.0], [1.0, 0.0]]]),
    jnp.array([[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]]),
)


def test_fractions_by_hand():
    np.testing.assert_allclose(kept_per_block(GATES), [0.75, 0.25])
    assert float(kept_fraction(GATES)) == pytest.approx(5 / 12)


def test_losses_by_hand():
    assert float(budget_loss(GATES, 0.5)) == pytest.approx((5 / 12 - 0.5) ** 2)
    assert float(budget_loss(GATES, 0.5, by="per_block")) == pytest.approx(0.0625)
    assert float(budget_loss(GATES, 5 / 12)) == pytest.approx(0, abs=1e-12)
    own = jnp.array([0.75, 0.25])
    assert float(budget_loss(GATES, own, by="per_block")) == pytest.approx(0)


def test_utterances_apart():
    both = [jnp.concatenate([gate, jnp.ones_like(gate)]) for gate in GATES]
    np.testing.assert_allclose(kept_per_utterance(both), [5 / 12, 1])
    # One utterance keeps too little by as much as the other too much: on the whole, all is well.
    middle = (5 / 12 + 1) / 2
    assert float(budget_loss(both, middle)) == pytest.approx(0, abs=1e-12)
    apart = float(budget_loss(both, middle, by="per_utterance"))
    assert apart == pytest.approx((1 - middle) ** 2)


def test_only_valid_frames_count():
    valid = jnp.array([[True, False]])
    np.testing.assert_allclose(kept_per_block(GATES, valid), [1.0, 0.25])
    assert float(kept_fraction(GATES, valid)) == pytest.approx(3 / 6)
    assert float(kept_fraction(GATES, jnp.zeros((1, 2), bool))) == 0
    np.testing.assert_allclose(kept_per_utterance(GATES, valid), [3 / 6])
    np.testing.assert_allclose(kept_per_utterance(GATES, jnp.zeros((1, 2), bool)), [0])


@pytest.mark.parametrize("by", BUDGETS)
@pytest.mark.parametrize(("target", "sign"), [(0.0, 1), (1.0, -1)])
def test_gradient_moves_the_scores_towards_the_target(by, target, sign):
    scores = (jnp.array([[[0.5, -0.5, 0.2]]]), jnp.array([[[-0.1, 0.3, 2.0]]]))

    @jax.jit
    def gradient(scores, target):
        def loss(scores):
            return budget_loss([hard_step(s) for s in scores], target, by=by)

        return jax.grad(loss)(scores)

    for block in gradient(scores, target):
        assert (jnp.sign(block) == sign).all()


def _toy(rate, steps=3000, target=0.25, tolerance=0.02):
    """200 scores that the task pulls open; returns the last 100 steps' kept, and the weight."""
    pull = jnp.linspace(0.2, 1.0, 200) / 200

    def step(carry, _):
        scores, dual = carry

        def loss(scores):
            gate = hard_step(scores[None, None], lambda s: jax.nn.sigmoid(s) * jax.nn.sigmoid(-s))
            kept = kept_fraction((gate,))
            task = ((1 - gate[0, 0]) * pull).sum()
            return task + dual.weight * budget_loss((gate,), target), kept

        gradient, kept = jax.grad(loss, has_aux=True)(scores)
        dual = update_dual(dual, kept, target, rate, tolerance=tolerance)
        return (scores - 20 * gradient, dual), kept

    start = (jnp.linspace(0.5, 1.5, 200), init_dual(weight=0.1))
    (_, dual), kept = jax.lax.scan(step, start, None, length=steps)
    return np.asarray(kept[-100:]), float(dual.weight)


def test_dual_ascent_meets_the_budget():
    kept, weight = _toy(rate=0.5)
    assert np.abs(kept - 0.25).max() <= 0.02
    assert 0.1 < weight < 100


def test_the_same_fixed_weight_misses_it():
    """Negative control: without ascent the task wins."""
    kept, weight = _toy(rate=0.0)
    assert np.abs(kept - 0.25).min() > 0.1
    assert weight == pytest.approx(0.1)


def test_dual_update_by_hand():
    state = update_dual(init_dual(weight=1.0, kept=0.5), 0.4, 0.25, 2.0, momentum=0.5)
    assert float(state.kept) == pytest.approx(0.45)
    assert float(state.weight) == pytest.approx(1 + 2 * 0.2)
    rests = update_dual(init_dual(weight=3.0, kept=0.26), 0.26, 0.25, 2.0)
    assert float(rests.weight) == 3
    bounded = update_dual(init_dual(weight=99.0), 1.0, 0.25, 1e6)
    assert float(bounded.weight) == 100
