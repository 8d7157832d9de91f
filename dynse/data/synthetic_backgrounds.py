"""Synthetic noises that fill a scene: coloured, hum, fan, engine, rain, wind, waves, street.

Each function draws one recording's parameters and returns (n,) samples at 16 kHz without a defined
level. Motors are harmonic tones with the orders of their cylinders or blades, weather is noise
whose level and colour follow slow random curves, traffic passes by on straight lines with 1/r
and Doppler shift.
"""

from __future__ import annotations

import numpy as np

from dynse.data.synthetic_parts import (
    band_pass,
    harmonic_tone,
    impulses,
    low_pass,
    pass_by,
    random_colour,
    rms,
    sloped_noise,
    slow_curve,
    spectrum_noise,
)
from dynse.data.synthetic_vocal_tract import SAMPLE_RATE


def coloured(rng: np.random.Generator, n: int) -> np.ndarray:
    """Stationary Gaussian noise, from brown to slightly blue, with a drawn fine colour."""
    return spectrum_noise(rng, n, random_colour(rng, (-6.5, 1.5), rng.uniform(0.0, 5.0)))


def hum(rng: np.random.Generator, n: int) -> np.ndarray:
    """Mains hum: 50 or 60 Hz with harmonics (even ones stronger), a buzz, and hiss below."""
    mains = float(rng.choice((50.0, 60.0))) * (1.0 + 0.002 * slow_curve(rng, n, 0.5))
    count = int(rng.integers(8, 60))
    orders = np.arange(1, count + 1)
    harmonics_db = -rng.uniform(2.0, 7.0) * np.log2(orders) + rng.normal(0.0, 5.0, count)
    harmonics_db[1::2] += rng.uniform(0.0, 10.0)
    tone = harmonic_tone(rng, mains, harmonics_db)
    tone *= 1.0 + 0.05 * slow_curve(rng, n, 2.0)
    hiss = spectrum_noise(rng, n, random_colour(rng, (-4.0, 1.0), 3.0))
    return tone + 10.0 ** (-rng.uniform(6.0, 26.0) / 20.0) * hiss


def fan(rng: np.random.Generator, n: int) -> np.ndarray:
    """Fan, vacuum cleaner, air conditioner: broad noise, blade tones, a little flutter."""
    rotation = rng.uniform(12.0, 160.0)
    speed = rotation * (1.0 + 0.01 * slow_curve(rng, n, 0.7))
    blades = int(rng.integers(1, 9))
    count = int(rng.integers(5, 60))
    harmonics_db = -rng.uniform(1.0, 6.0) * np.log2(np.arange(1, count + 1))
    harmonics_db += rng.normal(0.0, 5.0, count)
    harmonics_db[blades - 1 :: blades] += rng.uniform(3.0, 12.0)
    tone = harmonic_tone(rng, speed, harmonics_db)
    air = spectrum_noise(rng, n, random_colour(rng, (-6.0, 0.0), 4.0))
    if rng.uniform() < 0.5:
        air = air + 10.0 ** (rng.uniform(-6.0, 6.0) / 20.0) * (
            _unit(band_pass(air, rng.uniform(300.0, 3000.0), rng.uniform(0.2, 1.0)))
        )
    flutter = np.cos(2.0 * np.pi * np.cumsum(speed) / SAMPLE_RATE)
    air = air * (1.0 + rng.uniform(0.0, 0.3) * flutter)
    return air + 10.0 ** (rng.uniform(-18.0, 3.0) / 20.0) * tone


def engine(rng: np.random.Generator, n: int) -> np.ndarray:
    """A combustion engine: half orders of a wandering speed, firing order strongest, rumble."""
    idle = rng.uniform(10.0, 60.0)
    swing = rng.choice((0.02, 0.06, 0.2))
    rotation = idle * np.exp(swing * slow_curve(rng, n, rng.uniform(0.2, 0.8)))
    firing = int(rng.choice((1, 2, 3, 4, 6)))
    count = int(rng.integers(30, 120))
    orders = np.arange(1, count + 1)
    harmonics_db = -rng.uniform(2.0, 6.0) * np.log2(orders) + rng.normal(0.0, 4.0, count)
    harmonics_db[firing - 1 :: firing] += rng.uniform(4.0, 12.0)
    tone = harmonic_tone(rng, 0.5 * rotation, harmonics_db, jitter=0.01)
    # Load follows speed; combustion noise pulsates with the firing.
    load = 10.0 ** (8.0 * (rotation / rotation.mean() - 1.0) / 20.0)
    firing_phase = np.cumsum(rotation * firing / 2.0) / SAMPLE_RATE
    pulses = 1.0 + rng.uniform(0.2, 0.9) * np.cos(2.0 * np.pi * firing_phase)
    rumble = spectrum_noise(rng, n, random_colour(rng, (-7.0, -3.0), 3.0))
    knock = spectrum_noise(rng, n, random_colour(rng, (-3.0, 1.0), 4.0)) * pulses**2
    mix = tone + rng.uniform(0.2, 1.0) * rumble
    return load * (mix + 10.0 ** (rng.uniform(-26.0, -6.0) / 20.0) * knock)


