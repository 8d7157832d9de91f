"""The contract itself: a sound network passes, and each broken one fails the check made for it."""

from typing import NamedTuple

import contract
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.layers.gru import GRU, LONG_BLOCK
from dynse.layers.lstm import LSTM
from dynse.models.gru_classifier import GRUClassifier
from dynse.models.nsnet2 import NsNet2, public_nsnet2

CHANNELS = 3


class Sound:
    """y_t = a x_t + b x_(t-1): one past frame, no latency."""

    latency_frames = 0
    receptive_field_frames = 1

    def init_state(self, batch_size):
        return jnp.zeros((batch_size, 1, CHANNELS))

    def __call__(self, params, state, frames):
        signal = jnp.concatenate([state, frames], axis=1)
        y = params["a"] * signal[:, 1:] + params["b"] * signal[:, :-1]
        return signal[:, -1:], jnp.tanh(y), ()

    def step(self, variables, state, frames):
        return self(variables["params"], state, frames)

    def apply(self, variables, frames, state=None, **options):
        state = self.init_state(frames.shape[0]) if state is None else state
        return self(variables["params"], state, frames, **options)


class Recurrent(Sound):
    """Never forgets."""

    receptive_field_frames = None

    def __call__(self, params, state, frames):
        def one(h, x):
            h = 0.5 * h + params["a"] * x + params["b"]
            return h, h

        h, y = jax.lax.scan(one, state[:, 0], frames.swapaxes(0, 1))
        return h[:, None], y.swapaxes(0, 1), ()


class Gated(Sound):
    """y_t = g_t x_t with g_t = (a (x_t + x_(t-1)) + b > 0); the decision passes no gradient."""

    surrogate = False

    def scores(self, params, signal):
        return params["a"] * (signal[:, 1:] + signal[:, :-1]) + params["b"]

    def __call__(self, params, state, frames, gates=None):
        signal = jnp.concatenate([state, frames], axis=1)
        scores = self.scores(params, signal)
        gate = (scores > 0).astype(jnp.float32)
        if self.surrogate:
            soft = jax.nn.sigmoid(scores)
            gate = jax.lax.stop_gradient(gate - soft) + soft
        if gates is not None:
            gate = gates[0]
        aux = Aux((jax.lax.stop_gradient(gate),), (scores,))
        return signal[:, -1:], gate * frames, aux


class PassesGradients(Gated):
    surrogate = True


class Aux(NamedTuple):
    gates: tuple
    scores: tuple


class OtherNet(PassesGradients):
    def __call__(self, params, state, frames, gates=None):
        state, y, aux = super().__call__(params, state, frames, gates)
        return state, 1.001 * y, aux


class NonCausal(Sound):
    def __call__(self, params, state, frames):
        ahead = jnp.pad(frames[:, 1:], ((0, 0), (0, 1), (0, 0)))
        state, y, aux = super().__call__(params, state, frames)
        return state, y + 1e-3 * ahead, aux


class Leaky(Sound):
    def __call__(self, params, state, frames):
        state, y, aux = super().__call__(params, state, frames)
        return state, y - y.mean(0, keepdims=True), aux


class LeaksLargeValuesOnly(Sound):
    """No comparison with NaN is true: garbage shows what NaN does not."""

    def __call__(self, params, state, frames):
        state, y, aux = super().__call__(params, state, frames)
        return state, y + 1e-3 * (frames > 100).any(0, keepdims=True), aux


class DeclaresTooMuchPast(Sound):
    receptive_field_frames = 2


class DeclaresTooLittlePast(Sound):
    receptive_field_frames = 0


class DeclaresEndlessPast(Sound):
    receptive_field_frames = None


class DeclaresNoLatency(Sound):
    """One frame late, and does not say so."""

    def __call__(self, params, state, frames):
        signal = jnp.concatenate([state, frames], axis=1)
        return signal[:, -1:], params["a"] * signal[:, :-1] + params["b"], ()


class DeclaresItsLatency(DeclaresNoLatency):
    latency_frames = 1


class DeclaresTooMuchLatency(Sound):
    latency_frames = 1


class NarrowState(Sound):
    def __call__(self, params, state, frames):
        state, y, aux = super().__call__(params, state.astype(jnp.float32), frames)
        return state.astype(jnp.bfloat16), y, aux


class GrowingState(Sound):
    def __call__(self, params, state, frames):
        _, y, aux = super().__call__(params, state[:, -1:], frames)
        return jnp.concatenate([state, frames], axis=1), y, aux


