import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pruning.reference import GROUPS, make_params, wide

from dynse.pruning import (
    group_penalty,
    l1_penalty,
    lambdas_by_share,
    set_tensors,
    sparse_group_lasso,
    unstructured,
    with_penalty,
)

LAMBDA1, LAMBDA2 = 0.7, 0.03


def pruned_params():
    """Groups of zeros in one tensor, single zeros in another, the third all zero."""
    params = make_params()
    params["conv"]["kernel"][:, 1:3] = 0
    params["fc1"]["kernel"][::2, ::3] = 0
    params["fc2"]["kernel"][:] = 0
    return params


def reference(params):
    """R_l1 and the group term, weight by weight."""
    params = wide(params)
    weights, groups = [], []
    kernel = params["conv"]["kernel"]
    groups += [kernel[:, i, o] for i in range(4) for o in range(6)]
    for name in ("fc1", "fc2"):
        groups += list(params[name]["kernel"])
    for group in groups:
        weights += [abs(weight) for weight in group.ravel() if weight != 0]
    norms = [
        len(group) ** 0.5 * sum(weight**2 for weight in group) ** 0.5
        for group in groups
        if np.any(group != 0)
    ]
    return LAMBDA1 * sum(weights) / len(weights), LAMBDA2 * sum(norms) / len(norms)


def test_against_a_loop_over_weights():
    params = pruned_params()
    l1, group = reference(params)
    np.testing.assert_allclose(l1_penalty(params, GROUPS, LAMBDA1), l1, rtol=1e-5)
    np.testing.assert_allclose(group_penalty(params, GROUPS, LAMBDA2), group, rtol=1e-5)
    both = sparse_group_lasso(params, GROUPS, LAMBDA1, LAMBDA2)
    np.testing.assert_allclose(both, l1 + group, rtol=1e-5)


def test_gradients_against_differences_and_none_on_zeros():
    params = pruned_params()
    gradient = jax.jit(jax.grad(lambda p: sparse_group_lasso(p, GROUPS, LAMBDA1, LAMBDA2)))(params)
    for module in ("conv", "fc1"):
        kernel = abs(params[module]["kernel"])
        # Not so small that the difference crosses zero.
        index = np.unravel_index(np.argsort(kernel, axis=None)[-kernel.size // 10], kernel.shape)
        values = []
        for side in (1e-4, -1e-4):
            moved = wide(params)
            moved[module]["kernel"][index] += side
            values.append(sum(reference(moved)))
        expected = (values[0] - values[1]) / 2e-4
        np.testing.assert_allclose(gradient[module]["kernel"][index], expected, rtol=1e-3)
    for module in GROUPS:
        module = module.split("/")[0]
        assert np.isfinite(gradient[module]["kernel"]).all()
        assert not np.any(np.asarray(gradient[module]["kernel"])[params[module]["kernel"] == 0])
        assert not np.any(gradient[module]["bias"])


def test_the_tenth_of_the_loss():
    params = pruned_params()
    lambda1, lambda2 = lambdas_by_share(3.0, params, GROUPS)
    np.testing.assert_allclose(l1_penalty(params, GROUPS, lambda1), 0.3, rtol=1e-6)
    np.testing.assert_allclose(group_penalty(params, GROUPS, lambda2), 0.3, rtol=1e-6)
    # Groups of one weight: the group term is the l1 term.
    one, other = lambdas_by_share(3.0, params, unstructured(GROUPS), share=0.2)
    np.testing.assert_allclose((one, other), 2 * lambda1, rtol=1e-5)


def test_all_zero():
    zeros = jax.tree.map(np.zeros_like, make_params())
    assert float(sparse_group_lasso(zeros, GROUPS, 1.0, 1.0)) == 0
    with pytest.raises(ValueError, match=r"not all zero, got a loss of 1\.0"):
        lambdas_by_share(1.0, zeros, GROUPS)
    with pytest.raises(ValueError, match="positive loss"):
        lambdas_by_share(0.0, set_tensors(zeros, {}), GROUPS)


def test_an_optimiser_of_the_loss_and_the_penalty():
    """The same updates, clipping included, as of the gradient of their sum."""
    params = jax.tree.map(jnp.asarray, make_params())
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.amsgrad(0.1))

    def penalty(params, weights):
        return sparse_group_lasso(params, GROUPS, *weights)

    def loss(params):
        return sum(jnp.square(leaf - 0.1).sum() for leaf in jax.tree.leaves(params))

    weights = (LAMBDA1, LAMBDA2)
    optimizer = with_penalty(inner, penalty, weights)
    update, plain, slope = jax.jit(optimizer.update), jax.jit(inner.update), jax.jit(jax.grad(loss))
    both = jax.jit(jax.grad(lambda params: loss(params) + penalty(params, weights)))
    state, expected_state = optimizer.init(params), inner.init(params)
    for _ in range(2):
        updates, state = update(slope(params), state, params)
        expected, expected_state = plain(both(params), expected_state, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), updates, expected)
    without = optax.tree.norm(jax.tree.map(jnp.subtract, both(params), slope(params)))
    assert without > 1e-4
    with pytest.raises(ValueError, match="expected the parameters"):
        optimizer.update(params, state)


def test_other_weights_of_the_penalty_need_no_other_program():
    params = jax.tree.map(jnp.asarray, make_params())
    traces = []

    def penalty(params, weights):
        traces.append(None)
        return weights * l1_penalty(params, GROUPS, 1.0)

    update = jax.jit(with_penalty(optax.sgd(1.0), penalty, 0.1).update)
    moved = []
    for weight in (0.1, 0.2):
        state = with_penalty(optax.sgd(1.0), penalty, weight).init(params)
        updates, _ = update(jax.tree.map(jnp.zeros_like, params), state, params)
        moved.append(np.abs(updates["fc1"]["kernel"]).max())
    assert len(traces) == 1
    assert moved[1] == pytest.approx(2 * moved[0], rel=1e-5)