def rain(rng: np.random.Generator, n: int) -> np.ndarray:
    """Rain on ground or roof: a dense hiss, drops at random times, single heavy ones."""
    hiss = spectrum_noise(rng, n, random_colour(rng, (-2.0, 2.0), 3.0))
    hiss = hiss * np.exp(0.12 * slow_curve(rng, n, 0.4))
    surface = rng.uniform(500.0, 5000.0)
    drops = band_pass(impulses(rng, n, rng.uniform(100.0, 1200.0), 6.0), surface, 2.0)
    heavy = band_pass(impulses(rng, n, rng.uniform(1.0, 25.0), 5.0), 0.4 * surface, 0.5)
    mix = hiss + 10.0 ** (rng.uniform(-10.0, 8.0) / 20.0) * _unit(drops)
    return mix + 10.0 ** (rng.uniform(-20.0, -2.0) / 20.0) * _unit(heavy)


def wind(rng: np.random.Generator, n: int) -> np.ndarray:
    """Wind at a microphone and in trees: the stronger a gust, the louder and the brighter."""
    gust = 0.7 * slow_curve(rng, n, rng.uniform(0.3, 0.9)) + 0.4 * slow_curve(rng, n, 2.5)
    turbulence = 0.4 * slow_curve(rng, n, 12.0)
    depth = rng.uniform(5.0, 9.0)
    slope = rng.uniform(-9.0, -5.5)
    low = sloped_noise(rng, n, slope) * 10.0 ** (depth * (gust + turbulence) / 20.0)
    leaves = spectrum_noise(rng, n, random_colour(rng, (-1.5, 1.5), 3.0))
    leaves = leaves * 10.0 ** (1.4 * depth * gust / 20.0)
    out = low + 10.0 ** (rng.uniform(-40.0, -8.0) / 20.0) * leaves
    if rng.uniform() < 0.3:
        centre = rng.uniform(300.0, 900.0)
        howl = band_pass(rng.standard_normal(n), centre, 0.15) * 10.0 ** (2.0 * depth * gust / 20.0)
        out = out + 10.0 ** (rng.uniform(-20.0, -6.0) / 20.0) * _unit(howl)
    return out


def waves(rng: np.random.Generator, n: int) -> np.ndarray:
    """Waves on a beach: swell, a wave that breaks every few seconds, foam that dies away."""
    period = rng.uniform(2.0, 6.0) * SAMPLE_RATE
    phase = np.cumsum(np.exp(0.3 * slow_curve(rng, n, 0.3))) / period + rng.uniform()
    part = phase % 1.0
    heights = rng.uniform(0.5, 1.2, int(phase[-1]) + 1)[phase.astype(np.int64)]
    rise = rng.uniform(0.12, 0.35)
    breaking = np.where(part < rise, (part / rise) ** 2, np.exp(-(part - rise) / 0.22))
    # The last breath of a wave must not jump into the next one.
    breaking *= heights * np.minimum(1.0, (1.0 - part) / 0.05)
    swell = sloped_noise(rng, n, rng.uniform(-6.0, -4.0))
    foam = spectrum_noise(rng, n, random_colour(rng, (-2.0, 1.0), 2.0))
    floor = rng.uniform(0.03, 0.15)
    return swell * (0.3 + breaking) + rng.uniform(0.5, 2.0) * foam * (floor + breaking**1.5)


def street(rng: np.random.Generator, n: int) -> np.ndarray:
    """Traffic: rumble far away, passing vehicles with tyres and engine, now and then a horn."""
    out = 0.3 * spectrum_noise(rng, n, random_colour(rng, (-6.0, -3.0), 2.0))
    for _ in range(int(rng.integers(2, 5))):
        closest = int(rng.uniform(-0.1, 1.1) * n)
        gain, doppler = pass_by(n, closest, rng.uniform(7.0, 22.0), rng.uniform(2.5, 12.0))
        tyres = spectrum_noise(
            rng, n, [(60, -4), (rng.uniform(500, 1200), 0), (3000, -12), (8000, -28)]
        )
        rotation = rng.uniform(15.0, 55.0) * doppler
        harmonics_db = -4.0 * np.log2(np.arange(1, 60)) + rng.normal(0.0, 4.0, 59)
        motor = harmonic_tone(rng, rotation, harmonics_db, jitter=0.01)
        # What is near is brighter: the air and the ground swallow the treble.
        bright = low_pass(tyres, 500.0) + gain * (tyres - low_pass(tyres, 500.0))
        loud = 10.0 ** (rng.normal(4.0, 4.0) / 20.0)
        out += loud * gain * (bright + rng.uniform(0.2, 1.2) * motor)
    if rng.uniform() < 0.3:
        out += rng.uniform(0.3, 1.5) * _horn(rng, n)
    return out


def _horn(rng: np.random.Generator, n: int) -> np.ndarray:
    """Two tones a third apart for a fraction of a second."""
    f0 = rng.uniform(300.0, 500.0)
    gate = np.zeros(n)
    start = int(rng.uniform(0.0, 0.9) * n)
    gate[start : start + int(rng.uniform(0.2, 0.9) * SAMPLE_RATE)] = 1.0
    harmonics_db = -3.0 * np.log2(np.arange(1, 16)) + rng.normal(0.0, 3.0, 15)
    tones = [harmonic_tone(rng, np.full(n, f), harmonics_db) for f in (f0, 1.26 * f0)]
    return low_pass(gate, 25.0) * (tones[0] + tones[1])


def _unit(x: np.ndarray) -> np.ndarray:
    return x / rms(x)
