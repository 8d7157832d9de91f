"""Synthetic speech with exact ground truth: phrases, melody and loudness of a drawn voice.

`speak` draws nonsense phrases (`synthetic_phonemes`), turns them into tracks every 5 ms and lets
the source-filter model (`synthetic_vocal_tract`) sound them:

    f0(t) = voice.f0_hz * 2^((declination + accents + final fall or rise + drift)(t) / 12)
    log formant_k(t) = step targets smoothed by a Hann window of 70 ms (undershoot, transitions)
    amplitude(t) = step targets, and bursts with their own onsets, times loudness

Melody: declination over a phrase with a reset at the next, accents as bumps on stressed vowels
(Fujisaki, "Dynamic characteristics of voice fundamental frequency in speech and singing", 1983,
in spirit; here sums of Gaussians), slow drift, and in some voices creak at the end.

Ground truth comes from the tracks, not from the waveform: "f0_hz" is the fundamental where the
glottis pulses and 0 elsewhere; "voice" is true where any source sounds (voicing, aspiration,
frication or a burst), so that pauses and the silent closures of plosives are false.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import signal

from dynse.data.synthetic_parts import sloped_noise
from dynse.data.synthetic_phonemes import (
    FRICATION_NAMES,
    SILENT_DB,
    Sound,
    draw_phrase,
    pause,
)
from dynse.data.synthetic_vocal_tract import SAMPLE_RATE, TRACK_HOP, Articulation, render
from dynse.data.synthetic_voices import Voice

_FRAME_MS = 1000.0 * TRACK_HOP / SAMPLE_RATE
# Below this amplitude (-40 dB against a stressed vowel) a source counts as silent.
_SOUNDING = 0.01
_NASAL_POLE_HZ = 280.0


@dataclass(frozen=True)
class Utterance:
    """A recording and its ground truth.

    Attributes:
        samples: (80 T,) float32 in (-1, 1), at 16 kHz.
        f0_hz: (T,) float32 every 5 ms, 0 where unvoiced.
        voice: (T,) bool, speech active by construction.
    """

    samples: np.ndarray
    f0_hz: np.ndarray
    voice: np.ndarray


def speak(voice: Voice, rng: np.random.Generator, seconds: float) -> Utterance:
    """An utterance of phrases and pauses of at least `seconds`.

    Args:
        voice: who speaks.
        rng: source of all choices; equal states give equal bits.
        seconds: phrases are added until this length is passed; the last is never cut.

    Returns:
        The utterance; its level varies between recordings like that of real ones.

    Raises:
        ValueError: if `seconds` is not positive.
    """
    if not seconds > 0.0:
        raise ValueError(f"seconds must be positive, got {seconds}")
    sounds, phrase_starts = [pause(rng, 0.05, 0.35)], []
    elapsed_ms = sounds[0].duration_ms
    while elapsed_ms < 1000.0 * seconds:
        phrase = [*draw_phrase(rng, voice), _phrase_pause(rng)]
        phrase_starts.append(len(sounds))
        sounds += phrase
        elapsed_ms += sum(sound.duration_ms for sound in phrase)
    track = articulate(sounds, phrase_starts, voice, rng)
    samples = render(track, voice, rng)
    if rng.uniform() < 0.5:
        samples = _in_a_room(samples, rng)
    samples = _at_level(_with_floor(samples, rng), rng)
    sounding = track.voicing > _SOUNDING
    active = sounding | (track.aspiration > _SOUNDING) | (track.frication > _SOUNDING)
    for start, size in track.bursts:
        active[int(start) // TRACK_HOP] |= size > _SOUNDING
    return Utterance(samples, np.where(sounding, track.f0_hz, 0.0).astype(np.float32), active)


def _phrase_pause(rng: np.random.Generator) -> Sound:
    """Mostly a quarter of a second, sometimes a breath's length."""
    return pause(rng, 0.1, 0.3) if rng.uniform() < 0.65 else pause(rng, 0.3, 0.8)


