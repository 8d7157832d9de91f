"""Synthetic noises made of events: babble, typing, alarms, machines, clatter, music, calls.

Each function draws one recording's parameters and returns (n,) samples at 16 kHz without a defined
level. All are non-stationary by `synthetic_noise.nonstationarity_db`. Struck things are decaying
modes, calls and alarms are tones with gliding fundamentals, music is notes of a scale on a beat,
and textures are bands of noise and tones with envelopes of their own, like nothing in particular.
"""

from __future__ import annotations

import numpy as np
from scipy import signal

from dynse.data.synthetic_parts import (
    band_pass,
    harmonic_tone,
    impact,
    low_pass,
    place_events,
    poisson_times,
    random_colour,
    rms,
    slow_curve,
    spectrum_noise,
)
from dynse.data.synthetic_vocal_tract import SAMPLE_RATE


def babble(rng: np.random.Generator, n: int, voices: list[np.ndarray]) -> np.ndarray:
    """Many people at once: every utterance two to four times, shifted, at other speeds.

    Args:
        rng: source of all choices.
        n: samples.
        voices: utterances of different voices.
    """
    out = np.zeros(n)
    copies = int(rng.integers(2, 5))
    for voice in voices:
        for copy in range(copies):
            # Played faster or slower by up to an eighth: another pitch, another tract.
            down = int(rng.integers(14, 19)) if copy else 16
            part = signal.resample_poly(voice, 16, down) if down != 16 else voice
            part = np.resize(np.roll(part, int(rng.integers(len(part)))), n)
            out += part / rms(part) * 10.0 ** (rng.normal(0.0, 3.0) / 20.0)
    room = spectrum_noise(rng, n, random_colour(rng, (-6.0, -2.0), 2.0))
    return out / rms(out) + 10.0 ** (-rng.uniform(14.0, 40.0) / 20.0) * room


def keyboard(rng: np.random.Generator, n: int) -> np.ndarray:
    """Typing and clicks: runs of keystrokes, each press and release, a table that resounds."""
    rate = rng.uniform(4.0, 10.0)
    gaps = np.maximum(0.06, rng.gamma(3.0, 1.0 / (3.0 * rate), int(2 * rate * n / SAMPLE_RATE) + 4))
    # Now and then the typist thinks.
    gaps += (rng.uniform(size=len(gaps)) < 0.12) * rng.uniform(0.3, 1.5, len(gaps))
    times = (np.cumsum(gaps) * SAMPLE_RATE).astype(np.int64)
    times = times[times < n]
    modes = rng.uniform(400.0, 6000.0, 8)
    decay = rng.uniform(0.004, 0.012)
    keys = [impact(rng, modes * rng.uniform(0.9, 1.1, 8), decay, 1.5) for _ in range(6)]
    starts, events = [], []
    for time in times:
        size = 10.0 ** (rng.normal(0.0, 4.0) / 20.0)
        release = time + int(rng.uniform(0.05, 0.12) * SAMPLE_RATE)
        starts.append(time)
        events.append(size * keys[rng.integers(6)])
        if release < n:
            starts.append(release)
            events.append(0.4 * size * keys[rng.integers(6)])
    strokes = place_events(n, np.array(starts, np.int64), events)
    table = band_pass(strokes, rng.uniform(120.0, 350.0), 0.8)
    room = spectrum_noise(rng, n, random_colour(rng, (-6.0, -2.0), 2.0))
    out = strokes + rng.uniform(0.0, 1.5) * table
    return out / rms(out) + 10.0 ** (-rng.uniform(18.0, 40.0) / 20.0) * room


def alarm(rng: np.random.Generator, n: int) -> np.ndarray:
    """Beeps, two-tone horns, sirens and bells of telephones."""
    kind = rng.choice(("beep", "two-tone", "siren", "bell"))
    time = np.arange(n) / SAMPLE_RATE
    period = rng.uniform(0.3, 1.4)
    part = (time / period + rng.uniform()) % 1.0
    base = np.exp(rng.uniform(np.log(450.0), np.log(3000.0)))
    gate = np.ones(n)
    f0 = np.full(n, base)
    if kind == "beep":
        gate = (part < rng.uniform(0.25, 0.6)).astype(float)
        if rng.uniform() < 0.5:
            gate *= (time / period) % rng.integers(3, 6) < 2.0
    elif kind == "two-tone":
        f0 = np.where(part < 0.5, base, base * rng.uniform(1.15, 1.5))
    elif kind == "siren":
        sweep = 0.5 - 0.5 * np.cos(2.0 * np.pi * part) if rng.uniform() < 0.6 else part
        f0 = 0.5 * base * rng.uniform(1.5, 2.5) ** (sweep * 1.5)
        if rng.uniform() < 0.5:
            gate = 0.15 + (np.sin(2.0 * np.pi * rng.uniform(4.0, 9.0) * time) > 0)
    else:
        ringing = (time % (3.0 * period)) < 2.0 * period
        strike = (time * rng.uniform(12.0, 25.0)) % 1.0
        gate = ringing * np.exp(-3.0 * strike)
    count = int(rng.integers(1, 14))
    harmonics_db = -rng.uniform(1.0, 9.0) * np.arange(count) + rng.normal(0.0, 3.0, count)
    harmonics_db[0] = 0.0
    tone = harmonic_tone(rng, low_pass(f0 - f0[0], 60.0) + f0[0], harmonics_db)
    out = tone * low_pass(gate.astype(float), 50.0)
    # From a hall: some of it comes again a little later, several times.
    for _ in range(int(rng.integers(0, 4))):
        delay = int(rng.uniform(0.01, 0.12) * SAMPLE_RATE)
        out[delay:] += rng.uniform(0.1, 0.5) * out[:-delay]
    room = spectrum_noise(rng, n, random_colour(rng, (-6.0, -1.0), 3.0))
    return out / rms(out) + 10.0 ** (-rng.uniform(15.0, 35.0) / 20.0) * room


