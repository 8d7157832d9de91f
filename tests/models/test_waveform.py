import functools
from typing import NamedTuple

import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.audio.stft import STFT
from dynse.models.conv_fsenet import ConvFSENet, GateConfig
from dynse.models.waveform import enhance, enhance_step, init_waveform_state

SMALL = STFT(16, 16, 4)


class Gain(NamedTuple):
    """A network that multiplies by one number."""

    value: float

    def init_state(self, batch_size):
        return ()

    def step(self, variables, state, frames):
        return (), jnp.full_like(frames, self.value), ()

    def apply(self, variables, frames):
        return self.step(variables, (), frames)


def audio(batch, length, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=(batch, length)).astype(np.float32)


def in_blocks(model, variables, stft, samples, sizes):
    step = jax.jit(functools.partial(enhance_step, model, variables, stft))
    state, done, start = init_waveform_state(model, stft, len(samples)), [], 0
    for size in sizes:
        block = samples[:, start : start + size * stft.hop_length]
        state, enhanced, _ = step(state, block)
        done.append(np.asarray(enhanced))
        start += size * stft.hop_length
    assert start == samples.shape[1]
    return np.concatenate(done, axis=1)


@pytest.mark.parametrize("stft", [None, SMALL])
def test_a_gain_of_one_returns_the_input(stft):
    noisy = audio(2, 1001)
    enhanced, _ = enhance(Gain(1.0), {}, noisy, stft=stft)
    np.testing.assert_allclose(enhanced, noisy, atol=1e-6)
    halved, _ = enhance(Gain(0.5), {}, noisy, stft=stft)
    np.testing.assert_allclose(halved, 0.5 * noisy, atol=1e-6)


@pytest.mark.parametrize("site", [None, "output"])
def test_blocks_of_hops_give_the_whole_win_minus_hop_later(site):
    model = ConvFSENet(
        bins=9, width=6, inner=8, stacks=1, blocks=2, gate=site and GateConfig(site, 4, 3, bias=0)
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 1, 9)))
    variables = contract.random_like(shapes, 1)
    noisy = audio(2, 80)
    whole, aux = jax.jit(lambda x: enhance(model, variables, x, stft=SMALL))(noisy)
    assert whole.shape == noisy.shape
    assert whole.dtype == jnp.float32
    assert np.isfinite(whole).all()
    assert all(gate.shape[:2] == (2, SMALL.frames(80)) for gate in aux.gates)
    delay = SMALL.win_length - SMALL.hop_length
    flushed = np.pad(noisy, ((0, 0), (0, delay)))
    for sizes in ([1] * 23, [5, 1, 17]):
        enhanced = in_blocks(model, variables, SMALL, flushed, sizes)
        np.testing.assert_allclose(enhanced[:, delay:], whole, atol=1e-5)


def test_options_reach_the_network():
    model = ConvFSENet(bins=9, width=6, inner=8, stacks=1, blocks=1, gate=GateConfig(bias=0))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 1, 9)))
    variables = contract.random_like(shapes, 1)
    run = jax.jit(lambda gates: enhance(model, variables, audio(1, 40), stft=SMALL, gates=gates))
    _, aux = run((jnp.ones((1, 1, 6)),))
    assert (aux.gates[0] == 1).all()