def articulate(
    sounds: list[Sound], phrase_starts: list[int], voice: Voice, rng: np.random.Generator
) -> Articulation:
    """The tracks of a sequence of sounds.

    Args:
        sounds: in order, pauses among them; durations in ms, levels in dB against a stressed
            vowel. A sound takes its duration rounded to frames of 5 ms, at least one.
        phrase_starts: index in `sounds` at which each phrase begins, ascending; a phrase ends
            with a pause. What precedes the first has no melody.
        voice: who speaks.
        rng: draws melody, drift, creak and chance in formants and bursts.

    Returns:
        Tracks of T frames of 5 ms; onsets of bursts in samples at 16 kHz.
    """
    frames = np.array([max(1, round(sound.duration_ms / _FRAME_MS)) for sound in sounds])
    starts = np.concatenate([[0], np.cumsum(frames)])
    total = int(starts[-1])

    def held(values) -> np.ndarray:
        return np.repeat(np.array(values, float), frames, axis=0)

    loudness_db = held([s.loudness_db for s in sounds])
    irregularity = np.ones(total)
    # Accents lift the mean by about this much: the voice's f0_hz stays its mean.
    semitones = _drift(rng, total, 0.25) + rng.uniform(-1.0, 1.0) - 1.3 * voice.intonation
    for number, first in enumerate(phrase_starts):
        last = phrase_starts[number + 1] if number + 1 < len(phrase_starts) else len(sounds)
        begin, end = int(starts[first]), int(starts[last])
        # The pause after the phrase is its last sound.
        spoken_end = int(starts[last - 1])
        semitones[begin:end] += voice.intonation * _melody(
            rng, end - begin, spoken_end - begin, number == len(phrase_starts) - 1
        )
        loudness_db[begin:end] += np.linspace(1.5, -3.0, end - begin)
        if rng.uniform() < voice.creak:
            creaky = slice(max(begin, spoken_end - int(rng.integers(20, 50))), spoken_end)
            irregularity[creaky] = 4.0
            semitones[creaky] -= np.linspace(0.0, 5.0, creaky.stop - creaky.start)
    time = np.arange(total)
    for index, sound in enumerate(sounds):
        if sound.accent:
            centre = starts[index] + 0.5 * frames[index]
            near = slice(max(0, int(centre) - 70), int(centre) + 70)
            bump = np.exp(-0.5 * ((time[near] - centre) / rng.uniform(14.0, 24.0)) ** 2)
            semitones[near] += voice.intonation * sound.accent * bump
    semitones = _smooth(semitones, 13)
    loudness_db = _smooth(loudness_db, 17) + _drift(rng, total, 0.5)
    loudness = 10.0 ** (loudness_db / 20.0)

    voicing = _smooth(_amplitude(held([s.voicing_db for s in sounds])), 6) * loudness
    aspiration = _smooth(_amplitude(held([s.aspiration_db for s in sounds])), 6) * loudness
    aspiration += voicing * _amplitude(voice.breathiness_db)
    hiss = _amplitude(held([s.frication_db for s in sounds]) + voice.sibilance_db)
    burst_db = np.array([s.burst_db for s in sounds])
    at = np.flatnonzero(burst_db > SILENT_DB)
    bursts = np.stack(
        [
            starts[at] * TRACK_HOP,
            _amplitude(burst_db[at] + voice.sibilance_db + rng.normal(0.0, 2.0, len(at)))
            * loudness[starts[at]],
        ],
        axis=1,
    )
    zero_hz = held([s.zero_hz for s in sounds]) * voice.formant_scale
    nasal = zero_hz > 0.0
    pole_hz = np.full(total, _NASAL_POLE_HZ)
    return Articulation(
        f0_hz=np.clip(voice.f0_hz * 2.0 ** (semitones / 12.0), 55.0, 480.0),
        voicing=voicing,
        aspiration=aspiration,
        frication=_smooth(hiss, 9) * loudness,
        irregularity=irregularity,
        effort_db=np.clip(loudness_db, -9.0, 6.0),
        formants_hz=_formants(sounds, frames, voice, rng),
        places=_smooth(held([[s.place == name for name in FRICATION_NAMES] for s in sounds]), 5),
        zero_hz=_smooth(np.where(nasal, zero_hz, pole_hz), 5),
        nasal_hz=pole_hz,
        bursts=bursts,
    )