def machinery(rng: np.random.Generator, n: int) -> np.ndarray:
    """Presses and conveyors: impacts in a rhythm, bursts of air, a motor behind."""
    period = rng.uniform(0.15, 0.9)
    count = int(n / SAMPLE_RATE / period) + 1
    stations = int(rng.integers(1, 4))
    out = np.zeros(n)
    for _ in range(stations):
        modes = np.exp(rng.uniform(np.log(120.0), np.log(5000.0), 10))
        strike = impact(rng, modes, rng.uniform(0.015, 0.06), rng.uniform(0.3, 2.0))
        times = (np.arange(count) + rng.uniform()) * period * SAMPLE_RATE
        times = (times * (1.0 + rng.normal(0.0, 0.001)) + rng.normal(0.0, 60.0, count)).clip(0)
        times = times[times < n].astype(np.int64)
        sizes = 10.0 ** (rng.normal(0.0, 1.5, len(times)) / 20.0)
        blow = place_events(n, times, [size * strike for size in sizes])
        out += blow / rms(blow) * 10.0 ** (rng.uniform(-6.0, 0.0) / 20.0)
    if rng.uniform() < 0.6:
        part = (np.arange(n) / (SAMPLE_RATE * period) + rng.uniform()) % 1.0
        air = spectrum_noise(rng, n, random_colour(rng, (0.0, 3.0), 2.0))
        out += rng.uniform(0.3, 1.2) * air * np.exp(-part / rng.uniform(0.08, 0.3))
    rotation = np.full(n, rng.choice((24.0, 25.0, 29.0, 48.0)) * rng.uniform(0.97, 1.0))
    harmonics_db = -4.0 * np.log2(np.arange(1, 50)) + rng.normal(0.0, 5.0, 49)
    motor = harmonic_tone(rng, rotation, harmonics_db, jitter=0.003)
    motor += rng.uniform(0.3, 1.0) * spectrum_noise(rng, n, random_colour(rng, (-6.0, -2.0), 3.0))
    return out + 10.0 ** (-rng.uniform(8.0, 20.0) / 20.0) * motor


def clatter(rng: np.random.Generator, n: int) -> np.ndarray:
    """Dishes, doors, steps, clapping, a fire: struck and dropped things at irregular times."""
    bright = rng.uniform()
    rate = np.exp(rng.uniform(np.log(1.0), np.log(8.0)))
    things = []
    for _ in range(6):
        low = 80.0 * 20.0**bright
        modes = low * np.exp(rng.uniform(0.0, np.log(min(30.0, 7500.0 / low)), 12))
        decay = np.exp(rng.uniform(np.log(0.006), np.log(0.08)))
        thing = impact(rng, modes, decay, rng.uniform(0.1, 3.0))
        things.append(thing / np.max(np.abs(thing)))
    times = poisson_times(rng, n, rate)
    # Half the events bounce.
    bounced = times + (rng.uniform(0.04, 0.15, len(times)) * SAMPLE_RATE).astype(np.int64)
    bounced = bounced[(rng.uniform(size=len(times)) < 0.5) & (bounced < n)]
    times = np.concatenate([times, bounced])
    events = [
        10.0 ** (rng.normal(0.0, 6.0) / 20.0) * things[rng.integers(len(things))] for _ in times
    ]
    out = place_events(n, times, events)
    room = spectrum_noise(rng, n, random_colour(rng, (-6.0, -1.0), 3.0))
    return out / rms(out) + 10.0 ** (-rng.uniform(15.0, 40.0) / 20.0) * room


