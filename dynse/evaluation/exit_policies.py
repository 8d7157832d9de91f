"""Run a net with exits over a test set as a policy, or the oracle, chooses: what came out, at what
cost, and whether a budget that changes ten times a second clicks.

The oracle sees each exit's error in every frame, with S the clean spectrum, X the noisy one, g_i
an exit's gain, and both spectra divided by the RMS level of the active speech:

    error_ti = mean over bins of (|g_ti X_t|^0.3 - |S_t|^0.3)^2

the magnitude term of the loss, frame by frame and without re-synthesis (ours).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynse.audio.activity import active_level_db
from dynse.audio.features import magnitude
from dynse.audio.stft import STFT
from dynse.data.bank import Corpus
from dynse.data.testsets import Mixture, TestSet
from dynse.evaluation.clicks import switching_click
from dynse.evaluation.cost import FRAMES_PER_S
from dynse.evaluation.nets import mixture_batches
from dynse.exits import EarlyExit, ExitMacs, Taken, oracle_exits, take_exit
from dynse.layers.cost import total_macs

# Of the error: that of the loss.
EXPONENT = 0.3
# 96 ms: a budget that changes with every block changes ten times a second.
BLOCK_FRAMES = 6

# (variables, noisy (B, N), clean (B, N)) -> enhanced (B, N) and what was done.
Program = Callable[[Any, Any, Any], tuple[jax.Array, Taken]]


class Decided(NamedTuple):
    """One mixture, enhanced as a policy chose.

    Attributes:
        mixture: what went in.
        enhanced: (N,) float32.
        exit_index: exit taken (T,).
        macs: of each frame (T,).
    """

    mixture: Mixture
    enhanced: np.ndarray
    exit_index: np.ndarray
    macs: np.ndarray

    @property
    def macs_per_s(self) -> float:
        """Mean MACs per second of audio."""
        return FRAMES_PER_S * float(self.macs.mean())


def exit_macs(model: Any) -> ExitMacs:
    """Of the program of each exit."""
    return ExitMacs([model.clone(exit_index=i).cost() for i in range(len(model.exits))])


def policy_program(net: EarlyExit, stft: STFT, *, whole_states: bool = False) -> Program:
    """The compiled net under its policy.

    Args:
        net: a network and its policy.
        stft: the network's transform.
        whole_states: take the gains of the exits that the policy takes from the whole net, none
            of whose states was ever skipped; the price of skipping is the difference.
    """

    @jax.jit
    def run(variables: Any, noisy: jax.Array, clean: jax.Array) -> tuple[jax.Array, Taken]:
        spectrum = stft.forward(noisy)
        frames = magnitude(spectrum)
        _, gain, taken = net.apply(variables, frames)
        if whole_states:
            gains = net.model.apply(variables, frames, method="all_exits").gains
            gain = take_exit(gains, taken.exit_index)
        return stft.inverse(gain * spectrum, noisy.shape[1]), taken

    return run


def oracle_program(model: Any, stft: STFT) -> Program:
    """The compiled oracle; its price is `variables["exit_policy"]["price"]`, error per MAC.

    Every stage runs in every frame; counted is what the exit taken needs.
    """
    macs = exit_macs(model)

    @jax.jit
    def run(variables: Any, noisy: jax.Array, clean: jax.Array) -> tuple[jax.Array, Taken]:
        spectrum = stft.forward(noisy)
        exits = model.apply(variables, magnitude(spectrum), method="all_exits")
        errors = frame_errors(exits.gains, spectrum, clean, stft)
        exit_index = oracle_exits(errors, macs.total, variables["exit_policy"]["price"])
        enhanced = stft.inverse(take_exit(exits.gains, exit_index) * spectrum, noisy.shape[1])
        return enhanced, Taken(exit_index, macs.done(exit_index, exits.gates))

    return run


def frame_errors(
    gains: Sequence[jax.Array], spectrum: jax.Array, clean: jax.Array, stft: STFT
) -> jax.Array:
    """Error of every exit in every frame.

    Args:
        gains: of each exit (B, T, F).
        spectrum: noisy (B, T, F) complex.
        clean: (B, N).
        stft: the transform.

    Returns:
        (B, T, E).
    """
    level = 10 ** (active_level_db(clean) / 20)[:, None, None]
    noisy, target = magnitude(spectrum) / level, magnitude(stft.forward(clean)) / level
    errors = [jnp.square((gain * noisy) ** EXPONENT - target**EXPONENT).mean(-1) for gain in gains]
    return jnp.stack(errors, axis=-1)


def decide_mixtures(
    program: Program,
    variables: Any,
    corpus: Corpus,
    test_set: TestSet,
    *,
    stft: STFT,
    only: Collection[str] | None = None,
) -> Iterator[Decided]:
    """Enhance mixtures as a policy chooses.

    Args:
        program: from `policy_program` or `oracle_program`.
        variables: of the network, and "exit_policy".
        corpus: holds the recordings of the test set.
        test_set: the mixtures.
        stft: the network's transform.
        only: ids of the mixtures that are wanted; None for all.

    Yields:
        The mixtures in the test set's order.
    """
    for mixtures, noisy, clean in mixture_batches(corpus, test_set, only=only):
        enhanced, taken = jax.tree.map(np.asarray, program(variables, noisy, clean))
        yield from _decided(mixtures, enhanced, taken, stft)


def _decided(
    mixtures: Sequence[Mixture], enhanced: np.ndarray, taken: Taken, stft: STFT
) -> Iterator[Decided]:
    """The rows of a batch without their padding."""
    for row, mixture in enumerate(mixtures):
        length = len(mixture.noisy)
        exit_index, macs = (leaf[row, : stft.frames(length)] for leaf in taken)
        yield Decided(mixture, enhanced[row, :length], exit_index, macs)


def policy_values(decided: Decided, exits: Sequence[Any]) -> dict[str, float]:
    """What was measured on a mixture: MACs per second, and the share of frames of each exit."""
    shares = np.bincount(decided.exit_index, minlength=len(exits)) / len(decided.exit_index)
    return {
        "active_macs_per_s": decided.macs_per_s,
        **{f"share_{name}": float(share) for name, share in zip(exits, shares, strict=True)},
    }


def switched_mixtures(
    net: EarlyExit, variables: Any, corpus: Corpus, test_set: TestSet, *, stft: STFT
) -> Iterator[tuple[Decided, float, float]]:
    """Enhance mixtures while a budget goes, with every block, from the dearest exit's cost to the
    cheapest's and back.

    Args:
        net: a network under a `Budget` without a demand.
        variables: of the network.
        corpus: holds the recordings of the test set.
        test_set: the mixtures.
        stft: the network's transform.

    Yields:
        The mixtures in the test set's order, and of each the largest jump that switching makes over
        that of the whole net (`dynse.evaluation.clicks`), and the same of the cheapest exit by
        itself, which does not switch.
    """
    costs = [FRAMES_PER_S * total_macs(layers) / 1e6 for layers in net.exit_costs()]
    cheapest = net.model.clone(exit_index=int(np.argmin(costs)))

    @jax.jit
    def run(variables: Any, noisy: jax.Array) -> tuple[jax.Array, Taken, jax.Array, jax.Array]:
        spectrum = stft.forward(noisy)
        frames = magnitude(spectrum)
        batch, count, bins = frames.shape
        blocks = jnp.pad(frames, ((0, 0), (0, -count % BLOCK_FRAMES), (0, 0)))
        blocks = blocks.reshape(batch, -1, BLOCK_FRAMES, bins).swapaxes(0, 1)
        budgets = jnp.where(jnp.arange(len(blocks)) % 2, min(costs), max(costs))

        def one(state: Any, inputs: Any) -> tuple[Any, tuple[jax.Array, Taken]]:
            budget, block = inputs
            own = {**variables, "exit_policy": {"mmac_per_s": budget}}
            state, gain, taken = net.step(own, state, block)
            return state, (gain, taken)

        _, done = jax.lax.scan(one, net.init_state(batch), (budgets, blocks))
        gain, taken = jax.tree.map(
            lambda leaf: leaf.swapaxes(0, 1).reshape(batch, -1, *leaf.shape[3:])[:, :count], done
        )
        gains = [gain, *(model.apply(variables, frames)[1] for model in (net.model, cheapest))]
        signals = [stft.inverse(one * spectrum, noisy.shape[1]) for one in gains]
        return signals[0], taken, *signals[1:]

    for mixtures, noisy, _ in mixture_batches(corpus, test_set):
        switched, taken, whole, first = jax.tree.map(np.asarray, run(variables, noisy))
        for row, one in enumerate(_decided(mixtures, switched, taken, stft)):
            length = len(one.enhanced)
            clicks = [
                switching_click(signal, whole[row, :length], one.mixture.clean)
                for signal in (one.enhanced, first[row, :length])
            ]
            yield one, *(float(click.switching / click.own) for click in clicks)
