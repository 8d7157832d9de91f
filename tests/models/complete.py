"""What every network between two waveforms shows of itself, beside `contract`."""

import functools

import contract
import jax
import jax.numpy as jnp
import numpy as np

from dynse.layers.cost import total_macs, total_macs_at_outputs, total_params
from dynse.models.waveform import enhance, enhance_step, init_waveform_state, signal_path

FRAMES = 401  # of 4 s, hop 10 ms


@functools.cache
def parameter_shapes(net):
    """Shapes of all variables, none of them allocated."""
    frames = jax.ShapeDtypeStruct((1, 1, *signal_path(net).frame_shape), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), frames)


def random_variables(net, seed=2):
    """Variables at which nothing is 0, 1 or dead."""
    return contract.random_like(parameter_shapes(net), seed)


def magnitudes(net, batch, frames, seed=5):
    """Positive frames of a wide range."""
    draw = np.random.default_rng(seed)
    shape = (batch, frames, *signal_path(net).frame_shape)
    return np.exp(draw.normal(size=shape) - 0.5).astype(np.float32)


def signed(net, batch, frames, seed=5):
    """Frames of either sign."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(batch, frames, *signal_path(net).frame_shape)).astype(np.float32)


def check_costs(net):
    """Every parameter belongs to one layer of the cost list, which counts it."""
    costs = net.cost()
    assert len({cost.path for cost in costs}) == len(costs)
    counted = dict.fromkeys((cost.path for cost in costs), 0)
    for path, leaf in jax.tree.leaves_with_path(parameter_shapes(net)["params"]):
        name = "/".join(part.key for part in path)
        (owner,) = [one for one in counted if name.startswith(f"{one}/")]
        counted[owner] += leaf.size
    assert counted == {cost.path: cost.params for cost in costs}


def counts(net):
    """Parameters, and MACs of 4 s in both conventions."""
    costs = net.cost()
    return (
        total_params(costs),
        FRAMES * total_macs(costs),
        FRAMES * total_macs_at_outputs(costs),
    )


def check_waveforms(net, variables, stft):
    """From waveform to waveform: blocks of hops equal the whole, and no sample sees the future."""
    hops = 3, 3
    delay = stft.win_length - stft.hop_length
    draw = np.random.default_rng(0)
    length = sum(hops) * stft.hop_length - delay
    noisy = draw.normal(size=(2, length)).astype(np.float32)

    @jax.jit
    def whole(noisy):
        return enhance(net, variables, noisy, stft=stft)[0]

    expected = np.asarray(whole(noisy))
    assert expected.shape == noisy.shape
    assert expected.dtype == np.float32
    assert np.abs(expected).max() > 1e-3

    step = jax.jit(functools.partial(enhance_step, net, variables, stft))
    flushed = np.pad(noisy, ((0, 0), (0, delay)))
    state = init_waveform_state(net, stft, 2)
    blocks, start = [], 0
    for count in hops:
        end = start + count * stft.hop_length
        state, block, _ = step(state, flushed[:, start:end])
        blocks.append(np.asarray(block))
        start = end
    enhanced = np.concatenate(blocks, axis=1)[:, delay:]
    np.testing.assert_allclose(enhanced, expected, atol=1e-5 * np.abs(expected).max())

    # A sample waits for the frame in which it comes first, and that one's win_length samples.
    now = 3 * stft.hop_length
    other = noisy.copy()
    other[:, now:] = draw.normal(size=other[:, now:].shape)
    known = now - delay
    np.testing.assert_array_equal(np.asarray(whole(other))[:, :known], expected[:, :known])
    assert np.abs(np.asarray(whole(other)) - expected)[:, now:].max() > 1e-3


def train_gradients(net, variables, frames, **options):
    """Output, gradients by the parameters and new running statistics of one pass in training."""

    @jax.jit
    def run(variables):
        def objective(params):
            (_, output, _), updated = net.apply(
                {**variables, "params": params},
                frames,
                train=True,
                mutable=["batch_stats"],
                **options,
            )
            weights = jnp.asarray(np.random.default_rng(1).normal(size=output.shape))
            return (weights * output).sum(), (output, updated.get("batch_stats", {}))

        gradients, rest = jax.grad(objective, has_aux=True)(variables["params"])
        return gradients, *rest

    return run(variables)


def check_kernels_learn(gradients):
    """Every gradient is finite, and no kernel's is 0 all over."""
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        if path[-1].key.endswith("kernel"):
            assert np.abs(leaf).max() > 0, path
