import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pruning.reference import (
    GROUPS,
    algorithm1,
    make_batches,
    make_params,
    mean_square,
)

from dynse.pruning import (
    Sensitivity,
    analyze_sensitivity,
    apply_masks,
    count_nonzero,
    group_magnitudes,
    make_sweep,
    masks_by_thresholds,
    named_tensors,
    unstructured,
    with_common_threshold,
)

PARAMS = make_params()
BATCHES = make_batches(PARAMS)
KINDS = {"structured": GROUPS, "unstructured": unstructured(GROUPS)}
# Low enough that tensors stop, high enough that ratios differ.
ALPHA = 0.01


class Counted:
    """The loss, and how often it was traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, params, batch):
        self.traces += 1
        return mean_square(params, batch)


@pytest.fixture(scope="module")
def sweep():
    return make_sweep(mean_square, chunk=4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [ALPHA, 0.1, 100.0])
def test_the_ratios_of_the_plain_loop(sweep, kind, alpha):
    ratios, curves, margin = algorithm1(PARAMS, KINDS[kind], BATCHES, alpha)
    assert margin > 1e-6  # no increase so close to alpha that rounding decides
    assert alpha == 100.0 or len(set(ratios.values())) > 1
    found = analyze_sensitivity(sweep, PARAMS, KINDS[kind], BATCHES, alpha=alpha)
    assert found.ratios == ratios
    for path, curve in curves.items():
        # All that the loop evaluates, and at most the rest of six at once.
        assert set(curve) <= set(found.curves[path])
        assert len(found.curves[path]) - len(curve) < 6
        for ratio, increase in curve.items():
            np.testing.assert_allclose(found.curves[path][ratio], increase, atol=2e-6)
    if alpha == 100.0:
        assert set(ratios.values()) == {100}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [ALPHA, 0.1])
def test_bisection(sweep, kind, alpha):
    """Five evaluations a tensor, and the loop's ratio where the whole curve crosses once."""
    whole = analyze_sensitivity(sweep, PARAMS, KINDS[kind], BATCHES, alpha=alpha, at_once=400)
    assert all(len(curve) == 21 for curve in whole.curves.values())
    found = analyze_sensitivity(sweep, PARAMS, KINDS[kind], BATCHES, alpha=alpha, bisect=True)
    assert found.evaluations <= 1 + 5 * len(GROUPS)
    compared = 0
    for path, curve in whole.curves.items():
        above = [curve[ratio] > alpha for ratio in sorted(curve)]
        if above == sorted(above):
            assert found.ratios[path] == whole.ratios[path]
            compared += 1
    assert compared >= 2


@pytest.mark.parametrize(("chunk", "at_once", "step"), [(1, 1, 5), (3, 16, 5), (64, 50, 10)])
def test_what_is_done_at_once_does_not_change_the_ratios(chunk, at_once, step):
    sweep = make_sweep(mean_square, chunk=chunk)
    found = analyze_sensitivity(
        sweep, PARAMS, GROUPS, BATCHES, alpha=0.1, at_once=at_once, step=step
    )
    ratios, curves, _ = algorithm1(PARAMS, GROUPS, BATCHES, 0.1, step)
    assert found.ratios == ratios
    if at_once == 1:  # the paper's loop, evaluation by evaluation (at 0 % there is nothing to do)
        assert found.evaluations == 1 + sum(len(curve) - 1 for curve in curves.values())


def test_one_compilation():
    """For all tensors, ratios, iterations, batches and alphas; another chunk is another one."""
    loss = Counted()
    sweep = make_sweep(loss)
    for scale in (1, 2):
        params = jax.tree.map(lambda leaf: scale * leaf, PARAMS)  # noqa: B023
        for alpha in (0.01, 0.1):
            analyze_sensitivity(sweep, params, GROUPS, BATCHES, alpha=alpha)
            analyze_sensitivity(sweep, params, GROUPS, BATCHES, alpha=alpha, bisect=True)
    assert loss.traces == 1
    analyze_sensitivity(make_sweep(loss, chunk=2), PARAMS, GROUPS, BATCHES, alpha=0.1)
    assert loss.traces == 2


def scripted(curves):
    """A sweep whose increase is looked up: the thresholds of a ramp of 20 weights tell the ratio.

    Args:
        curves: (L, 21) increases, of the tensors in the order of their sorted paths.
    """

    def sweep(params, magnitudes, thresholds, batches):
        steps = np.asarray(thresholds).astype(int)
        assert ((steps > 0).sum(1) <= 1).all()
        return 5.0 + np.array([curves[range(len(curves)), row].sum() for row in steps])

    return sweep


