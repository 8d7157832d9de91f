"""A net with exits over a test set: whole states, the oracle and a budget that changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.small import corpus

from dynse.audio.features import magnitude
from dynse.audio.stft import STFT
from dynse.data.drawing import make_test_set
from dynse.evaluation.exit_policies import (
    BLOCK_FRAMES,
    decide_mixtures,
    exit_macs,
    frame_errors,
    oracle_program,
    policy_program,
    switched_mixtures,
)
from dynse.exits import Budget, EarlyExit, Fixed, SkippedState
from dynse.models.early_exit_nsnet2 import EarlyExitNsNet2

STFT_64 = STFT(64, 64, 32)
MODEL = EarlyExitNsNet2(bins=STFT_64.bins, first=6, hidden=8, exits=("fc1", "gru1", "gru2"))
CORPUS = corpus()
TEST_SET = make_test_set(
    CORPUS, "valid", name="t", seed=0, snrs_db=(0, 5), per_snr=1, min_s=1, max_s=2
)


@pytest.fixture(scope="module")
def variables():
    found = jax.jit(MODEL.init)(jax.random.key(0), jnp.ones((1, 1, MODEL.bins)))
    return {**found, "params": jax.tree.map(lambda leaf: 3 * leaf, found["params"])}


def decided(program, variables, **controls):
    own = {**variables, "exit_policy": controls}
    return list(decide_mixtures(program, own, CORPUS, TEST_SET, stft=STFT_64))


def gains_of(variables, one):
    """Noisy spectrum (1, T, F), and the gains of all exits in a net that skips nothing."""
    spectrum = STFT_64.forward(one.mixture.noisy[None])
    return spectrum, jax.jit(MODEL.apply, static_argnames="method")(
        variables, magnitude(spectrum), method="all_exits"
    )[1]


def enhanced(spectrum, gain, one):
    return np.asarray(STFT_64.inverse(gain * spectrum, len(one.mixture.noisy)))[0]


def test_whole_states_are_those_of_a_net_that_skips_nothing(variables):
    """The exit is the policy's, the gain the whole net's at that exit."""
    net = EarlyExit(MODEL, Budget(), SkippedState(factor=0.5))
    costs = exit_macs(MODEL).total * 62.5e-6
    level = jnp.float32((costs[0] + costs[1]) / 2)
    skipping = decided(policy_program(net, STFT_64), variables, mmac_per_s=level)
    whole = decided(policy_program(net, STFT_64, whole_states=True), variables, mmac_per_s=level)
    for one, other in zip(skipping, whole, strict=True):
        np.testing.assert_array_equal(one.exit_index, other.exit_index)
        assert set(one.exit_index.tolist()) == {0, 1}
        spectrum, gains = gains_of(variables, one)
        taken = jnp.where(jnp.asarray(one.exit_index)[:, None] == 1, gains[1][0], gains[0][0])
        np.testing.assert_allclose(other.enhanced, enhanced(spectrum, taken, one), atol=1e-5)
        # Skipping has its price.
        assert np.abs(one.enhanced - other.enhanced).max() > 1e-3
    for one in decided(policy_program(EarlyExit(MODEL, Fixed(2)), STFT_64), variables):
        spectrum, gains = gains_of(variables, one)
        np.testing.assert_allclose(one.enhanced, enhanced(spectrum, gains[2], one), atol=1e-5)


def test_the_oracle_takes_the_best_exit_and_pays_for_that_alone(variables):
    program = oracle_program(MODEL, STFT_64)
    for one in decided(program, variables, price=jnp.float32(0)):
        spectrum, gains = gains_of(variables, one)
        errors = frame_errors(gains, spectrum, one.mixture.clean[None], STFT_64)[0]
        np.testing.assert_array_equal(one.exit_index, np.argmin(errors, axis=-1))
        assert len(set(one.exit_index.tolist())) > 1
        np.testing.assert_array_equal(one.macs, exit_macs(MODEL).total[one.exit_index])
    for one in decided(program, variables, price=jnp.float32(1)):
        assert (one.exit_index == 0).all()


def test_a_budget_changes_with_every_block(variables):
    net = EarlyExit(MODEL, Budget())
    found = list(switched_mixtures(net, variables, CORPUS, TEST_SET, stft=STFT_64))
    assert len(found) == len(TEST_SET) == 2
    for one, jump, cheapest in found:
        blocks = one.exit_index[: 4 * BLOCK_FRAMES].reshape(4, BLOCK_FRAMES)
        np.testing.assert_array_equal(blocks, np.array([[2], [0], [2], [0]]).repeat(6, axis=1))
        # Against what the definitions give by hand.
        spectrum, gains = gains_of(variables, one)
        whole, first = (enhanced(spectrum, gains[index], one) for index in (2, 0))
        own = np.abs(np.diff(whole - one.mixture.clean)).max()
        for ratio, signal in ((jump, one.enhanced), (cheapest, first)):
            assert ratio == pytest.approx(np.abs(np.diff(signal - whole)).max() / own, rel=1e-3)
