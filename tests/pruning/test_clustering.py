from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynse.pruning.clustering import (
    assign,
    cluster,
    kmeans,
    reconstruct,
    sort_weights,
)

SIZE = 16
fit = jax.jit(partial(kmeans, max_clusters=SIZE))


def plain_kmeans(weights, clusters, iterations=300):
    """Lloyd's steps in float64, every distance taken; (centroids, cluster of each weight)."""
    weights = np.asarray(weights, np.float64)
    centroids = np.linspace(weights.min(), weights.max(), clusters)
    before = None
    for _ in range(iterations):
        nearest = np.abs(weights[:, None] - centroids).argmin(1)
        if before is not None and (nearest == before).all():
            break
        before = nearest
        for k in range(clusters):
            if (nearest == k).any():
                centroids[k] = weights[nearest == k].mean()
    return centroids, np.abs(weights[:, None] - centroids).argmin(1)


def plain_algorithm_3(loss, tensors, paths, alpha2, together=False):
    """Tan and Wang's Algorithm 3 in NumPy: codebooks and impacts by path."""
    first = baseline = loss(tensors)
    codebooks, impacts = {}, {}
    for path in paths:
        kept = tensors[path] != 0
        clusters = 1
        while True:
            centroids, nearest = plain_kmeans(tensors[path][kept], clusters)
            replaced = tensors[path].astype(np.float64)
            replaced[kept] = centroids[nearest]
            impacts[path] = loss(tensors | {path: replaced}) - baseline
            if impacts[path] < alpha2 or 2 * clusters > kept.sum():
                break
            clusters *= 2
        codebooks[path] = centroids
        if together:
            tensors = tensors | {path: replaced}
            baseline += impacts[path]
    return codebooks, impacts, first


def pruned(shape, density, seed=0, draw="normal"):
    rng = np.random.default_rng(seed)
    weights = getattr(rng, draw)(size=shape)
    return (weights * (rng.random(shape) < density)).astype(np.float32)


@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform", "standard_cauchy"])
def test_centroids_of_the_plain_algorithm(draw):
    tensor = pruned((40, 50), 0.4, seed=3, draw=draw)
    weights = sort_weights(tensor)
    for clusters in (1, 2, 3, 7, 16):
        codebook = np.asarray(fit(weights, clusters))
        expected, nearest = plain_kmeans(tensor[tensor != 0], clusters)
        span = np.abs(expected).max()
        np.testing.assert_allclose(codebook[:clusters], expected, rtol=1e-6, atol=1e-7 * span)
        assert np.isinf(codebook[clusters:]).all()
        np.testing.assert_array_equal(np.asarray(assign(tensor, codebook))[tensor != 0], nearest)
    assert fit._cache_size() == 1


def test_an_empty_cluster_stays_where_it_was():
    """Two heaps far apart and six centroids: the four between them never get a weight."""
    tensor = np.array([0.0, 0.01, 0.02, 0.0, 10.0, 10.01], np.float32)
    codebook = np.asarray(fit(sort_weights(tensor), 6))[:6]
    np.testing.assert_allclose(codebook[1:5], np.linspace(0.01, 10.01, 6)[1:5], rtol=1e-6)
    np.testing.assert_allclose(codebook[[0, 5]], [0.015, 10.005], rtol=1e-6)


def test_an_empty_cluster_may_catch_weights_later():
    rng = np.random.default_rng(1)
    tensor = np.concatenate([rng.uniform(0.1, 3, 60), rng.uniform(30, 31, 3)]).astype(np.float32)
    start = np.linspace(tensor.min(), tensor.max(), 5)
    first = np.bincount(np.abs(tensor[:, None] - start).argmin(1), minlength=5)
    expected, nearest = plain_kmeans(tensor, 5)
    assert (first == 0).any()  # the case is there at all
    codebook = np.asarray(fit(sort_weights(tensor), 5))
    np.testing.assert_allclose(codebook[:5], expected, rtol=1e-6)
    np.testing.assert_array_equal(assign(tensor, codebook), nearest)


@pytest.mark.parametrize("clusters", [2, 4, 8])
def test_agrees_with_scikit_learn(clusters):
    cluster_module = pytest.importorskip("sklearn.cluster")
    weights = np.random.default_rng(5).normal(size=(600, 1)).astype(np.float32)
    start = np.linspace(weights.min(), weights.max(), clusters)[:, None]
    theirs = cluster_module.KMeans(clusters, init=start, n_init=1, tol=0).fit(weights)
    assert np.bincount(theirs.labels_, minlength=clusters).min() > 0  # it moves empty ones
    codebook = np.asarray(fit(sort_weights(weights), clusters))
    np.testing.assert_allclose(
        codebook[:clusters], theirs.cluster_centers_.ravel(), rtol=1e-5, atol=1e-6
    )


