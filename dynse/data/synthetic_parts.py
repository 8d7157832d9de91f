"""Building blocks of synthetic noises: coloured noise, slow curves, tones, events, distances.

Each function takes a generator first and a length in samples, and returns float32 or float64
samples at 16 kHz without a defined level, unless stated. What they have in common: the work is one
FFT or one table look-up over the whole recording, and Python loops only run over events.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, signal

from dynse.data.synthetic_vocal_tract import SAMPLE_RATE

_TABLE = 2048


def spectrum_noise(rng: np.random.Generator, n: int, points: list[tuple[float, float]]):
    """Gaussian noise (n,) of RMS one with a spectrum through points (Hz, dB).

    Between the points the level is linear in log frequency, beyond them constant.
    """
    size = fft.next_fast_len(n, real=True)
    bins = size // 2 + 1
    spectrum = rng.standard_normal(2 * bins, np.float32).view(np.complex64)
    hz, db = np.array(sorted(points), float).T
    grid = np.geomspace(10.0, SAMPLE_RATE / 2.0, 200)
    gain = 10.0 ** (np.interp(np.log(grid), np.log(hz), db) / 20.0)
    spectrum *= np.interp(np.linspace(0.0, SAMPLE_RATE / 2.0, bins), grid, gain).astype(np.float32)
    spectrum[0] = 0.0
    noise = fft.irfft(spectrum, n=size)[:n]
    return noise / np.float32(rms(noise))


def sloped_noise(rng: np.random.Generator, n: int, db_per_octave: float) -> np.ndarray:
    """Noise (n,) of RMS one whose spectrum has a constant slope above 30 Hz."""
    return spectrum_noise(rng, n, [(30.0, 0.0), (8000.0, db_per_octave * np.log2(8000.0 / 30.0))])


def random_colour(rng: np.random.Generator, slope: tuple[float, float], bumps_db: float):
    """Points for `spectrum_noise`: a drawn slope in dB per octave plus drawn deviations."""
    hz = np.geomspace(60.0, 8000.0, 9)
    line = rng.uniform(*slope) * np.log2(hz / 60.0)
    return list(zip(hz, line + rng.normal(0.0, bumps_db, len(hz)), strict=True))


def slow_curve(rng: np.random.Generator, n: int, rate_hz: float) -> np.ndarray:
    """Smooth random curve (n,) of mean 0 and standard deviation about 1, `rate_hz` knots a second.

    The knots are independent normal draws; between them the curve runs in half cosines.
    """
    place = np.arange(0, n, 16) * (rate_hz / SAMPLE_RATE) + rng.uniform()
    knots = rng.standard_normal(int(place[-1]) + 2)
    whole = place.astype(np.int64)
    part = 0.5 - 0.5 * np.cos(np.pi * (place - whole))
    coarse = knots[whole] * (1.0 - part) + knots[whole + 1] * part
    return np.interp(np.arange(n), np.arange(0, n, 16), coarse)


def harmonic_tone(
    rng: np.random.Generator, f0_hz: np.ndarray, harmonics_db: np.ndarray, jitter: float = 0.0
) -> np.ndarray:
    """A periodic tone (n,) of RMS one along a fundamental (n,), by table look-up.

    Args:
        rng: draws the phases.
        f0_hz: (n,) fundamental.
        harmonics_db: levels of harmonics 1, 2, ...; those that would alias are left out.
        jitter: relative slow wandering of the fundamental.
    """
    n = len(f0_hz)
    if jitter:
        f0_hz = f0_hz * (1.0 + jitter * slow_curve(rng, n, 12.0))
    count = int(min(len(harmonics_db), 0.48 * SAMPLE_RATE // np.max(f0_hz), _TABLE // 8))
    spectrum = np.zeros(_TABLE // 2 + 1, np.complex128)
    phases = rng.uniform(0.0, 2.0 * np.pi, max(1, count))
    level = 10.0 ** (np.asarray(harmonics_db, float)[: max(1, count)] / 20.0)
    spectrum[1 : 1 + len(level)] = level * np.exp(1j * phases)
    table = fft.irfft(spectrum)
    table /= rms(table)
    table = np.append(table, table[0])
    place = np.cumsum(f0_hz) * (_TABLE / SAMPLE_RATE)
    whole = place.astype(np.int64)
    part = place - whole
    whole %= _TABLE
    return table[whole] * (1.0 - part) + table[whole + 1] * part


def poisson_times(rng: np.random.Generator, n: int, rate_hz: float) -> np.ndarray:
    """Sorted event times in samples, independent of one another; at least one."""
    count = max(1, rng.poisson(rate_hz * n / SAMPLE_RATE))
    return np.sort(rng.integers(0, n, count))


def place_events(n: int, times: np.ndarray, events: list[np.ndarray]) -> np.ndarray:
    """Sum (n,) of events that start at `times`; what passes the end is cut."""
    out = np.zeros(n)
    for time, event in zip(times, events, strict=True):
        part = event[: n - int(time)]
        out[int(time) : int(time) + len(part)] += part
    return out


def impulses(rng: np.random.Generator, n: int, rate_hz: float, spread_db: float) -> np.ndarray:
    """Single samples (n,) at Poisson times, of random sign and log-normal size."""
    times = poisson_times(rng, n, rate_hz)
    sizes = 10.0 ** (rng.normal(0.0, spread_db, len(times)) / 20.0)
    return np.bincount(times, sizes * rng.choice((-1.0, 1.0), len(times)), minlength=n)


def impact(
    rng: np.random.Generator, modes_hz: np.ndarray, decay_s: float, noisiness: float
) -> np.ndarray:
    """A struck object: modes that decay (the higher the faster) and a click of noise."""
    n = int(6.0 * decay_s * SAMPLE_RATE)
    time = np.arange(n) / SAMPLE_RATE
    rates = (modes_hz / modes_hz.min()) ** 0.5 / decay_s
    rotation = np.exp((2j * np.pi * modes_hz - rates)[:, None] * time)
    sizes = rng.standard_normal(len(modes_hz)) + 1j * rng.standard_normal(len(modes_hz))
    ringing = np.einsum("m,mn->n", sizes, rotation).real
    click = rng.standard_normal(n) * np.exp(-time / (0.15 * decay_s + 0.001))
    return ringing / np.sqrt(len(modes_hz)) + noisiness * click


def pass_by(n: int, closest: int, speed: float, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """A source that passes on a straight line.

    Args:
        n: samples.
        closest: sample at which it is nearest.
        speed: m/s.
        distance: nearest distance in m.

    Returns:
        (n,) gain 1/r, one at the nearest point, and (n,) Doppler factor of its frequencies.
    """
    along = speed * (np.arange(n) - closest) / SAMPLE_RATE
    r = np.sqrt(along**2 + distance**2)
    return distance / r, 1.0 / (1.0 + speed * along / r / 343.0)


def low_pass(x: np.ndarray, corner_hz: float) -> np.ndarray:
    """x (n,) through a second-order Butterworth low-pass."""
    b, a = signal.butter(2, corner_hz / (SAMPLE_RATE / 2.0))
    return signal.lfilter(b, a, x)


def band_pass(x: np.ndarray, centre_hz: float, octaves: float) -> np.ndarray:
    """x (n,) through a second-order Butterworth band-pass."""
    edges = np.array([centre_hz * 2.0 ** (-octaves / 2.0), centre_hz * 2.0 ** (octaves / 2.0)])
    b, a = signal.butter(1, np.minimum(edges / (SAMPLE_RATE / 2.0), 0.99), "band")
    return signal.lfilter(b, a, x)


def rms(x: np.ndarray) -> float:
    """Root mean square, never zero."""
    return float(np.sqrt(np.mean(np.square(x), dtype=np.float64))) + 1e-12