class TwoTraces(Sound):
    """The first state is weakly typed, those after it are not."""

    def init_state(self, batch_size):
        return jnp.broadcast_to(jnp.asarray(0.0), (batch_size, 1, CHANNELS))


class OtherUnderJit(Sound):
    def __call__(self, params, state, frames):
        state, y, aux = super().__call__(params, state, frames)
        return state, y + 1e-4 * isinstance(frames, jax.core.Tracer), aux


class ForgetsBetweenBlocks(Sound):
    def __call__(self, params, state, frames):
        return super().__call__(params, jnp.zeros_like(state), frames)


class CutsTheGradient(Sound):
    """Right values, but what a block owes to the parameters through its state is lost."""

    def __call__(self, params, state, frames):
        scaled = params["a"] * frames
        signal = jnp.concatenate([jax.lax.stop_gradient(state), scaled], axis=1)
        return signal[:, -1:], signal[:, 1:] + params["b"] * signal[:, :-1], ()


class DecidesPerBlock(Gated):
    def scores(self, params, signal):
        return super().scores(params, signal) - params["a"] * signal[:, 1:].mean(1, keepdims=True)


class IgnoresReplay(Gated):
    """Its scores depend on the block's length a little, and it does not take decisions."""

    def __call__(self, params, state, frames, gates=None):
        state, y, aux = super().__call__(params, state, frames)
        return state, y if gates is None else y + 1e-3 * gates[0], aux


VARIABLES = {
    "params": {"a": jnp.asarray([0.7, -0.4, 1.1]), "b": jnp.asarray([-0.3, 0.5, -0.2])},
}


@pytest.fixture(scope="module")
def frames():
    # Signed inputs: these networks take any, and their gates open and close.
    return np.random.default_rng(3).normal(size=(2, 12, CHANNELS)).astype(np.float32)


@pytest.mark.parametrize("network", [Sound(), Recurrent(), DeclaresItsLatency()])
def test_a_sound_network_passes(network, frames):
    contract.check_causal_network(network, VARIABLES, frames)


def test_a_gated_network_passes_with_the_receptive_field_seen_through_its_gates(frames):
    contract.check_causal_network(Gated(), VARIABLES, frames, through_gates=PassesGradients())
    with pytest.raises(AssertionError, match="measured a receptive field of 0"):
        contract.check_reach(Gated(), VARIABLES, frames)
    with pytest.raises(AssertionError, match="passes gradients"):
        contract.check_reach(Gated(), VARIABLES, frames, through_gates=OtherNet())