def test_a_million_weights_keep_their_digits():
    """Means to 1e-6 in float64's judgement; in one float32 the smaller clusters' are lost."""
    tensor = np.random.default_rng(0).standard_cauchy(1_000_000).clip(-300, 300)
    tensor = tensor.astype(np.float32)
    weights = sort_weights(tensor)
    fit_many = jax.jit(partial(kmeans, max_clusters=256))
    codebook, again = (np.asarray(fit_many(weights, 256, iterations=steps)) for steps in (20, 21))
    assert (np.diff(codebook) >= 0).all()
    # The last step in float64 from the same centroids, and what one float32 sum would make of it.
    ordered = np.asarray(weights.values)
    middle = (codebook[:-1] / 2 + codebook[1:] / 2).astype(np.float32)
    edges = np.concatenate([[0], np.searchsorted(ordered, middle, side="right"), [ordered.size]])
    counts = np.diff(edges)
    assert (counts > 0).all()
    exact = np.add.reduceat(ordered.astype(np.float64), edges[:-1]) / counts
    sums = np.concatenate([[0], np.cumsum(ordered, dtype=np.float32)])
    single = (sums[edges[1:]] - sums[edges[:-1]]) / counts
    np.testing.assert_allclose(again, exact, rtol=1e-6, atol=1e-7)
    assert np.abs(single / exact - 1).max() > 1e-3  # negative control


def test_zeros_stay_zero_and_nothing_else_becomes_one():
    tensor = pruned((30, 20), 0.3)
    codebook = fit(sort_weights(tensor), 8)
    assignments = assign(tensor, codebook)
    back = np.asarray(reconstruct(assignments, codebook))
    np.testing.assert_array_equal(back == 0, tensor == 0)
    np.testing.assert_array_equal(np.asarray(assignments) == -1, tensor == 0)
    assert len(np.unique(back[back != 0])) <= 8
    # A code book without its padding says the same.
    np.testing.assert_array_equal(assign(tensor, np.asarray(codebook)[:8]), assignments)


def test_as_many_centroids_as_values_change_nothing():
    tensor = np.array([[0, 1, 2, 3], [4, 0, 2, 1]], np.float32)
    codebook = fit(sort_weights(tensor), 4)
    np.testing.assert_array_equal(reconstruct(assign(tensor, codebook), codebook), tensor)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.floats(-1e6, 1e6, width=32, allow_subnormal=False).filter(bool), min_size=1, max_size=30
    ),
    st.integers(1, SIZE),
)
def test_properties(weights, clusters):
    tensor = np.zeros(32, np.float32)  # one shape, one compilation
    tensor[: len(weights)] = weights
    codebook = np.asarray(fit(sort_weights(tensor), clusters))
    used = codebook[:clusters]
    assert (np.diff(used) >= 0).all()
    assert np.isinf(codebook[clusters:]).all()
    assert used.min() >= min(weights)
    assert used.max() <= max(weights)
    assignments = np.asarray(assign(tensor, codebook))[: len(weights)]
    distances = np.abs(np.float64(weights)[:, None] - np.float64(used))
    chosen = distances[np.arange(len(weights)), assignments]
    assert (chosen <= distances.min(1) + 1e-6 * np.abs(weights).max()).all()


