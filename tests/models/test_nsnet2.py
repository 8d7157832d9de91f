import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.audio.stft import STFT
from dynse.layers.cost import total_macs, total_params
from dynse.models.nsnet2 import NsNet2, feature_statistics, public_nsnet2
from dynse.models.waveform import enhance

BINS = 9
TINY = {"bins": BINS, "first": 6, "hidden": 5, "wide": 7}


def magnitudes(batch=2, frames=4, seed=5):
    draw = np.random.default_rng(seed)
    return np.exp(1.5 * draw.normal(size=(batch, frames, BINS)) - 3).astype(np.float32)


def random_variables(net, seed=2):
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 1, net.bins)))
    return contract.random_like(shapes, seed)


@pytest.mark.parametrize(("net", "params"), [(NsNet2(), 2_783_657), (public_nsnet2(), 2_687_561)])
def test_published_parameters(net, params):
    assert total_params(net.cost()) == params
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 1, net.bins)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == params
    by_layer = {name: sum(leaf.size for leaf in own.values()) for name, own in shapes.items()}
    assert by_layer == {cost.path: cost.params for cost in net.cost()}


def test_published_macs():
    """MMAC/s at 62.5 frames/s: up to each stage, with a head of Linear(d, 257) on it; the full."""
    costs = {cost.path: cost.macs for cost in NsNet2().cost()}
    done = 0
    for stage, width, expected in [
        ("fc1", 400, 12.85),
        ("gru1", 400, 72.85),
        ("gru2", 400, 132.85),
        ("fc2", 600, 151.06),
    ]:
        done += costs[stage]
        assert round(62.5e-6 * (done + width * 257), 2) == expected
    assert round(62.5e-6 * total_macs(NsNet2().cost()), 2) == 173.56


def reference(net, variables, frames):
    """The network from its equations: NumPy, float64, frame by frame."""
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    params = variables["params"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    def gru(name, h, x):
        p = params[name]
        a = np.split(x @ p["input_kernel"] + p["input_bias"], 3)
        b = np.split(h @ p["hidden_kernel"] + p["hidden_bias"], 3)
        r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
        return (1 - z) * np.tanh(a[2] + r * b[2]) + z * h

    gains = []
    for row in np.asarray(frames, np.float64):
        h1 = h2 = np.zeros(net.hidden)
        for frame in row:
            if net.features == "standardized":
                stats = variables["batch_stats"]
                u = (np.log10(frame**2 + 1e-12) - stats["mean"]) / np.sqrt(stats["var"])
            else:
                u = np.log10(np.maximum(frame**2, 1e-12))
            h = dense("fc1", u)
            h1 = gru("gru1", h1, np.maximum(h, 0) if net.first_relu else h)
            h2 = gru("gru2", h2, h1)
            h = np.maximum(dense("fc3", np.maximum(dense("fc2", h2), 0)), 0)
            gain = sigmoid(dense("fc4", h))
            gains.append(
                gain
                if net.gain_floor_db is None
                else np.maximum(gain, 10 ** (net.gain_floor_db / 20))
            )
    return np.reshape(gains, frames.shape)


@pytest.mark.parametrize(
    "net",
    [
        NsNet2(**TINY),
        NsNet2(**TINY, first_relu=False),
        public_nsnet2(**TINY, gain_floor_db=-6.0),
    ],
    ids=["paper", "without the first relu", "public"],
)
def test_the_net_is_the_one_of_the_equations(net):
    frames = magnitudes()
    frames[0, 1] = 0.0  # digital silence, and one bin below the floor
    frames[1, 2, 3] = 1e-8
    variables = random_variables(net)
    _, gain, _ = jax.jit(net.apply)(variables, frames)
    np.testing.assert_allclose(gain, reference(net, variables, frames), atol=1e-5)


def test_each_option_changes_the_gain():
    frames = magnitudes()
    nets = [
        NsNet2(**TINY),
        NsNet2(**TINY, first_relu=False),
        NsNet2(**TINY, gain_floor_db=-3.0),
        NsNet2(**TINY, features="floored"),
    ]
    variables = random_variables(nets[0])
    first, *others = (reference(net, variables, frames) for net in nets)
    for other in others:
        assert np.abs(other - first).max() > 1e-3


def test_training_leaves_the_statistics_and_lets_every_gradient_through():
    net = NsNet2(**TINY, gain_floor_db=-1.0)
    frames = magnitudes()
    frames[0, 1] = 0.0
    variables = random_variables(net)

    @jax.jit
    @jax.grad
    def gradient(params):
        (_, gain, _), updated = net.apply(
            {**variables, "params": params},
            frames,
            train=True,
            mutable=["batch_stats"],
            key=jax.random.key(0),
        )
        same = [
            (updated["batch_stats"][name] == variables["batch_stats"][name]).all()
            for name in ("mean", "var")
        ]
        return jnp.square(gain).sum() * jnp.asarray(same).all()

    for path, leaf in jax.tree.leaves_with_path(gradient(variables["params"])):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_statistics_standardise_the_features_they_were_taken_from():
    batches = [magnitudes(2, 50, seed=1), magnitudes(3, 20, seed=2)]
    for batch in batches:
        batch[..., 4] = 0.5  # a bin that never varies
    stats = feature_statistics(batches)
    rows = np.concatenate([batch.reshape(-1, BINS) for batch in batches]).astype(np.float64)
    logs = np.log10(rows**2 + 1e-12)
    np.testing.assert_allclose(stats["mean"], logs.mean(0), rtol=1e-5)
    varies = np.arange(BINS) != 4
    np.testing.assert_allclose(stats["var"][varies], logs.var(0)[varies], rtol=1e-5)
    assert stats["var"][4] == np.float32(1e-4)
    net = NsNet2(**TINY)
    fresh = jax.jit(net.init)(jax.random.key(0), batches[0][:1, :1])["batch_stats"]
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, stats)
    assert not fresh["mean"].any()
    assert (fresh["var"] == 1).all()
    with pytest.raises(ValueError, match="at least one frame"):
        feature_statistics([])


def test_it_enhances_waveforms():
    net, stft = NsNet2(**TINY), STFT(16, 16, 4)
    noisy = 0.1 * np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    variables = random_variables(net)
    enhanced, aux = jax.jit(lambda noisy: enhance(net, variables, noisy, stft=stft))(noisy)
    assert enhanced.shape == noisy.shape
    assert np.isfinite(enhanced).all()
    assert aux.gates == aux.scores == ()


def test_wrong_shapes_and_names_are_named():
    net = NsNet2(**TINY)
    with pytest.raises(ValueError, match=r"expected frames \(B, T, 9\), got \(1, 2, 8\)"):
        net.apply(random_variables(net), jnp.ones((1, 2, 8)))
    with pytest.raises(
        ValueError, match="features must be one of standardized, floored; got 'log'"
    ):
        random_variables(NsNet2(**TINY, features="log"))
