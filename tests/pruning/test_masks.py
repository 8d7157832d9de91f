import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pruning.reference import GROUPS, make_batches, make_params, mean_square, prune_tensor

from dynse.pruning import (
    apply_masks,
    count_nonzero,
    get_tensor,
    group_magnitudes,
    masks_by_thresholds,
    named_tensors,
    ratio_thresholds,
    set_tensors,
    unstructured,
    with_masks,
)

AXES = [(), (0,), (1,), (0, 1)]
# Whole numbers make ties and zeros common, and their sums exact.
TENSORS = hnp.arrays(np.float32, (3, 4, 2), elements=st.integers(-3, 3))


def masked_at(tensor, axes, ratio):
    """Mask, pruned tensor and threshold of a net of one tensor."""
    params, groups = {"w": tensor, "bias": np.ones(2)}, {"w": axes}
    (threshold,) = ratio_thresholds(group_magnitudes(params, groups)["w"], [ratio])
    masks = masks_by_thresholds(params, groups, {"w": threshold})
    assert masks["bias"] is None
    return np.asarray(masks["w"]), np.asarray(apply_masks(params, masks)["w"]), threshold


@settings(max_examples=40, deadline=None)
@given(tensor=TENSORS, axes=st.sampled_from(AXES), ratio=st.integers(0, 100))
def test_groups_vanish_whole_and_ties_together(tensor, axes, ratio):
    mask, pruned, threshold = masked_at(tensor, axes, ratio)
    np.testing.assert_array_equal(pruned, np.where(mask, tensor, 0))
    sizes = np.abs(tensor).sum(axes, keepdims=True)
    by_group = mask.any(axes, keepdims=True)
    np.testing.assert_array_equal(mask.all(axes, keepdims=True), by_group)
    np.testing.assert_array_equal(by_group, sizes > threshold)

    alive = sizes[sizes > 0]
    asked, gone = len(alive) * ratio // 100, (alive <= threshold).sum()
    # As many as asked for, and those that tie with the last of them.
    assert asked <= gone <= asked + (alive == threshold).sum()
    assert (gone == 0) == (asked == 0)


@settings(max_examples=20, deadline=None)
@given(tensor=TENSORS, axes=st.sampled_from(AXES), ratio=st.integers(0, 100))
def test_masks_are_idempotent_and_the_zeros_remember_them(tensor, axes, ratio):
    mask, pruned, threshold = masked_at(tensor, axes, ratio)
    params = {"w": pruned}
    for again in (threshold, 0):
        remembered = masks_by_thresholds(params, {"w": axes}, {"w": again})
        np.testing.assert_array_equal(remembered["w"], mask)
        np.testing.assert_array_equal(apply_masks(params, remembered)["w"], pruned)


@pytest.mark.parametrize("ratio", [0, 5, 50, 95, 100])
@pytest.mark.parametrize("groups", [GROUPS, unstructured(GROUPS)], ids=["groups", "weights"])
def test_ratios_against_a_sort_of_the_groups(groups, ratio):
    params = make_params()
    magnitudes = group_magnitudes(params, groups)
    thresholds = {path: ratio_thresholds(magnitudes[path], [ratio])[0] for path in groups}
    masks = masks_by_thresholds(params, groups, thresholds)
    pruned = apply_masks(params, masks)
    kept = 0
    for path, axes in groups.items():
        module, _ = path.split("/")
        expected = prune_tensor(params[module]["kernel"], axes, ratio)
        np.testing.assert_array_equal(pruned[module]["kernel"], expected)
        np.testing.assert_array_equal(pruned[module]["bias"], params[module]["bias"])
        kept += np.count_nonzero(expected)
    assert count_nonzero(pruned, groups) == kept


def test_the_ratio_is_of_what_is_still_non_zero():
    """Half of the weights, then half of the rest."""
    weights = np.arange(1, 17, dtype=np.float32)
    _, half, threshold = masked_at(weights, (), 50)
    assert threshold == 8
    _, quarter, threshold = masked_at(half, (), 50)
    assert threshold == 12
    assert np.count_nonzero(quarter) == 4


def test_unknown_paths():
    with pytest.raises(ValueError, match=r"expected paths of conv/kernel.*got fc1/bias"):
        masks_by_thresholds(make_params(), GROUPS, {"fc1/bias": 0.1})


OPTIMIZERS = {
    "amsgrad": optax.amsgrad(0.01),
    "adamw, clipped": optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            0.01, weight_decay=0.1, mask=lambda p: jax.tree.map(lambda leaf: leaf.ndim > 1, p)
        ),
    ),
    "nesterov": optax.sgd(0.01, momentum=0.9, nesterov=True),
    "only some tensors": optax.masked(
        optax.adam(0.01), {name: name != "fc2" for name in ("conv", "fc1", "fc2")}
    ),
    "factored": optax.adafactor(0.01, min_dim_size_to_factor=4),
}