@pytest.mark.parametrize(
    ("check", "network", "message"),
    [
        (contract.check_future, NonCausal(), "another future"),
        (contract.check_batch_rows, Leaky(), "beside rows of nan"),
        (contract.check_batch_rows, LeaksLargeValuesOnly(), "beside rows of 10000.0"),
        (contract.check_reach, DeclaresTooMuchPast(), "measured a receptive field of 1"),
        (contract.check_reach, DeclaresTooLittlePast(), "outside the declared reach"),
        (contract.check_reach, DeclaresEndlessPast(), "measured a receptive field of 1"),
        (contract.check_reach, DeclaresNoLatency(), "measured a latency of 1"),
        (contract.check_reach, DeclaresTooMuchLatency(), "outside the declared reach"),
        (contract.check_state, NarrowState(), "bfloat16"),
        (contract.check_state, GrowingState(), "the state went from"),
        (contract.check_one_trace, TwoTraces(), "2 traces"),
        (contract.check_jit, OtherUnderJit(), "without jit"),
        (contract.check_blocks, ForgetsBetweenBlocks(), "output, frame by frame"),
        (contract.check_blocks, CutsTheGradient(), "gradients, frame by frame"),
        (contract.check_blocks, DecidesPerBlock(), "decisions differ"),
        (contract.check_blocks, IgnoresReplay(), "gates replayed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Sound) else "",
)
def test_a_broken_network_fails(check, network, message, frames):
    with pytest.raises(AssertionError, match=message):
        check(network, VARIABLES, frames)


@pytest.mark.parametrize(
    "network", [NonCausal(), Leaky(), DeclaresTooMuchPast(), NarrowState(), CutsTheGradient()]
)
def test_the_whole_contract_fails_with_a_broken_network(network, frames):
    with pytest.raises(AssertionError):
        contract.check_causal_network(network, VARIABLES, frames)


class RecurrentLayer(NamedTuple):
    """A layer (state, x) -> (state, y) as a network."""

    layer: GRU | LSTM
    latency_frames = 0
    receptive_field_frames = None

    def init_state(self, batch_size):
        return self.layer.init_state(batch_size)

    def init(self, key, frames):
        return self.layer.init(key, self.init_state(len(frames)), frames)

    def step(self, variables, state, frames):
        return *self.layer.apply(variables, state, frames), ()

    def apply(self, variables, frames):
        return self.step(variables, self.init_state(len(frames)), frames)


TINY = {"bins": CHANNELS, "first": 6, "hidden": 4, "wide": 6}


@pytest.mark.parametrize(
    "network",
    [
        RecurrentLayer(GRU(4)),
        pytest.param(RecurrentLayer(GRU(4, two_biases=False)), marks=pytest.mark.slow),
        RecurrentLayer(LSTM(4)),
        NsNet2(**TINY),
        public_nsnet2(**TINY),
        GRUClassifier(features=4, outputs=2, activation="sigmoid"),
    ],
    ids=["gru", "gru-one-bias", "lstm", "nsnet2", "nsnet2-public", "gru-classifier"],
)
def test_recurrent_networks(network):
    # The whole goes the way of long blocks, its parts that of short ones.
    frames = np.random.default_rng(4).lognormal(size=(4, LONG_BLOCK + 2, CHANNELS))
    frames = frames.astype(np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), frames)
    contract.check_causal_network(network, contract.random_like(shapes, 3), frames)


def two_runs():
    """Twice the same decisions of two blocks: output (1, 50, 4), gates and scores."""
    draw = np.random.default_rng(0)
    scores = tuple(draw.normal(size=(1, 50, 200)) + 0.01 for _ in range(2))
    gates = tuple((score > 0).astype(np.float64) for score in scores)
    output = draw.normal(size=(1, 50, 4))
    return (output, gates, scores), (
        output.copy(),
        tuple(g.copy() for g in gates),
        tuple(s.copy() for s in scores),
    )


def test_equal_decisions_agree():
    assert contract.check_decisions(*two_runs()) is True


@pytest.mark.parametrize(
    ("share", "message"), [(1e-5, None), (1e-3, "first difference")], ids=["borderline", "clear"]
)
def test_a_first_difference_must_be_borderline(share, message):
    actual, expected = two_runs()
    expected[2][1][0, 30, 5] = share
    actual[1][1][0, 30, 5] = 1 - expected[1][1][0, 30, 5]
    # What follows from it, in a later frame, may be as clear as it likes.
    expected[2][0][0, 31, 7] = 3.0
    actual[1][0][0, 31, 7] = 1 - expected[1][0][0, 31, 7]
    if message is None:
        assert contract.check_decisions(actual, expected) is False
    else:
        with pytest.raises(AssertionError, match=message):
            contract.check_decisions(actual, expected)


def test_too_many_differences_fail():
    actual, expected = two_runs()
    expected[2][0][0, 30, :3] = 1e-6
    actual[1][0][0, 30, :3] = 1 - expected[1][0][0, 30, :3]
    with pytest.raises(AssertionError, match="decisions differ"):
        contract.check_decisions(actual, expected)


def test_outputs_of_less_than_50_db_fail():
    actual, expected = two_runs()
    louder = actual[0] + 0.01 * np.random.default_rng(1).normal(size=actual[0].shape)
    with pytest.raises(AssertionError, match="dB only"):
        contract.check_decisions((louder, *actual[1:]), expected)


def test_inputs_that_show_nothing_are_refused(frames):
    with pytest.raises(ValueError, match="batch of at least 2"):
        contract.check_batch_rows(Sound(), VARIABLES, frames[:1])
    with pytest.raises(ValueError, match="needs 3 frames"):
        contract.check_reach(Sound(), VARIABLES, frames[:, :2])
    always_open = {"params": {"a": jnp.zeros(CHANNELS), "b": jnp.ones(CHANNELS)}}
    with pytest.raises(ValueError, match="every decision is the same"):
        contract.check_blocks(Gated(), always_open, frames)


def test_random_variables_are_nowhere_trivial():
    variables = {
        "params": {"scale": jnp.ones(4), "bias": jnp.zeros(4), "kernel": jnp.zeros((3, 4))},
        "batch_stats": {"var": jnp.ones(4), "mean": jnp.zeros(4)},
    }
    drawn = contract.random_like(variables, 0)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a != b).all()), variables, drawn))
    assert (drawn["batch_stats"]["var"] >= 0.5).all()
