"""How alive a net's gates are, with intervals, as a table.

The intervals are percentile bootstraps over utterances: an utterance is drawn with all its frames.
The opponent is the same gates with each utterance's frames in random order: it keeps each
channel's rate and loses the relation to the signal, so that kept is equal in speech and in pauses
and the flips are those of coin tosses at that rate (`dynse.gating.statistics`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dynse.evaluation.statistics import Interval
from dynse.evaluation.tables import Table
from dynse.gating.statistics import GateStatistics

_ROWS: Mapping[str, tuple[str, int]] = {
    "kept": ("kept", 3),
    "varying": ("channels that vary (open in 5 to 95 % of frames)", 3),
    "always_on": ("channels always on", 3),
    "always_off": ("channels always off", 3),
    "flips_per_frame": ("flips per frame", 4),
    "flips_per_frame_shuffled": ("flips per frame, shuffled in time", 4),
    "kept_speech": ("kept in speech", 3),
    "kept_pauses": ("kept in pauses", 3),
    "speech_minus_pauses": ("speech minus pauses (shuffled: 0)", 4),
    "kept_slope_per_10_db": ("kept, change per 10 dB of SNR", 4),
}


def gate_intervals(
    statistics: GateStatistics, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Each figure of a net's gates with its bootstrap interval over utterances."""
    utterances = statistics.utterances
    count = len(utterances)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    # The first row, every utterance once, is the figure itself.
    weights = np.concatenate([np.ones((1, count)), draws])

    def gather(name: str) -> np.ndarray:
        return np.array([getattr(utterance, name) for utterance in utterances], np.float64)

    frames, speech = gather("frames"), gather("speech_frames")
    rates = (weights @ np.stack([np.concatenate(u.open_counts) for u in utterances])) / (
        weights @ frames
    )[:, None]

    def weighted(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        filled = np.where(sizes > 0, values, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (weights @ (filled * sizes)) / (weights @ sizes)

    snr = gather("snr_db")
    in_speech = weighted(gather("kept_speech"), speech)
    in_pauses = weighted(gather("kept_pauses"), frames - speech)
    samples = {
        "kept": rates.mean(1),
        "varying": ((rates >= 0.05) & (rates <= 0.95)).mean(1),
        "always_on": (rates > 0.95).mean(1),
        "always_off": (rates < 0.05).mean(1),
        "flips_per_frame": weighted(gather("flips_per_frame"), frames - 1),
        "flips_per_frame_shuffled": weighted(gather("flips_per_frame_shuffled"), frames - 1),
        "kept_speech": in_speech,
        "kept_pauses": in_pauses,
        "speech_minus_pauses": in_speech - in_pauses,
        "kept_slope_per_10_db": _slopes(weights, snr, gather("kept")),
    }

    def interval(values: np.ndarray) -> Interval:
        low, high = np.nanquantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
        return Interval(float(values[0]), float(low), float(high), count, 0)

    return {name: interval(values) for name, values in samples.items()}


def gate_table(
    nets: Mapping[str, Mapping[str, Interval]], *, title: str = "How alive the gates are"
) -> Table:
    """One row a figure, one column a net."""

    rows = tuple(
        (label, *(figures[name].text(digits) for figures in nets.values()))
        for name, (label, digits) in _ROWS.items()
    )
    notes = ("95 % bootstrap intervals over utterances.",)
    return Table(title, ("", *nets), rows, notes)


def _slopes(weights: np.ndarray, snr_db: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Weighted least-squares slope of kept over SNR, per 10 dB, one for each row of weights."""
    total = weights.sum(1)
    mean = (weights @ snr_db) / total
    centred = snr_db[None] - mean[:, None]
    spread = (weights * centred**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 10 * (weights * centred * kept[None]).sum(1) / spread
