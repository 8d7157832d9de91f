"""What trained gates do: how much they keep, when, and whether they move at all.

A gate that has become a constant is static pruning with a sub-network to pay; it shows as a
small `varying` share and few flips. `measure` describes one utterance, `gather_statistics` a
test set; the values per utterance are kept, so that intervals can be bootstrapped from them.

Shuffling an utterance's frames is the null hypothesis of gates that know the rates but not the
signal. No drawing is needed: then kept in speech, kept in pauses and kept are equal in
expectation, and a channel open in k of n frames is expected to flip at a fraction of

    2 k (n - k) / (n (n - 1))

of its frame pairs. Flips well below that: the gates follow something that lasts.

NumPy, not jax: utterances differ in length, and each would be compiled anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class UtteranceGates:
    """One utterance. Fractions are of gates (channels of all blocks times frames)."""

    frames: int
    """Number of frames."""
    snr_db: float
    """Input SNR in dB; NaN where unknown."""
    kept: float
    """Fraction open."""
    kept_per_block: np.ndarray
    """(blocks,) fraction open in each block."""
    speech_frames: int
    """Number of frames with voice activity."""
    kept_speech: float
    """Fraction open in frames with voice activity; NaN without one."""
    kept_pauses: float
    """Fraction open in frames without voice activity; NaN without one."""
    flips_per_frame: float
    """Fraction of gates that change from one frame to the next; NaN for a single frame."""
    flips_per_frame_shuffled: float
    """The same, expected with the frames in random order."""
    open_counts: tuple[np.ndarray, ...]
    """Per block (C_i,): number of frames with the channel open."""


@dataclass(frozen=True)
class GateStatistics:
    """A set of utterances. Fractions weight each frame equally unless said otherwise."""

    kept: float
    """Fraction of gates open."""
    kept_per_block: np.ndarray
    """(blocks,) fraction open in each block."""
    rates: tuple[np.ndarray, ...]
    """Per block (C_i,): fraction of frames with the channel open."""
    kept_speech: float
    """Fraction open in frames with voice activity; NaN without one."""
    kept_pauses: float
    """Fraction open in frames without voice activity; NaN without one."""
    snrs_db: np.ndarray
    """(S,) the SNRs that occur, rising."""
    kept_by_snr: np.ndarray
    """(S,) mean over the utterances of each SNR of their kept fraction."""
    kept_slope_per_10_db: float
    """Change of an utterance's kept fraction per 10 dB of SNR, least squares; NaN for one SNR."""
    always_on: float
    """Share of channels open in more than 95 % of the frames."""
    always_off: float
    """Share of channels open in less than 5 % of the frames."""
    varying: float
    """Share of channels open in 5 to 95 % of the frames."""
    flips_per_frame: float
    """Fraction of gates that change from one frame to the next, within utterances."""
    flips_per_frame_shuffled: float
    """The same, expected with each utterance's frames in random order."""
    switches_per_second: float
    """Changes per second of one gate, mean over gates."""
    utterances: tuple[UtteranceGates, ...]
    """The values per utterance."""


def kept_over_time(gates: Sequence[ArrayLike]) -> np.ndarray:
    """Fraction of open channels in each frame and block.

    Args:
        gates: sequence over blocks of (T, C_i) zeros and ones of one utterance.

    Returns:
        (T, blocks) float64.
    """
    return np.stack([np.asarray(gate, np.float64).mean(-1) for gate in gates], axis=-1)