def music(rng: np.random.Generator, n: int) -> np.ndarray:
    """Chords, a melody and a drum on one beat, in one scale."""
    beat = 60.0 / rng.uniform(70.0, 150.0)
    root = rng.uniform(80.0, 160.0)
    scale = np.array(((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))[int(rng.integers(2))])
    out = np.zeros(n)
    for length, octave, voices, level_db in ((4, 1, 3, -4.0), (0.5, 2, 1, 0.0), (1, 0, 1, -3.0)):
        decay = beat * length * rng.uniform(0.4, 1.5)
        slope = rng.uniform(4.0, 10.0)
        samples = int(beat * length * SAMPLE_RATE)
        step = (n + samples - 1) // samples
        envelope = np.exp(-np.arange(n) % samples / (decay * SAMPLE_RATE))
        envelope *= np.minimum(1.0, np.arange(n) % samples / (0.01 * SAMPLE_RATE))
        for _ in range(voices):
            notes = scale[rng.integers(0, 7, step)] + 12.0 * octave
            sounding = rng.uniform(size=step) < 0.85
            f0 = np.repeat(root * 2.0 ** (notes / 12.0), samples)[:n]
            harmonics_db = -slope * np.log2(np.arange(1, 40)) + rng.normal(0.0, 4.0, 39)
            tone = harmonic_tone(rng, f0, harmonics_db) * np.repeat(sounding, samples)[:n]
            out += 10.0 ** (level_db / 20.0) * tone * envelope
    if rng.uniform() < 0.6:
        part = np.arange(n) / SAMPLE_RATE % beat
        drum = spectrum_noise(rng, n, random_colour(rng, (-3.0, 2.0), 2.0)) * np.exp(-part / 0.04)
        out += rng.uniform(0.3, 1.5) * drum
    return out + 0.003 * rms(out) * rng.standard_normal(n)


def calls(rng: np.random.Generator, n: int) -> np.ndarray:
    """Animals and children: tones that glide up and down, barks, chirps, cries, in bouts."""
    base = np.exp(rng.uniform(np.log(250.0), np.log(3500.0)))
    length = np.exp(rng.uniform(np.log(0.05), np.log(0.8)))
    glide = rng.uniform(0.05, 0.5)
    harmonics = int(rng.integers(1, 20))
    slope = rng.uniform(1.0, 8.0)
    rough = rng.uniform(0.0, 0.6) ** 2
    events = []
    for _ in range(5):
        m = int(length * rng.uniform(0.6, 1.5) * SAMPLE_RATE) + 64
        arc = np.linspace(0.0, 1.0, m)
        curve = rng.normal() * (arc - 0.5) + rng.normal() * np.sin(np.pi * arc)
        f0 = np.clip(base * np.exp(glide * curve), 60.0, 6000.0)
        levels = -slope * np.log2(np.arange(1, harmonics + 1)) + rng.normal(0, 4, harmonics)
        call = harmonic_tone(rng, f0, levels, jitter=0.01 + 0.05 * rough)
        call += rough * _near(rng, m, base)
        events.append(call * np.sin(np.pi * arc) ** 0.7)
    times = poisson_times(rng, n, 0.5 / length)
    chosen = [
        10.0 ** (rng.normal(0.0, 4.0) / 20.0) * events[rng.integers(len(events))] for _ in times
    ]
    out = place_events(n, times, chosen)
    room = spectrum_noise(rng, n, random_colour(rng, (-6.0, 0.0), 3.0))
    return out / rms(out) + 10.0 ** (-rng.uniform(12.0, 35.0) / 20.0) * room


def texture(rng: np.random.Generator, n: int) -> np.ndarray:
    """Bands of noise, each with an envelope of its own speed, depth and shape."""
    out = 0.05 * spectrum_noise(rng, n, random_colour(rng, (-4.0, 0.0), 3.0))
    for _ in range(int(rng.integers(3, 7))):
        centre = np.exp(rng.uniform(np.log(100.0), np.log(6500.0)))
        carrier = _near(rng, n, centre, rng.uniform(0.3, 2.0))
        rate = np.exp(rng.uniform(np.log(0.8), np.log(15.0)))
        curve = slow_curve(rng, n, rate)
        if rng.uniform() < 0.4:
            envelope = low_pass((curve > rng.uniform(-0.3, 0.8)).astype(float), 30.0)
        else:
            envelope = 10.0 ** (rng.uniform(5.0, 11.0) * curve / 20.0)
        layer = carrier * envelope
        out += layer / rms(layer) * 10.0 ** (rng.normal(0.0, 4.0) / 20.0)
    return out


def _near(rng: np.random.Generator, n: int, centre_hz: float, octaves: float = 1.0) -> np.ndarray:
    """Noise (n,) of RMS one around a frequency."""
    noise = band_pass(rng.standard_normal(n), min(centre_hz, 6000.0), octaves)
    return noise / rms(noise)