def train(optimizer, params, batch, steps, state=None, loss=mean_square):
    """Parameters and state after some steps."""
    state = jax.jit(optimizer.init)(params) if state is None else state

    def step(carry, _):
        params, state = carry
        gradient = jax.grad(loss)(params, batch)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=steps)[0])((params, state))


def half_masked():
    params = jax.tree.map(jnp.asarray, make_params())
    magnitudes = group_magnitudes(params, unstructured(GROUPS))
    thresholds = {path: ratio_thresholds(sizes, [50])[0] for path, sizes in magnitudes.items()}
    masks = masks_by_thresholds(params, unstructured(GROUPS), thresholds)
    return params, masks


def at_pruned(tree, masks):
    """Values of a tree like the parameters where the masks are False."""
    tensors = named_tensors(tree)
    values = [np.asarray(tensors[path])[~mask] for path, mask in named_tensors(masks).items()]
    return np.concatenate(values)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_pruned_weight_moves_in_100_steps(name):
    """Nor does any kept one stand still; without the wrapper the pruned ones move."""
    params, masks = half_masked()
    pruned = apply_masks(params, masks)
    batch = make_batches(make_params(3))[0]
    after, _ = train(with_masks(OPTIMIZERS[name], masks), pruned, batch, 100)
    assert len(at_pruned(after, masks)) > 400
    assert not at_pruned(after, masks).any()
    moved = jax.tree.map(lambda a, b: float(jnp.mean(a != b)), after, pruned)
    assert all(share > 0.2 for share in jax.tree.leaves(moved)), moved

    free, _ = train(OPTIMIZERS[name], pruned, batch, 3)
    assert (at_pruned(free, masks) != 0).mean() > 0.5


def test_amsgrad_forgets_what_was_pruned():
    """An inner state from before the pruning: momentum, second moments and maxima become zero."""
    params, masks = half_masked()
    batch = make_batches(make_params(3))[0]
    inner = optax.amsgrad(0.01)
    trained, warm = train(inner, params, batch, 3)
    for moments in (warm[0].mu, warm[0].nu, warm[0].nu_max):
        assert (at_pruned(moments, masks) != 0).mean() > 0.5
    optimizer = with_masks(inner, masks)
    state = optimizer.init(trained)._replace(inner=warm)
    # The weights are not zeroed first: the first step does.
    after, state = train(optimizer, trained, batch, 100, state)
    assert not at_pruned(after, masks).any()
    for moments in (state.inner[0].mu, state.inner[0].nu, state.inner[0].nu_max):
        assert not at_pruned(moments, masks).any()
        assert all(leaf.any() for leaf in jax.tree.leaves(moments))


def test_kept_weights_move_as_if_the_others_were_not_there():
    """Against the inner optimiser on the kept weights alone, as one vector."""
    params, masks = half_masked()
    pruned, batch = apply_masks(params, masks), make_batches(make_params(3))[0]
    inner = optax.chain(optax.clip_by_global_norm(0.1), optax.amsgrad(0.01))
    expected, _ = train(with_masks(inner, masks), pruned, batch, 5)

    where = {path: np.nonzero(mask) for path, mask in named_tensors(masks).items()}
    tensors = named_tensors(jax.tree.map(np.asarray, pruned))

    def grow(values):
        grown = {
            path: jnp.zeros(tensors[path].shape).at[where[path]].set(values[path]) for path in where
        }
        return set_tensors(pruned, {**values, **grown})

    values = {
        path: tensor[where[path]] if path in where else tensor for path, tensor in tensors.items()
    }
    alone, _ = train(inner, values, batch, 5, loss=lambda v, batch: mean_square(grow(v), batch))
    for path, tensor in named_tensors(grow(alone)).items():
        np.testing.assert_allclose(tensor, get_tensor(expected, path), rtol=1e-5, atol=1e-6)


def test_the_masks_are_in_the_state_and_not_in_the_program():
    params, masks = half_masked()
    batch = make_batches(params)[0]
    traces = []

    @jax.jit
    def step(params, state):
        traces.append(1)
        gradient = jax.grad(mean_square)(params, batch)
        updates, state = with_masks(optax.amsgrad(0.01), None).update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for ones in (masks, jax.tree.map(jnp.logical_not, masks)):
        state = with_masks(optax.amsgrad(0.01), ones).init(params)
        after, _ = step(params, state)
        assert not at_pruned(after, ones).any()
    assert len(traces) == 1


def test_it_needs_the_parameters():
    params, masks = half_masked()
    optimizer = with_masks(optax.sgd(0.1), masks)
    with pytest.raises(ValueError, match="expected the parameters"):
        optimizer.update(params, optimizer.init(params))
