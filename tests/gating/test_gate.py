from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.gating import gate as gate_module
from dynse.gating.gate import gate_macs, init_gate, init_gate_state
from dynse.gating.step import init_moving_average, moving_average
from dynse.gating.surrogates import SURROGATES, sigmoid

apply_gate = jax.jit(
    gate_module.apply_gate,
    static_argnames=("window", "surrogate", "normalize", "level", "group", "detach"),
)

BATCH, FRAMES, IN, OUT, HIDDEN = 2, 19, 6, 5, 4


@pytest.fixture(scope="module")
def params():
    made = init_gate(jax.random.key(1), IN, OUT, HIDDEN, bias=0.2)
    made["fc1"]["bias"] = jnp.linspace(-0.3, 0.5, HIDDEN)
    return made


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(2), (BATCH, FRAMES, IN)) + 0.3


def _paper_scores(params, x, window, *, normalize=False):
    """The paper's order: pool the input, then the pointwise convs; NumPy, frame by frame."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    x = np.asarray(x, np.float64)
    if normalize:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    scores = np.zeros((*x.shape[:2], OUT))
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            pooled = x[b, max(0, t + 1 - window) : t + 1].sum(0) / window
            hidden = np.maximum(pooled @ params["fc1"]["kernel"] + params["fc1"]["bias"], 0)
            scores[b, t] = hidden @ params["fc2"]["kernel"] + params["fc2"]["bias"]
    return scores


@pytest.mark.parametrize("window", [1, 4, 16])
@pytest.mark.parametrize("normalize", [False, True])
def test_against_the_papers_order(params, x, window, normalize):
    state = init_gate_state(params, BATCH, window)
    assert state.shape == (BATCH, window - 1, HIDDEN)
    new_state, gate, scores = apply_gate(params, state, x, window=window, normalize=normalize)
    expected = _paper_scores(params, x, window, normalize=normalize)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_array_equal(gate, scores > 0)
    assert 0 < float(gate.mean()) < 1
    assert new_state.shape == state.shape


def test_bias_before_pooling_would_differ(params, x):
    """Negative control of the reordering: only the matmul may go before the pooling."""
    window = 4
    hidden = jax.nn.relu(x @ params["fc1"]["kernel"] + params["fc1"]["bias"])
    _, pooled = moving_average(init_moving_average(BATCH, HIDDEN, window), hidden, window)
    wrong = pooled @ params["fc2"]["kernel"] + params["fc2"]["bias"]
    assert np.abs(wrong - _paper_scores(params, x, window)).max() > 0.01


@pytest.mark.parametrize("block", [1, 3, 8])
def test_any_split_into_blocks(params, x, block):
    options = {"window": 5, "normalize": True}
    _, _, whole = apply_gate(params, init_gate_state(params, BATCH, 5), x, **options)
    state, parts = init_gate_state(params, BATCH, 5), []
    for start in range(0, FRAMES, block):
        state, _, scores = apply_gate(params, state, x[:, start : start + block], **options)
        parts.append(scores)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=1e-6)


def test_the_future_does_not_change_the_past(params, x):
    def scores(x):
        return apply_gate(params, init_gate_state(params, BATCH), x)[2]

    np.testing.assert_array_equal(scores(x)[:, :9], scores(x.at[:, 9:].add(7.0))[:, :9])


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("name", sorted(SURROGATES))
def test_detach_stops_the_input_not_the_parameters(params, x, detach, name):
    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradient(params, x):
        state = init_gate_state(params, BATCH, 3)
        return apply_gate(params, state, x, window=3, surrogate=SURROGATES[name], detach=detach)[
            1
        ].sum()

    to_params, to_x = gradient(params, x)
    assert bool((to_x == 0).all()) is detach
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(to_params))


def test_scores_are_before_the_noise(params, x):
    state = init_gate_state(params, BATCH)
    _, quiet_gate, quiet = apply_gate(params, state, x, surrogate=sigmoid)
    _, noisy_gate, scores = apply_gate(
        params, state, x, surrogate=sigmoid, key=jax.random.key(0), noise=5.0
    )
    np.testing.assert_array_equal(scores, quiet)
    assert (noisy_gate != quiet_gate).any()


def test_soft_gates_are_sigmoids_that_harden(params, x):
    state = init_gate_state(params, BATCH)
    _, hard, scores = apply_gate(params, state, x, surrogate=sigmoid)
    soft = jax.nn.sigmoid(scores)
    for softness in (0.0, 0.3, 1.0):
        gate = apply_gate(params, state, x, surrogate=sigmoid, softness=softness)[1]
        np.testing.assert_allclose(gate, (1 - softness) * hard + softness * soft, atol=1e-6)

    def total(params, softness):
        return apply_gate(params, state, x, surrogate=sigmoid, softness=softness)[1].sum()

    # The surrogate is the sigmoid's own derivative: it is the true one of the soft gate.
    gradients = [jax.jit(jax.grad(total))(params, softness) for softness in (0.0, 1.0)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *gradients)


def test_normalised_gates_do_not_see_the_level(params, x):
    state = init_gate_state(params, BATCH)
    quiet = apply_gate(params, state, x, normalize=True)[2]
    loud = apply_gate(params, state, 30 * x, normalize=True)[2]
    np.testing.assert_allclose(loud, quiet, atol=1e-3)
    assert not np.allclose(
        apply_gate(params, state, x)[2], apply_gate(params, state, 30 * x)[2], atol=0.1
    )


def test_float32_inside_whatever_comes(params, x):
    state = init_gate_state(params, BATCH)
    new_state, gate, scores = apply_gate(params, state, x.astype(jnp.bfloat16))
    assert {new_state.dtype, gate.dtype, scores.dtype} == {jnp.dtype(jnp.float32)}


def test_float32_matmuls_in_a_net_of_another_precision(params, x):
    """As they are asked of the device; a CPU does all of them in float32 anyway."""

    def asked():
        state = init_gate_state(params, BATCH)
        gate = jax.make_jaxpr(lambda x: gate_module.apply_gate(params, state, x))(x)
        other = jax.make_jaxpr(lambda x: x @ params["fc1"]["kernel"])(x)
        return [
            [str(one.params["precision"]) for one in program.eqns if "precision" in one.params]
            for program in (gate, other)
        ]

    with jax.default_matmul_precision("BF16_BF16_F32"):
        gate, other = asked()
    assert len(gate) == 2
    assert all("HIGHEST" in one for one in gate)
    assert all("BF16" in one for one in other)


def test_gates_start_open():
    params = init_gate(jax.random.key(0), 64, 64)
    x = 0.1 * jax.random.normal(jax.random.key(1), (1, 50, 64))
    assert float(apply_gate(params, init_gate_state(params, 1), x)[1].mean()) > 0.99


def test_macs_are_the_matmuls(params):
    kernels = params["fc1"]["kernel"].size + params["fc2"]["kernel"].size
    assert gate_macs(IN, OUT, HIDDEN) == kernels == 44


def test_wrong_input_width(params):
    with pytest.raises(ValueError, match=r"6 channels, got shape \(2, 3, 7\)"):
        apply_gate(params, init_gate_state(params, 2), jnp.ones((2, 3, 7)))


@pytest.mark.parametrize("normalize", [False, True])
def test_the_level_is_one_more_input(x, normalize):
    made = init_gate(jax.random.key(3), IN + 1, OUT, HIDDEN)
    state = init_gate_state(made, BATCH, 4)
    scores = apply_gate(made, state, x, window=4, normalize=normalize, level=True)[2]
    spread = x.std(-1, keepdims=True)
    seen = (x - x.mean(-1, keepdims=True)) / spread if normalize else x
    seen = jnp.concatenate([seen, jnp.log(1 + 1e5 * spread**2) / 8], -1)
    np.testing.assert_allclose(scores, _paper_scores(made, seen, 4), atol=1e-3)
    # Louder by a factor, a normalised gate hears nothing but its logarithm in that input.
    if normalize:
        louder = apply_gate(made, state, 3 * x, window=4, normalize=True, level=True)[2]
        assert not np.allclose(louder, scores, atol=0.01)


def test_a_group_shares_its_decision(params, x):
    state = init_gate_state(params, BATCH, 4)
    _, gate, scores = apply_gate(params, state, x, window=4)
    _, grouped, group_scores = apply_gate(params, state, x, window=4, group=3)
    np.testing.assert_array_equal(grouped, np.repeat(gate, 3, -1))
    np.testing.assert_array_equal(group_scores, np.repeat(scores, 3, -1))