def ramps(count):
    params = {f"w{index}": np.arange(1, 21, dtype=np.float32) for index in range(count)}
    return params, dict.fromkeys(params, ())


def test_not_monotone_not_a_number_and_at_the_limit():
    curves = np.zeros((4, 21))
    curves[0, 3:] = 1
    curves[0, 10] = 0  # crosses at 15 %, and again at 55 %
    curves[1, 7:] = np.nan
    curves[2, 1:] = 0.5  # at alpha, not above it
    curves[3] = np.arange(21) / 20  # above from 55 % on
    params, groups = ramps(4)
    curves_before = np.array(curves)
    found = analyze_sensitivity(scripted(curves), params, groups, [], alpha=0.5)
    assert found.ratios == {"w0": 10, "w1": 30, "w2": 100, "w3": 50}
    assert found.loss == 5
    assert found.falls == {}
    bisected = analyze_sensitivity(scripted(curves), params, groups, [], alpha=0.5, bisect=True)
    assert bisected.ratios == {"w0": 50, "w1": 30, "w2": 100, "w3": 50}
    # It cannot know of the first crossing; evaluated whole, the curve tells.
    whole = analyze_sensitivity(scripted(curves), params, groups, [], alpha=0.5, at_once=400)
    assert whole.falls == {"w0": (50,)}
    assert whole.ratios == found.ratios
    np.testing.assert_array_equal(curves, curves_before)


def test_what_bisection_sees_of_a_fall():
    params, groups = ramps(1)
    curves = np.zeros((1, 21))
    curves[0, 5:10] = 0.4
    curves[0, 11:] = 1
    found = analyze_sensitivity(scripted(curves), params, groups, [], alpha=0.5, bisect=True)
    assert found.ratios == {"w0": 50}
    assert found.curves == {"w0": {0: 0.0, 50: 0.0, 55: 1.0, 60: 1.0, 75: 1.0}}
    seen = Sensitivity({}, {}, {"w0": {0: 0.0, 50: 0.2, 25: 0.4}}, 0.0)
    assert seen.falls == {"w0": (50,)}


def test_ties_and_tensors_that_are_zero(sweep):
    """Of equal weights all go or none; of a tensor without weights 100 % of nothing."""
    params = jax.tree.map(np.array, PARAMS)
    params["fc1"]["kernel"][:] = 0.01
    params["fc2"]["kernel"][:] = 0
    groups = unstructured(GROUPS)
    found = analyze_sensitivity(sweep, params, groups, BATCHES, alpha=100.0)
    assert found.ratios["fc2/kernel"] == 100
    assert found.thresholds["fc2/kernel"] == 0
    assert found.curves["fc2/kernel"] == {0: 0.0}
    curve = found.curves["fc1/kernel"]
    assert len({curve[ratio] for ratio in range(5, 101, 5)}) == 1
    assert found.thresholds["fc1/kernel"] == np.float32(0.01)

    zeros = jax.tree.map(np.zeros_like, PARAMS)
    found = analyze_sensitivity(sweep, zeros, groups, BATCHES, alpha=0.1)
    assert found.evaluations == 1
    np.testing.assert_allclose(found.loss, np.mean([mean_square(zeros, b) for b in BATCHES]))