def measure(
    gates: Sequence[ArrayLike], voice: ArrayLike, snr_db: float = float("nan")
) -> UtteranceGates:
    """Statistics of one utterance.

    Args:
        gates: sequence over blocks of (T, C_i) zeros and ones.
        voice: (T,) bool, true in frames with active speech.
        snr_db: input SNR in dB.

    Raises:
        ValueError: lengths differ, there is no frame, or a gate is neither 0 nor 1.
    """
    gates = [np.asarray(gate, np.float64) for gate in gates]
    voice = np.asarray(voice, bool)
    frames = len(voice)
    if frames == 0:
        raise ValueError("expected at least one frame, got none")
    for gate in gates:
        if gate.ndim != 2 or len(gate) != frames:
            raise ValueError(f"expected gates of shape ({frames}, channels), got {gate.shape}")
        if not np.isin(gate, (0, 1)).all():
            raise ValueError("expected gates of exact zeros and ones")

    every = np.concatenate(gates, axis=1)
    per_frame = every.mean(1)
    open_counts = every.sum(0)
    flips = flips_shuffled = float("nan")
    if frames > 1:
        flips = float((every[1:] != every[:-1]).mean())
        pairs = frames * (frames - 1)
        flips_shuffled = float((2 * open_counts * (frames - open_counts) / pairs).mean())
    return UtteranceGates(
        frames=frames,
        snr_db=float(snr_db),
        kept=float(per_frame.mean()),
        kept_per_block=np.array([gate.mean() for gate in gates]),
        speech_frames=int(voice.sum()),
        kept_speech=_mean(per_frame[voice]),
        kept_pauses=_mean(per_frame[~voice]),
        flips_per_frame=flips,
        flips_per_frame_shuffled=flips_shuffled,
        open_counts=tuple(gate.sum(0) for gate in gates),
    )


def gather_statistics(
    utterances: Sequence[UtteranceGates], frame_rate_hz: float = 62.5
) -> GateStatistics:
    """Statistics of a set of utterances of one net.

    Args:
        utterances: from `measure`.
        frame_rate_hz: frames per second.

    Raises:
        ValueError: there is no utterance.
    """
    utterances = tuple(utterances)
    if not utterances:
        raise ValueError("expected at least one utterance, got none")
    frames = np.array([u.frames for u in utterances])
    speech = np.array([u.speech_frames for u in utterances])
    snr_db = np.array([u.snr_db for u in utterances])
    kept = np.array([u.kept for u in utterances])

    counts = [
        np.sum(block, axis=0) for block in zip(*(u.open_counts for u in utterances), strict=True)
    ]
    rates = tuple(count / frames.sum() for count in counts)
    every_rate = np.concatenate(rates)
    flips = _weighted_mean([u.flips_per_frame for u in utterances], frames - 1)
    snrs = np.unique(snr_db[np.isfinite(snr_db)])
    return GateStatistics(
        kept=float(every_rate.mean()),
        kept_per_block=np.array([rate.mean() for rate in rates]),
        rates=rates,
        kept_speech=_weighted_mean([u.kept_speech for u in utterances], speech),
        kept_pauses=_weighted_mean([u.kept_pauses for u in utterances], frames - speech),
        snrs_db=snrs,
        kept_by_snr=np.array([kept[snr_db == snr].mean() for snr in snrs]),
        kept_slope_per_10_db=slope_per_10_db(snr_db, kept),
        always_on=float((every_rate > 0.95).mean()),
        always_off=float((every_rate < 0.05).mean()),
        varying=float(((every_rate >= 0.05) & (every_rate <= 0.95)).mean()),
        flips_per_frame=flips,
        flips_per_frame_shuffled=_weighted_mean(
            [u.flips_per_frame_shuffled for u in utterances], frames - 1
        ),
        switches_per_second=flips * frame_rate_hz,
        utterances=utterances,
    )


def slope_per_10_db(snr_db: ArrayLike, values: ArrayLike) -> float:
    """Least-squares slope of values over SNR, per 10 dB; public so that it can be bootstrapped.

    Args:
        snr_db: (U,) dB; utterances whose SNR is not finite are left out.
        values: (U,).

    Returns:
        float; NaN where fewer than two different SNRs remain.
    """
    snr_db, values = np.asarray(snr_db, np.float64), np.asarray(values, np.float64)
    known = np.isfinite(snr_db)
    centred = snr_db[known] - _mean(snr_db[known])
    spread = np.square(centred).sum()
    return float(10 * (centred * values[known]).sum() / spread) if spread > 0 else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _weighted_mean(values: ArrayLike, weights: ArrayLike) -> float:
    """Mean over the entries of positive weight; NaN where there is none."""
    values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    counted = weights > 0
    if not counted.any():
        return float("nan")
    return float(np.average(values[counted], weights=weights[counted]))
