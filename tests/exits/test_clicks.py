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
    # Low, so that what two exits make of it differs by a smooth signal: an edge would stand out.
    time = np.arange(blocks * 6 * stft.hop_length)
    noisy = 0.3 * np.sin(2 * np.pi * time / 100)[None].astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 1, stft.bins)))
    variables = contract.random_like(shapes, 0)
    net = EarlyExit(model, Budget())
    cheapest, dearest = (62.5e-6 * sum(cost.macs for cost in one) for one in net.exit_costs())

    @functools.partial(jax.jit, compiler_options=contract.QUICK)
    def stream(budgets):
        def one(state, inputs):
            budget, samples = inputs
            own = {**variables, "exit_policy": {"mmac_per_s": budget}}
            state, enhanced, taken = enhance_step(net, own, stft, state, samples[None])
            return state, (enhanced[0], taken.exit_index[0])

        hops = noisy.reshape(blocks, -1)
        enhanced, exits = jax.lax.scan(one, init_waveform_state(net, stft, 1), (budgets, hops))[1]
        return enhanced.ravel(), exits.ravel()

    switched, exits = stream(jnp.where(jnp.arange(blocks) % 2, cheapest, dearest))
    (first, none), (whole, all_) = stream(jnp.full(blocks, cheapest)), stream(jnp.full(blocks, 1e3))
    assert set(none.tolist()) == {0}
    assert set(all_.tolist()) == {1}
    assert np.count_nonzero(np.diff(exits)) >= 10
    # The outputs of the two exits cut together hard, where the exits change.
    hard = np.where(np.repeat(exits, stft.hop_length) == 1, whole, first)
    # What the net adds itself: one step, of half the jump at the hard edges.
    edge = largest_jump(hard - whole)
    clean = whole + np.where(time > len(time) // 2, edge / 2, 0).astype(np.float32)
    soft = switching_click(switched[None], whole[None], clean[None])
    assert 0 < float(soft.switching[0]) < edge / 4
    assert not soft.heard.any()
    assert switching_click(hard[None], whole[None], clean[None]).heard.all()