def _formants(
    sounds: list[Sound], frames: np.ndarray, voice: Voice, rng: np.random.Generator
) -> np.ndarray:
    """(T, 4) Hz: targets with personal offsets and chance, scaled by the tract and smoothed."""
    targets = np.array([(*s.formants_hz, 3500.0) for s in sounds])
    neutral = np.array([500.0, 1500.0, 2500.0, 3500.0])
    targets = neutral * (targets / neutral) ** voice.vowel_space
    targets[:, 3] += 0.25 * (targets[:, 2] - 2500.0)
    targets *= voice.formant_scale * np.array(voice.formant_offsets)
    targets *= np.exp(rng.normal(0.0, 0.03, targets.shape))
    # Neighbours must not cross: the tract's resonances repel each other.
    for k in (1, 2, 3):
        targets[:, k] = np.maximum(targets[:, k], targets[:, k - 1] + 200.0)
    targets = np.minimum(targets, (1300.0, 3400.0, 4400.0, 5600.0))
    return np.exp(_smooth(np.log(np.repeat(targets, frames, axis=0)), 15))


def _melody(rng: np.random.Generator, frames: int, spoken: int, final: bool) -> np.ndarray:
    """Semitones (frames,) of one phrase: declination, and a fall or rise at its end."""
    fall = rng.uniform(3.0, 6.0)
    contour = np.linspace(0.5 * fall, -0.5 * fall, frames)
    end = rng.uniform(-4.0, -1.0) if final or rng.uniform() < 0.6 else rng.uniform(1.0, 5.0)
    tail = min(spoken, int(rng.integers(35, 65)))
    contour[spoken - tail : spoken] += end * np.linspace(0.0, 1.0, tail) ** 2
    contour[spoken:] += end
    return contour


def _drift(rng: np.random.Generator, frames: int, deviation: float) -> np.ndarray:
    """(frames,) slow random wandering: a knot every 150 ms, smoothed."""
    knots = rng.normal(0.0, deviation, frames // 30 + 2)
    return _smooth(np.interp(np.arange(frames) / 30.0, np.arange(len(knots)), knots), 25)


def _amplitude(level_db: np.ndarray | float) -> np.ndarray:
    """Linear amplitude; SILENT_DB with any offset below 20 dB is exactly zero."""
    level = np.asarray(level_db, float)
    return np.where(level > SILENT_DB + 20.0, 10.0 ** (level / 20.0), 0.0)


def _smooth(track: np.ndarray, frames: int) -> np.ndarray:
    """A track (T,) or (T, K) convolved with a Hann window of `frames` + 2, ends held."""
    kernel = signal.windows.hann(frames + 2)[1:-1]
    kernel /= kernel.sum()
    before, after = (frames - 1) // 2, frames // 2
    shape = (slice(None),) + (None,) * (track.ndim - 1)
    padded = np.concatenate([track[:1]] * before + [track] + [track[-1:]] * after)
    return signal.oaconvolve(padded, kernel[shape], mode="valid", axes=0)


def _in_a_room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With a few early reflections and a weak tail, 14 to 30 dB below the direct sound."""
    length = int(rng.uniform(0.06, 0.2) * SAMPLE_RATE)
    decay = np.exp(-5.0 * np.arange(length) / length)
    response = rng.standard_normal(length) * decay
    response *= rng.uniform(size=length) < np.linspace(0.02, 0.5, length)
    response[: int(0.001 * SAMPLE_RATE)] = 0.0
    response *= 10.0 ** (-rng.uniform(14.0, 30.0) / 20.0) / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    wet = signal.oaconvolve(samples, response.astype(np.float32))
    return wet[: len(samples)].astype(np.float32)


def _with_floor(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add what every recording has: a room's and a microphone's noise, 35 to 55 dB down.

    Without it the pauses would be digital silence, which no real corpus holds, and a network
    would be taught to reach it.
    """
    level = np.sqrt(np.mean(np.square(samples), dtype=np.float64))
    floor = sloped_noise(rng, len(samples), rng.uniform(-5.0, -1.0))
    return samples + np.float32(level * 10.0 ** (rng.uniform(-55.0, -35.0) / 20.0)) * floor


def _at_level(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At -32 to -20 dB RMS, less where the peak would pass 0.9 of full scale."""
    rms = np.sqrt(np.mean(np.square(samples), dtype=np.float64)) + 1e-12
    gain = 10.0 ** (rng.uniform(-32.0, -20.0) / 20.0) / rms
    peak = float(np.max(np.abs(samples))) + 1e-12
    return samples * np.float32(min(gain, 0.9 / peak))