def small_net(seed=0):
    """Dense layers, pruned; the loss is the distance from their own output and some noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(64, 12)).astype(np.float32)
    params = {
        "fc1": {"kernel": pruned((12, 20), 0.5, seed), "bias": np.full(20, 0.1, np.float32)},
        "fc2": {"kernel": pruned((20, 6), 0.6, seed + 1), "bias": np.full(6, -0.2, np.float32)},
        "fc3": {"kernel": np.zeros((6, 6), np.float32)},
    }

    def output(params, np):
        hidden = np.tanh(x @ params["fc1"]["kernel"] + params["fc1"]["bias"])
        y = hidden @ params["fc2"]["kernel"] + params["fc2"]["bias"]
        return y + y @ params["fc3"]["kernel"]

    target = output(params, np) + rng.normal(size=(64, 6)).astype(np.float32)

    def loss(params, np=jnp):
        return ((output(params, np) - target) ** 2).mean()

    return params, loss


@pytest.fixture(scope="module")
def net():
    return small_net()


GROUPS = {"fc1/kernel": (1,), "fc2/kernel": (1,), "fc3/kernel": (1,)}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("alpha2", [0.3, 0.03, 0.003, -1.0])
def test_the_sweep_is_algorithm_3(net, alpha2, together):
    """-1 is met by no K: the rule 2 K > n ends it."""
    params, loss = net
    result = cluster(loss, params, GROUPS, alpha2, together=together, max_clusters=256)
    tensors = {path: params[path[:3]]["kernel"] for path in GROUPS}

    def plain_loss(tensors):
        return loss(
            {name: params[name] | {"kernel": tensors[f"{name}/kernel"]} for name in params}, np
        )

    books, impacts, baseline = plain_algorithm_3(
        plain_loss, tensors, ["fc1/kernel", "fc2/kernel"], alpha2, together
    )
    assert result.loss == pytest.approx(baseline, rel=1e-5)
    for path, book in books.items():
        assert len(result.codebooks[path]) == len(book), path
        np.testing.assert_allclose(result.codebooks[path], book, rtol=1e-5, atol=1e-6)
        assert result.impacts[path] == pytest.approx(impacts[path], abs=1e-5)
        name = path[:3]
        clustered = np.asarray(result.params[name]["kernel"])
        kept = tensors[path] != 0
        nearest = np.abs(tensors[path][kept][:, None] - book).argmin(1)
        np.testing.assert_allclose(clustered[kept], book[nearest], rtol=1e-5, atol=1e-6)
        assert (clustered[~kept] == 0).all()
        np.testing.assert_array_equal(result.params[name]["bias"], params[name]["bias"])
    if alpha2 == -1.0:
        counts = [np.count_nonzero(tensors[path]) for path in books]
        assert [len(book) for book in books.values()] == [2 ** int(np.log2(n)) for n in counts]
    # Nothing to cluster where nothing is left.
    assert result.codebooks["fc3/kernel"].shape == (0,)
    assert result.impacts["fc3/kernel"] == 0
    np.testing.assert_array_equal(result.params["fc3"]["kernel"], 0)


def test_together_they_raise_the_loss_by_no_more_than_the_sum():
    """Where two tensors make good what either does alone, trying each alone bounds nothing."""
    params = {name: {"kernel": np.float32([-1, 1, 1, 1])} for name in ("fc1", "fc2")}
    groups = {"fc1/kernel": (), "fc2/kernel": ()}

    def loss(params):
        # One centroid, 0.5, is free in either; in both it costs 1.
        flat = [jnp.ptp(params[name]["kernel"]) == 0 for name in ("fc1", "fc2")]
        return jnp.float32(flat[0] & flat[1])

    alone = cluster(loss, params, groups, 0.1)
    assert [len(book) for book in alone.codebooks.values()] == [1, 1]
    assert loss(alone.params) == 1
    together = cluster(loss, params, groups, 0.1, together=True)
    assert [len(book) for book in together.codebooks.values()] == [1, 2]
    assert loss(together.params) == 0


def test_one_program_for_every_alpha2(net):
    params, loss = net
    traced = []

    def counted(params):
        traced.append(None)
        return loss(params)

    sizes = [
        len(cluster(counted, params, GROUPS, alpha2, max_clusters=256).codebooks["fc1/kernel"])
        for alpha2 in (1.0, 0.1, 0.01)
    ]
    once = len(traced)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    cluster(counted, params, GROUPS, 0.02, max_clusters=256)
    assert len(traced) == once


def test_the_cap_holds(net):
    params, loss = net
    result = cluster(loss, params, GROUPS, -1.0, max_clusters=8)
    assert len(result.codebooks["fc1/kernel"]) == 8


def test_wrong_arguments(net):
    params, loss = net
    with pytest.raises(ValueError, match="fc9/kernel"):
        cluster(loss, params, {"fc9/kernel": ()}, 0.1)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        cluster(loss, params, GROUPS, 0.1, max_clusters=0)
    with pytest.raises(ValueError, match="got none among 4"):
        sort_weights(np.zeros((2, 2)))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            sort_weights(np.array([1.0, bad], np.float32))
    with pytest.raises(ValueError, match="finite sums"):
        sort_weights(np.full(10, 1e38, np.float32))
