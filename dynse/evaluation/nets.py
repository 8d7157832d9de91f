"""Run a network over a test set: what comes out, and what its gates did."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynse.audio.activity import active_frames
from dynse.audio.stft import STFT
from dynse.data.bank import Corpus
from dynse.data.mixing import rms_factor
from dynse.data.synthetic_noise import nonstationarity_db
from dynse.data.testsets import Mixture, TestSet, render
from dynse.evaluation.metrics import Utterance
from dynse.gating.statistics import UtteranceGates, measure
from dynse.layers.cost import total_active_macs
from dynse.models.waveform import enhance

# (key of the batch, the net's own gates) -> gates to use instead.
Control = Callable[[jax.Array, tuple[jax.Array, ...]], tuple[jax.Array, ...]]


class Enhanced(NamedTuple):
    """One mixture after the network.

    Attributes:
        mixture: what went in.
        enhanced: (N,) float32.
        gates: over blocks (T, C) of zeros and ones as they were used; empty without gates.
        statistics: of the gates; None without.
    """

    mixture: Mixture
    enhanced: np.ndarray
    gates: tuple[np.ndarray, ...]
    statistics: UtteranceGates | None


def enhance_mixtures(
    model: Any,
    variables: Any,
    corpus: Corpus,
    test_set: TestSet,
    *,
    stft: STFT,
    control: Control | None = None,
    seed: int = 0,
    batch_size: int = 6,
    rms: float | None = None,
) -> Iterator[Enhanced]:
    """Enhance every mixture of a test set.

    All are padded to the longest, so one program is compiled; what is padded lies behind the
    signal, where a causal network cannot see it.

    Args:
        model: the network.
        variables: its variables.
        corpus: holds the recordings of the test set.
        test_set: the mixtures.
        stft: the network's transform.
        control: gates to use in place of the network's own.
        seed: of the control.
        batch_size: mixtures enhanced at once.
        rms: scale each mixture to this RMS before the network, and back after it; None does not.

    Yields:
        The mixtures in the test set's order.
    """

    @jax.jit
    def own(variables, noisy):
        return enhance(model, variables, noisy, stft=stft)

    @jax.jit
    def controlled(variables, noisy, key):
        _, aux = enhance(model, variables, noisy, stft=stft)
        gates = control(key, aux.gates)
        enhanced, aux = enhance(model, variables, noisy, stft=stft, gates=gates)
        return enhanced, aux._replace(gates=gates)

    for index, (mixtures, noisy, _) in enumerate(mixture_batches(corpus, test_set, batch_size)):
        factors = np.ones((batch_size, 1), np.float32)
        if rms is not None:
            factors[: len(mixtures), 0] = [rms_factor(one.noisy, rms) for one in mixtures]
        noisy *= factors
        if control is None:
            enhanced, aux = own(variables, noisy)
        else:
            key = jax.random.fold_in(jax.random.key(seed), index * batch_size)
            enhanced, aux = controlled(variables, noisy, key)
        enhanced = np.asarray(enhanced) / factors
        frames = stft.frames(noisy.shape[1])
        gates = [
            np.asarray(jnp.broadcast_to(gate, (batch_size, frames, gate.shape[-1])))
            for gate in aux.gates
        ]
        for row, mixture in enumerate(mixtures):
            length = len(mixture.noisy)
            used = tuple(gate[row, : stft.frames(length)] for gate in gates)
            voice = active_frames(mixture.clean, stft.win_length, stft.hop_length)
            statistics = measure(used, voice, mixture.snr_db) if used else None
            yield Enhanced(mixture, enhanced[row, :length], used, statistics)


def mixture_batches(
    corpus: Corpus,
    test_set: TestSet,
    batch_size: int = 6,
    *,
    only: Collection[str] | None = None,
) -> Iterator[tuple[list[Mixture], np.ndarray, np.ndarray]]:
    """The mixtures of a test set, padded with zeros to the longest of all.

    Args:
        corpus: holds the recordings of the test set.
        test_set: the mixtures.
        batch_size: rows of a batch; those that the last one has no mixture for are zeros.
        only: ids of the mixtures that are wanted; None for all.

    Yields:
        The mixtures of a batch, and their noisy and clean signals (batch_size, N).
    """
    longest = max(spec.length for spec in test_set)
    specs = [spec for spec in test_set if only is None or spec.id in only]
    for start in range(0, len(specs), batch_size):
        mixtures = [render(spec, corpus) for spec in specs[start : start + batch_size]]
        noisy, clean = np.zeros((2, batch_size, longest), np.float32)
        for row, mixture in enumerate(mixtures):
            noisy[row, : len(mixture.noisy)] = mixture.noisy
            clean[row, : len(mixture.clean)] = mixture.clean
        yield mixtures, noisy, clean


def as_utterance(
    mixture: Mixture, estimate: np.ndarray, values: dict[str, float] | None = None
) -> Utterance:
    """What `score_utterances` takes."""
    return Utterance(
        id=mixture.id,
        reference=mixture.clean,
        noisy=mixture.noisy,
        estimate=estimate,
        attributes={
            "snr_db": mixture.snr_db,
            "noise_class": mixture.noise_class,
            "speaker": mixture.speaker,
            "nonstationarity_db": round(nonstationarity_db(mixture.noise), 2),
        },
        values=values or {},
    )


def gate_values(
    model: Any, statistics: UtteranceGates | None, gates: Sequence[np.ndarray], per_s: float
) -> dict[str, float]:
    """Kept fraction and active MACs per second of one utterance."""
    if statistics is None:
        return {"active_macs_per_s": per_s * total_active_macs(model.cost(), ())}
    active = total_active_macs(model.cost(), [gate.mean() for gate in gates])
    return {"kept": statistics.kept, "active_macs_per_s": per_s * active}
