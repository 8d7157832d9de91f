from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dynse.gating.alive import batch_shaping_loss, beta_cdf_of_score, mutual_information_loss


def _beta_cdf(scores, alpha, beta):
    scores = np.asarray(scores, np.float64)
    below = scipy.stats.beta.cdf(1 / (1 + np.exp(-scores)), alpha, beta)
    above = scipy.stats.beta.sf(1 / (1 + np.exp(scores)), beta, alpha)
    return np.where(scores < 0, below, above)


@pytest.mark.parametrize(("alpha", "beta"), [(0.6, 0.4), (0.25, 0.75), (1.0, 1.0), (2.0, 3.0)])
def test_beta_cdf_and_its_derivative(alpha, beta):
    scores = np.linspace(-25, 25, 1003).astype(np.float32)
    value = jax.jit(beta_cdf_of_score)(scores, jnp.float32(alpha), jnp.float32(beta))
    np.testing.assert_allclose(value, _beta_cdf(scores, alpha, beta), atol=2e-4)

    slope = jax.jit(jax.vmap(jax.grad(beta_cdf_of_score), (0, None, None)))(
        jnp.asarray(scores), jnp.float32(alpha), jnp.float32(beta)
    )
    near = 1e-4
    difference = _beta_cdf(scores.astype(np.float64) + near, alpha, beta) - _beta_cdf(
        scores.astype(np.float64) - near, alpha, beta
    )
    np.testing.assert_allclose(slope, difference / (2 * near), atol=1e-5)


def test_beta_cdf_is_finite_at_the_ends():
    """Negative control: the density in p, which the plain chain rule would use, is not."""
    ends = jnp.array([-1e4, -100.0, 100.0, 1e4])
    slope = jax.jit(jax.vmap(jax.grad(lambda s: beta_cdf_of_score(s, 0.6, 0.4))))(ends)
    assert jnp.isfinite(slope).all()
    plain = jax.vmap(jax.grad(lambda s: jax.scipy.special.betainc(0.6, 0.4, jax.nn.sigmoid(s))))
    assert not jnp.isfinite(jax.jit(plain)(ends)).all()


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    return tuple(
        jnp.asarray(rng.normal(1, 2, size=(3, 17, channels)), jnp.float32) for channels in (4, 6)
    )


@pytest.mark.parametrize("stride", [1, 4])
def test_batch_shaping_against_a_loop(scores, stride):
    distances = []
    for block in scores:
        for channel in range(block.shape[-1]):
            samples = np.sort(np.asarray(block)[:, ::stride, channel].ravel())
            rank = np.arange(1, len(samples) + 1) / (len(samples) + 1)
            distances.append(np.mean((_beta_cdf(samples, 0.6, 0.4) - rank) ** 2))
    loss = jax.jit(partial(batch_shaping_loss, stride=stride))(scores)
    assert float(loss) == pytest.approx(np.mean(distances), abs=1e-4)


@pytest.mark.parametrize("stride", [1, 4])
def test_mutual_information_against_a_loop(scores, stride):
    def entropy(p):
        return -p * np.log(p) - (1 - p) * np.log(1 - p)

    information = []
    for block in scores:
        for channel in range(block.shape[-1]):
            samples = np.asarray(block, np.float64)[:, ::stride, channel].ravel()
            p = 1 / (1 + np.exp(-samples))
            information.append(entropy(p.mean()) - entropy(p).mean())
    loss = jax.jit(partial(mutual_information_loss, stride=stride))(scores)
    assert float(loss) == pytest.approx(-np.mean(information), abs=1e-5)


def test_the_closed_gradient_of_the_information_is_the_slope_of_its_value(scores):
    """Against central differences of the definition in float64."""

    def loss(block):
        p = 1 / (1 + np.exp(-block.reshape(-1, block.shape[-1])))

        def entropy(p):
            return -p * np.log(p) - (1 - p) * np.log1p(-p)

        return -np.mean(entropy(p.mean(0)) - entropy(p).mean(0))

    block = np.asarray(scores[0], np.float64)
    gradient = jax.grad(partial(mutual_information_loss, stride=1))((jnp.asarray(scores[0]),))[0]
    for index in np.ndindex(2, 3, block.shape[-1]):
        step = np.zeros_like(block)
        step[index] = 1e-4
        slope = (loss(block + step) - loss(block - step)) / 2e-4
        assert float(gradient[index]) == pytest.approx(slope, rel=1e-3, abs=1e-8)


FRAMES = np.linspace(0, 60, 400)
ALIVE = (6 * np.sin(FRAMES) + 1)[None, :, None]
FROZEN = {
    "always open": np.full((1, 400, 1), 6.0),
    "always closed": np.full((1, 400, 1), -6.0),
    "almost constant": 0.01 * ALIVE + 4,
    "undecided": 0.01 * ALIVE,
}


@pytest.mark.parametrize("loss", [batch_shaping_loss, mutual_information_loss])
@pytest.mark.parametrize("frozen", sorted(FROZEN))
def test_a_frozen_gate_is_worse(loss, frozen):
    jitted = jax.jit(loss)

    def evaluate(scores):
        return float(jitted((jnp.asarray(scores),)))

    assert evaluate(ALIVE) < evaluate(FROZEN[frozen]) - 0.05


@pytest.mark.parametrize("loss", [batch_shaping_loss, mutual_information_loss])
def test_descent_brings_a_gate_to_life(loss):
    """From nearly always open to open in some frames and closed in others."""
    signal = jax.random.normal(jax.random.key(0), (4, 100, 1))

    def scores(gate):
        return (gate[0] * signal + gate[1],)

    gate = jnp.array([0.3, 1.5])
    assert float((scores(gate)[0] > 0).mean()) > 0.95
    descend = jax.jit(lambda gate: gate - 5.0 * jax.grad(lambda g: loss(scores(g)))(gate))
    for _ in range(200):
        gate = descend(gate)
    assert 0.2 < float((scores(gate)[0] > 0).mean()) < 0.8


def test_beta_prior_sets_the_openness():
    """With the parameters traced: one compilation for every target."""
    loss = jax.jit(lambda s, target: batch_shaping_loss((s,), alpha=target, beta=1 - target))
    quantiles = np.arange(1, 201) / 201
    for target in (0.25, 0.5):
        p = scipy.stats.beta.ppf(quantiles, target, 1 - target)
        drawn = jnp.asarray(np.log(p) - np.log1p(-p), jnp.float32)[:, None, None]
        losses = {other: float(loss(drawn, other)) for other in (0.25, 0.5, 0.75)}
        assert losses[target] < 1e-4
        assert min(losses, key=losses.get) == target
    assert loss._cache_size() == 1


def test_gradients_are_finite_for_extreme_and_equal_scores():
    extreme = (jnp.array([[[-1e4], [1e4], [0.0], [0.0], [90.0], [-90.0]]]),)
    for loss in (batch_shaping_loss, mutual_information_loss):
        value, gradient = jax.jit(jax.value_and_grad(partial(loss, stride=1)))(extreme)
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient[0]).all()
