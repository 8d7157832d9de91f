"""What is said in the synthetic corpus: sounds, their acoustic targets, and nonsense phrases.

A phoneme is one or several `Sound`s: targets of a formant synthesiser (Klatt, "Software for a
cascade/parallel formant synthesizer", 1980) that hold for a time. Phrases are words of one to
three syllables, syllables are onset, nucleus and coda, drawn with weights near those of English
and German, so that the shares of vowels, fricatives, plosives and nasals, and the syllable rate of
4 to 6 Hz, are those of speech. No text and no recording enters.

Coarticulation is prepared here (a consonant takes over a share of the next vowel's formants: the
locus equations of Lindblom, 1963) and completed by the smoothing of the tracks in
`synthetic_speech`. Formants are those of a tract of 17.5 cm; levels are in dB relative to the
voicing of a stressed vowel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dynse.data.synthetic_voices import Voice

SILENT_DB = -120.0
NEUTRAL_HZ = (500.0, 1500.0, 2500.0)

# Spectra of frication and of bursts, (Hz, dB): front cavities of the places of articulation.
FRICATION = {
    "s": ((200, -50), (1000, -40), (2500, -25), (3800, -8), (5000, 0), (6500, -2), (8000, -6)),
    "sh": ((200, -45), (1000, -35), (1800, -14), (2500, 0), (4000, -2), (5500, -8), (8000, -16)),
    "f": ((200, -22), (1000, -14), (2000, -8), (4000, -5), (6500, -1), (8000, 0)),
    "th": ((200, -26), (1000, -20), (3000, -12), (5000, -3), (6500, 0), (8000, -1)),
    "x": ((200, -30), (700, -14), (1300, 0), (1900, -3), (3000, -10), (5000, -18), (8000, -26)),
    "p": ((200, -2), (600, 0), (1500, -5), (3000, -12), (8000, -24)),
    "t": ((200, -26), (1500, -18), (3000, -5), (4200, 0), (6000, -4), (8000, -10)),
    "k": ((200, -28), (1000, -12), (1700, 0), (2300, -3), (3500, -12), (5000, -14), (8000, -26)),
}
FRICATION_NAMES = tuple(FRICATION)


@dataclass(frozen=True)
class Sound:
    """Targets that hold for a time.

    Attributes:
        formants_hz: F1 to F3 in a tract of 17.5 cm.
        duration_ms: length before rate, stress and chance.
        voicing_db: level of the glottal pulses.
        aspiration_db: level of the noise at the glottis.
        frication_db: level of the noise at the constriction.
        place: which of FRICATION the constriction has.
        follows: share of the next vowel's F2 and F3 in this sound's.
        zero_hz: antiformant of a nasal, 0 for none.
        burst_db: level of a burst at the start.
        loudness_db: offset by stress, filled in when a phrase is made.
        accent: size of the accent of the melody on this sound, 0 for none.
    """

    formants_hz: tuple[float, float, float]
    duration_ms: float
    voicing_db: float = SILENT_DB
    aspiration_db: float = SILENT_DB
    frication_db: float = SILENT_DB
    place: str = "th"
    follows: float = 0.0
    zero_hz: float = 0.0
    burst_db: float = SILENT_DB
    loudness_db: float = 0.0
    accent: float = 0.0


def _vowel(f1: float, f2: float, f3: float, duration_ms: float) -> tuple[Sound, ...]:
    return (Sound((f1, f2, f3), duration_ms, voicing_db=0.0),)


def _glide(start: tuple[Sound, ...], end: tuple[Sound, ...]) -> tuple[Sound, ...]:
    """A diphthong: more than half on the first target, then the second."""
    return (replace(start[0], duration_ms=85.0), replace(end[0], duration_ms=65.0))


def _plosive(f2: float, f3: float, place: str, voiced: bool, burst_db: float) -> tuple[Sound, ...]:
    """Closure (with a voice bar if voiced), burst, and the time until voicing sets in."""
    target = (220.0, f2, f3)
    release = (350.0, f2, f3)
    if voiced:
        return (
            Sound(target, 55.0, voicing_db=-15.0, place=place, follows=0.4),
            Sound(release, 12.0, voicing_db=-10.0, place=place, follows=0.5, burst_db=burst_db),
        )
    return (
        Sound(target, 65.0, place=place, follows=0.4),
        Sound(release, 38.0, aspiration_db=-20.0, place=place, follows=0.6, burst_db=burst_db),
    )


def _fricative(f2: float, f3: float, place: str, voiced: bool, level_db: float) -> tuple[Sound]:
    return (
        Sound(
            (300.0, f2, f3),
            65.0 if voiced else 95.0,
            voicing_db=-12.0 if voiced else SILENT_DB,
            frication_db=level_db - (5.0 if voiced else 0.0),
            place=place,
            follows=0.4,
        ),
    )


def _sonorant(
    f1: float, f2: float, f3: float, level_db: float, follows: float, zero_hz: float = 0.0
) -> tuple[Sound]:
    sound = Sound((f1, f2, f3), 62.0, voicing_db=level_db, follows=follows, zero_hz=zero_hz)
    return (sound,)


VOWELS = {
    "i": _vowel(280, 2250, 2950, 105),
    "I": _vowel(400, 1950, 2550, 75),
    "e": _vowel(400, 2100, 2700, 110),
    "E": _vowel(550, 1800, 2500, 85),
    "ae": _vowel(680, 1700, 2400, 115),
    "a": _vowel(760, 1280, 2500, 115),
    "A": _vowel(720, 1090, 2450, 125),
    "O": _vowel(570, 850, 2410, 110),
    "o": _vowel(430, 800, 2400, 115),
    "U": _vowel(440, 1020, 2240, 75),
    "u": _vowel(310, 870, 2250, 105),
    "V": _vowel(620, 1200, 2400, 80),
    "schwa": _vowel(500, 1450, 2450, 55),
    "er": _vowel(490, 1350, 1700, 110),
    "y": _vowel(280, 1850, 2200, 100),
    "oe": _vowel(420, 1550, 2250, 95),
}
_DIPHTHONGS = {
    "ai": _glide(VOWELS["a"], VOWELS["I"]),
    "au": _glide(VOWELS["a"], VOWELS["U"]),
    "oi": _glide(VOWELS["O"], VOWELS["I"]),
    "ei": _glide(VOWELS["E"], VOWELS["i"]),
    "ou": _glide(VOWELS["o"], VOWELS["u"]),
}
CONSONANTS = {
    "p": _plosive(900, 2200, "p", False, -15.0),
    "t": _plosive(1750, 2650, "t", False, -7.0),
    "k": _plosive(1900, 2300, "k", False, -9.0),
    "b": _plosive(900, 2200, "p", True, -18.0),
    "d": _plosive(1700, 2650, "t", True, -14.0),
    "g": _plosive(1900, 2300, "k", True, -14.0),
    "f": _fricative(1100, 2300, "f", False, -21.0),
    "th": _fricative(1400, 2500, "th", False, -23.0),
    "s": _fricative(1650, 2600, "s", False, -9.0),
    "sh": _fricative(1800, 2500, "sh", False, -8.0),
    "x": _fricative(1300, 2300, "x", False, -16.0),
    "v": _fricative(1100, 2300, "f", True, -20.0),
    "dh": _fricative(1400, 2500, "th", True, -22.0),
    "z": _fricative(1650, 2600, "s", True, -11.0),
    "zh": _fricative(1800, 2500, "sh", True, -11.0),
    "h": (Sound((520.0, 1500.0, 2500.0), 60.0, aspiration_db=-15.0, follows=0.9),),
    "m": _sonorant(270, 1000, 2200, -8.0, 0.3, 900.0),
    "n": _sonorant(270, 1500, 2500, -8.0, 0.3, 1500.0),
    "ng": _sonorant(280, 1950, 2500, -9.0, 0.3, 2600.0),
    "l": _sonorant(360, 1200, 2700, -6.0, 0.3),
    "r": _sonorant(340, 1200, 1600, -7.0, 0.2),
    "j": _sonorant(270, 2200, 2950, -6.0, 0.1),
    "w": _sonorant(290, 700, 2200, -7.0, 0.1),
}


class _Choice:
    """A weighted choice of entries; each is a tuple of phoneme names separated by spaces."""

    def __init__(self, weights: dict[str, float]):
        self.entries = tuple(tuple(entry.split()) for entry in weights)
        self.cumulated = np.cumsum(np.array(list(weights.values()), float))

    def draw(self, rng: np.random.Generator) -> tuple[str, ...]:
        place = rng.uniform(0.0, self.cumulated[-1])
        return self.entries[int(np.searchsorted(self.cumulated, place, side="right"))]


_ONSETS = _Choice(
    {"": 12, "p": 3, "t": 7, "k": 5, "b": 5, "d": 7, "g": 4, "f": 4, "th": 1, "s": 6, "sh": 3}
    | {"v": 4, "dh": 6, "z": 3, "zh": 0.5, "h": 4, "m": 6, "n": 6, "l": 5, "r": 5, "j": 3, "w": 5}
    | {"s t": 2, "s p": 1, "s k": 1, "t r": 1, "p r": 1, "p l": 1, "k l": 1, "f r": 1, "b r": 1}
    | {"g r": 1, "sh t": 1, "s l": 0.5, "k w": 0.5, "s t r": 0.5, "t s": 0.5}
)
_CODAS = _Choice(
    {"": 34, "n": 10, "t": 7, "s": 5, "r": 4, "l": 5, "d": 4, "m": 4, "ng": 3, "k": 3, "z": 4}
    | {"f": 2, "v": 1, "p": 1, "x": 2, "sh": 1, "th": 0.5, "g": 1}
    | {"n t": 2, "s t": 2, "n d": 2, "l t": 0.7, "k s": 1, "n s": 1, "r t": 1, "m p": 0.4, "x t": 1}
)
_STRESSED = _Choice(
    {"i": 4, "I": 4, "e": 2, "E": 4, "ae": 3, "a": 4, "A": 2, "O": 3, "o": 2, "U": 2, "u": 2}
    | {"V": 2, "er": 2, "y": 1, "oe": 1, "ai": 4, "au": 2, "oi": 0.6, "ei": 3, "ou": 2.5}
)
_UNSTRESSED = _Choice({"schwa": 9, "I": 5, "i": 2, "E": 1.5, "U": 1, "V": 1.5, "er": 2, "o": 1})


def pause(rng: np.random.Generator, shortest_s: float, longest_s: float) -> Sound:
    """Silence of a drawn length; the tract rests in its neutral shape."""
    return Sound(NEUTRAL_HZ, 1000.0 * rng.uniform(shortest_s, longest_s))


def draw_phrase(rng: np.random.Generator, voice: Voice) -> list[Sound]:
    """The sounds of one phrase: 3 to 8 nonsense words as this voice would time them.

    Args:
        rng: source of all choices.
        voice: gives the rate.

    Returns:
        Sounds in order, with duration, loudness and accent filled in.
    """
    sounds: list[Sound] = []
    words = int(rng.integers(3, 9))
    for word in range(words):
        if word and rng.uniform() < 0.12:
            sounds.append(pause(rng, 0.03, 0.16))
        syllables = int(rng.choice(3, p=(0.5, 0.35, 0.15))) + 1
        stressed = int(rng.integers(syllables))
        prominent = rng.uniform() < 0.65
        for syllable in range(syllables):
            last = word == words - 1 and syllable == syllables - 1
            is_stressed = syllable == stressed and (prominent or syllables > 1)
            accent = rng.uniform(1.0, 5.0) if is_stressed and prominent else 0.0
            sounds += _syllable(rng, voice, is_stressed, accent, last)
    return sounds


def _syllable(
    rng: np.random.Generator, voice: Voice, stressed: bool, accent: float, last: bool
) -> list[Sound]:
    nucleus_name = (_STRESSED if stressed else _UNSTRESSED).draw(rng)[0]
    nucleus = VOWELS.get(nucleus_name) or _DIPHTHONGS[nucleus_name]
    onset = [s for name in _ONSETS.draw(rng) for s in CONSONANTS[name]]
    coda = [s for name in _CODAS.draw(rng) for s in CONSONANTS[name]]
    loudness_db = rng.normal(0.0, 1.2) + (0.6 * accent / 3.0 if stressed else -2.5)
    vowel_length = (1.1 if stressed else 0.92) * (1.5 if last else 1.0)
    consonant_length = (1.05 if stressed else 0.88) * (1.15 if last else 1.0)
    # In a cluster each consonant is shorter.
    cluster = 0.8 if len(onset) > 2 else 1.0
    result = []
    for part, length in ((onset, consonant_length * cluster), (nucleus, vowel_length)):
        result += [(sound, length) for sound in part]
    result += [(sound, consonant_length) for sound in coda]
    vowel_at = len(onset)
    finished = []
    for i, (sound, length) in enumerate(result):
        f1, f2, f3 = sound.formants_hz
        if sound.follows:
            towards = nucleus[0].formants_hz if i < vowel_at else nucleus[-1].formants_hz
            f2 += sound.follows * (towards[1] - f2)
            f3 += sound.follows * (towards[2] - f3)
        chance = np.exp(rng.normal(0.0, 0.16))
        finished.append(
            replace(
                sound,
                formants_hz=(f1, f2, f3),
                duration_ms=sound.duration_ms * length * voice.rate * chance,
                loudness_db=loudness_db,
                accent=accent if i == vowel_at else 0.0,
            )
        )
    return finished
