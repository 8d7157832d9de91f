import functools

import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.audio.stft import STFT
from dynse.evaluation.clicks import largest_jump, switching_click
from dynse.exits import Budget, EarlyExit
from dynse.models.early_exit_nsnet2 import EarlyExitNsNet2
from dynse.models.waveform import enhance_step, init_waveform_state


def test_jumps_by_hand():
    signal = np.array([[0.0, 0.1, -0.3, -0.3], [0.0, 0.0, 0.0, 1.0]])
    np.testing.assert_allclose(largest_jump(signal), [0.4, 1.0])
    click = switching_click(signal, np.zeros_like(signal), 0.5 * signal[::-1])
    np.testing.assert_allclose(click.switching, [0.4, 1.0])
    np.testing.assert_allclose(click.own, [0.5, 0.2])
    np.testing.assert_array_equal(click.heard, [False, True])
    with pytest.raises(ValueError, match="signals of one shape"):
        switching_click(signal, signal[:, 1:], signal)


def test_a_budget_that_changes_ten_times_a_second_makes_no_click():
    """Blocks of 6 frames of 16 ms; the change goes through the synthesis window."""
    stft, blocks = STFT(64, 64, 32), 20
    model = EarlyExitNsNet2(bins=stft.bins, first=6, hidden=6, exits=("fc1", "gru1"))
    draw = np.random.default_rng(0)
    time = np.arange(blocks * 6 * stft.hop_length) / 2000
    clean = 0.3 * np.sin(2 * np.pi * 150 * time)[None].astype(np.float32)
    noisy = (clean + 0.05 * draw.normal(size=clean.shape)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 1, stft.bins)))
    variables = contract.random_like(shapes, 0)
    net = EarlyExit(model, Budget())
    full = sum(cost.macs for cost in net.exit_costs()[-1])
    budgets = 62.5e-6 * full * jnp.where(jnp.arange(blocks) % 2, 0.1, 1.0)

    @functools.partial(jax.jit, compiler_options=contract.QUICK)
    def stream(budgets):
        def one(state, inputs):
            budget, samples = inputs
            own = {**variables, "exit_policy": {"mmac_per_s": budget}}
            state, enhanced, taken = enhance_step(net, own, stft, state, samples[None])
            return state, (enhanced[0], taken.exit_index[0])

        hops = noisy.reshape(blocks, -1)
        enhanced, exits = jax.lax.scan(one, init_waveform_state(net, stft, 1), (budgets, hops))[1]
        return enhanced.reshape(1, -1), exits

    switched, exits = stream(budgets)
    whole, full_exits = stream(jnp.full(blocks, 1e3))
    assert (full_exits == 1).all()
    assert np.count_nonzero(np.diff(np.asarray(exits).ravel())) >= 10
    delay = stft.past
    own = clean[:, :-delay]
    click = switching_click(switched[:, delay:], whole[:, delay:], own)
    assert float(click.switching[0]) > 0
    assert not click.heard.any()
    # Negative control: the outputs of two exits, cut together hard.
    hard = np.array(whole[:, delay:])
    hard[:, 500:] += 0.5
    assert switching_click(hard, whole[:, delay:], own).heard.all()
