"""Who speaks in the synthetic corpus: voices drawn from a seed, disjoint per split.

A voice is what stays the same between a person's utterances: the mean and the range of the
fundamental, the length of the vocal tract (formants scale with its inverse; 17.5 cm is the
reference of the vowel table), the glottal source (open quotient, spectral tilt, breathiness,
jitter, shimmer), the speaking rate, personal offsets of the formants, and the microphone.

Even voices have the low register (mean F0 85 to 150 Hz, tracts of 15.8 to 18.6 cm), odd ones the
high register (165 to 260 Hz, 13.4 to 15.8 cm). Within a split and a register the mean F0 is
stratified, so that a few voices already cover the range; everything else is drawn freely.

Typical values: Fant, "Acoustic Theory of Speech Production" (1960); Klatt & Klatt, "Analysis,
synthesis, and perception of voice quality variations among female and male talkers" (1990).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPLITS = ("train", "valid", "test")
VOICES_PER_SPLIT = {"train": 64, "valid": 8, "test": 12}
REFERENCE_TRACT_CM = 17.5
# Centres of the microphone's equaliser, and of the recording's small deviation from it.
EQUALISER_HZ = (60.0, 150.0, 400.0, 1000.0, 2500.0, 5000.0, 8000.0)
# Microphones for voices are bright: this brings the long-term spectrum to that of recordings.
_PRESENCE_DB = (-2.0, -1.0, 0.0, 2.5, 3.5, 5.5, 7.0)

_F0_RANGE_HZ = {"low": (85.0, 150.0), "high": (165.0, 260.0)}
_TRACT_CM = {"low": (15.8, 18.6), "high": (13.4, 15.8)}
# Keys of the random streams: no two kinds of draw share one.
_KIND_KEYS = {"voice": 1, "speech": 2, "noise": 3}


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker.

    Attributes:
        name: unique over all splits, e.g. "voice-07".
        register: "low" or "high".
        f0_hz: mean fundamental.
        intonation: factor on all excursions of the melody (about 1).
        tract_cm: length of the vocal tract.
        formant_offsets: factors on F1 to F4 beyond the tract's scaling.
        vowel_space: factor on the distance of vowels from the neutral tube.
        open_quotient: open share of a glottal cycle.
        tilt_hz: corner above which the source falls by 6 dB per octave more.
        breathiness_db: aspiration in vowels, relative to the voicing.
        jitter: standard deviation of a period's length, relative.
        shimmer: standard deviation of a pulse's amplitude, relative.
        rate: factor on durations (below 1 is fast).
        sibilance_db: offset on all frication.
        bandwidth: factor on the formants' bandwidths.
        creak: chance that a phrase ends in creaky voice.
        equaliser_db: the microphone, at EQUALISER_HZ.
    """

    name: str
    register: str
    f0_hz: float
    intonation: float
    tract_cm: float
    formant_offsets: tuple[float, float, float, float]
    vowel_space: float
    open_quotient: float
    tilt_hz: float
    breathiness_db: float
    jitter: float
    shimmer: float
    rate: float
    sibilance_db: float
    bandwidth: float
    creak: float
    equaliser_db: tuple[float, ...]

    @property
    def formant_scale(self) -> float:
        """Factor from the table's formants to this voice's."""
        return REFERENCE_TRACT_CM / self.tract_cm


def stream(seed: int, split: str, kind: str, *index: int) -> np.random.Generator:
    """The random stream of one thing in the corpus, independent of how many others there are.

    Args:
        seed: the corpus' seed, >= 0.
        split: "train", "valid" or "test".
        kind: "voice", "speech" or "noise".
        *index: what is drawn, e.g. number of the voice and of its recording.

    Returns:
        A generator; equal arguments give equal bits.

    Raises:
        ValueError: for an unknown split or kind, or a negative number.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    if kind not in _KIND_KEYS:
        raise ValueError(f"kind must be one of {tuple(_KIND_KEYS)}, got {kind!r}")
    if seed < 0 or any(i < 0 for i in index):
        raise ValueError(f"seed and index must not be negative, got {seed} and {index}")
    key = (seed, SPLITS.index(split), _KIND_KEYS[kind], *index)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def split_voice(seed: int, split: str, number: int) -> Voice:
    """Voice `number` of a split.

    Args:
        seed: the corpus' seed.
        split: "train", "valid" or "test".
        number: 0 to VOICES_PER_SPLIT[split] - 1; even ones are low, odd ones high.

    Returns:
        The voice; its name counts through the splits, so names are never shared.

    Raises:
        ValueError: for an unknown split or a number outside it.
    """
    rng = stream(seed, split, "voice", number)
    count = VOICES_PER_SPLIT[split]
    if number >= count:
        raise ValueError(f"split {split!r} has voices 0 to {count - 1}, got {number}")
    before = sum(VOICES_PER_SPLIT[s] for s in SPLITS[: SPLITS.index(split)])
    register = ("low", "high")[number % 2]
    # A stratum per voice, in an order that scatters neighbours (5 has no factor in common with
    # the 32, 4 or 6 voices of a register).
    strata = count // 2
    place = ((number // 2 * 5) % strata + rng.uniform(0.1, 0.9)) / strata
    return draw_voice(rng, f"voice-{before + number:02d}", register, place)


def draw_voice(rng: np.random.Generator, name: str, register: str, place: float) -> Voice:
    """A voice with its mean F0 at `place` (0 to 1) of the register's range, the rest drawn."""
    low, high = _F0_RANGE_HZ[register]
    shortest, longest = _TRACT_CM[register]
    f0_hz = low * (high / low) ** place
    # Tall people tend to speak lower: half of the tract's place follows F0.
    tract_place = 0.5 * (1.0 - place) + 0.5 * rng.uniform()
    female = register == "high"
    tilt_place = rng.uniform()
    return Voice(
        name=name,
        register=register,
        f0_hz=float(f0_hz),
        intonation=float(rng.uniform(0.6, 1.3)),
        tract_cm=float(shortest + (longest - shortest) * tract_place),
        formant_offsets=tuple(float(x) for x in np.exp(rng.normal(0.0, 0.035, 4))),
        vowel_space=float(rng.uniform(0.85, 1.12)),
        open_quotient=float(rng.uniform(0.55, 0.8) if female else rng.uniform(0.45, 0.7)),
        tilt_hz=float((2000.0 if female else 2300.0) * 3.5**tilt_place),
        # A steep source comes with more breath.
        breathiness_db=float(-38.0 + 12.0 * (1.0 - tilt_place) + rng.uniform(0.0, 8.0)),
        jitter=float(rng.uniform(0.002, 0.009)),
        shimmer=float(rng.uniform(0.02, 0.09)),
        rate=float(rng.uniform(0.58, 0.95)),
        sibilance_db=float(rng.uniform(-2.0, 5.0)),
        bandwidth=float(rng.uniform(0.8, 1.4)),
        creak=float(max(0.0, rng.uniform(-0.3, 0.5))),
        equaliser_db=tuple(float(x) for x in rng.normal(_PRESENCE_DB, 2.5)),
    )