def test_a_sweep_of_one_common_threshold(sweep):
    """A candidate may prune several tensors at once."""
    common = np.float32([[0], [0.05], [0.2]]) * np.ones(3, np.float32)
    losses = sweep(PARAMS, group_magnitudes(PARAMS, unstructured(GROUPS)), common, BATCHES)
    for threshold, loss in zip(common[:, 0], losses, strict=True):
        pruned = jax.tree.map(
            lambda leaf: leaf if leaf.ndim == 1 else np.where(abs(leaf) > threshold, leaf, 0),  # noqa: B023
            PARAMS,
        )
        expected = np.mean([mean_square(pruned, batch, np) for batch in BATCHES])
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_only_what_a_mask_changes_runs_again():
    """The net as it is once for each new batch or net, of a candidate what follows its tensor."""
    ran = []

    def layer(name, kernel, h):
        def count(y):
            ran.append(name)
            return y

        y = jnp.tanh(h @ kernel)
        return jax.pure_callback(count, y, y, vmap_method="expand_dims")

    def loss(params, batch):
        h = layer("first", params["first"], batch)
        return (layer("left", params["left"], h) - layer("right", params["right"], h)).mean()

    draw = np.random.default_rng(0)
    shapes = {"first": (3, 4), "left": (4, 2), "right": (4, 2)}
    params = {name: jnp.asarray(draw.normal(size=shape)) for name, shape in shapes.items()}
    batch, other = (jnp.asarray(draw.normal(size=(5, 3))) for _ in range(2))
    magnitudes = group_magnitudes(params, dict.fromkeys(params, ()))
    sweep = make_sweep(loss)

    def runs(rows, params, *batches):
        ran.clear()
        losses = sweep(params, magnitudes, np.float32(rows), batches)
        for row, value in zip(rows, losses, strict=True):
            pruned = {
                name: np.where(abs(params[name]) > threshold, params[name], 0)
                for name, threshold in zip(sorted(params), row, strict=True)
            }
            first = [np.tanh(batch @ pruned["first"]) for batch in batches]
            sides = [np.tanh(h @ pruned["left"]) - np.tanh(h @ pruned["right"]) for h in first]
            np.testing.assert_allclose(value, np.mean(sides), atol=1e-6)
        return sorted(ran)

    everything = ["first", "left", "right"]
    assert runs([[0, 0, 0.5]], params, batch) == sorted([*everything, "right"])
    assert runs([[0, 0.5, 0], [0, 0, 0.5]], params, batch) == ["left", "right"]
    assert runs([[0, 0.5, 0.5]], params, batch) == ["left", "right"]
    assert runs([[0.5, 0, 0]], params, batch) == everything
    assert runs([[0, 0, 0]], params, batch) == []
    assert runs([[0, 0, 0]], params, other) == everything
    assert runs([[0, 0, 0]], params, batch, other) == sorted(2 * everything)
    again = {name: tensor + 0 for name, tensor in params.items()}
    assert runs([[0, 0, 0]], again, other) == everything


@pytest.mark.parametrize("chunk", [1, 3])
def test_workers_do_not_change_the_losses(sweep, chunk):
    thresholds = np.float32([[0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0, 0.1, 0], [0, 0, 0.1]])
    magnitudes = group_magnitudes(PARAMS, unstructured(GROUPS))
    expected = sweep(PARAMS, magnitudes, thresholds, BATCHES)
    several = make_sweep(mean_square, chunk=chunk, workers=2)
    found = several(PARAMS, magnitudes, thresholds, BATCHES)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_threshold_prunes_as_many_weights_the_smallest_of_all(sweep, kind):
    groups = KINDS[kind]
    own = analyze_sensitivity(sweep, PARAMS, groups, BATCHES, alpha=ALPHA)
    common = with_common_threshold(PARAMS, groups, own)
    kept, means = {}, {}
    for name, found in (("own", own), ("common", common)):
        pruned = apply_masks(PARAMS, masks_by_thresholds(PARAMS, groups, found.thresholds))
        kept[name] = count_nonzero(pruned, groups)
    magnitudes = group_magnitudes(PARAMS, groups)
    tensors = named_tensors(PARAMS)
    largest = max(tensors[path].size // norms.size for path, norms in magnitudes.items())
    # To one group, as groups are of several sizes.
    assert 0 <= kept["common"] - kept["own"] < largest
    means = {
        path: np.asarray(norms) * norms.size / tensors[path].size
        for path, norms in magnitudes.items()
    }
    gone = [means[path][magnitudes[path] <= common.thresholds[path]] for path in groups]
    left = [means[path][magnitudes[path] > common.thresholds[path]] for path in groups]
    assert np.concatenate(gone).max() <= np.concatenate(left).min() * (1 + 1e-6)
    for path, ratio in common.ratios.items():
        share = np.mean(np.asarray(magnitudes[path]) <= common.thresholds[path])
        assert ratio == round(100 * share)
    assert common.thresholds != own.thresholds
    assert common.curves == own.curves


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, "alpha must not be negative, got -0.1"),
        ({"alpha": float("nan")}, "got nan"),
        ({"alpha": 1, "step": 7}, "divides 100 and at least 1 candidate at once, got 7"),
        ({"alpha": 1, "at_once": 0}, "got 5 and 0"),
    ],
)
def test_wrong_options(sweep, options, message):
    with pytest.raises(ValueError, match=message):
        analyze_sensitivity(sweep, PARAMS, GROUPS, BATCHES, **options)


def test_no_batch_and_no_chunk(sweep):
    with pytest.raises(ValueError, match="at least one batch"):
        analyze_sensitivity(sweep, PARAMS, GROUPS, [], alpha=1)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        make_sweep(mean_square, chunk=0)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 1; workers too, got 0"):
        make_sweep(mean_square, workers=0)
