"""Synthetic noises: sixteen classes, each recording with parameters of its own.

`make_noise(name, ...)` draws one recording of a class of `NOISE_CLASSES`. The classes' generators
are in `synthetic_backgrounds` and `synthetic_foregrounds`. Each recording gets its own microphone
(a drawn equaliser) and level.

Non-stationarity, the measure:

    L(t, b) = 10 log10 of the power in octave band b (125 Hz to 8 kHz) of a 32-ms frame, floored
              50 dB below the recording's mean power per band
    nonstationarity = mean over b of the standard deviation over t of L(t, b), in dB

Stationary Gaussian noise has about 1.5 dB (the scatter of short frames alone); a class counts as
non-stationary where its recordings have a median above NONSTATIONARY_DB = 3.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import signal

from dynse.data import synthetic_backgrounds as backgrounds
from dynse.data import synthetic_foregrounds as foregrounds
from dynse.data.synthetic_parts import random_colour, rms
from dynse.data.synthetic_vocal_tract import SAMPLE_RATE

NONSTATIONARY_DB = 3.0

_GENERATORS = {
    "coloured": backgrounds.coloured,
    "hum": backgrounds.hum,
    "engine": backgrounds.engine,
    "wind": backgrounds.wind,
    "rain": backgrounds.rain,
    "keyboard": foregrounds.keyboard,
    "alarm": foregrounds.alarm,
    "street": backgrounds.street,
    "machinery": foregrounds.machinery,
    "fan": backgrounds.fan,
    "waves": backgrounds.waves,
    "clatter": foregrounds.clatter,
    "music": foregrounds.music,
    "calls": foregrounds.calls,
    "texture": foregrounds.texture,
}
NOISE_CLASSES = ("babble", *_GENERATORS)
EXPECTED_NONSTATIONARY = frozenset(
    {"babble", "wind", "keyboard", "alarm", "street", "machinery", "waves"}
    | {"clatter", "music", "calls", "texture"}
)


def make_noise(
    noise_class: str, rng: np.random.Generator, n: int, voices: list[np.ndarray] | None = None
) -> np.ndarray:
    """One recording of a class.

    Args:
        noise_class: one of NOISE_CLASSES.
        rng: source of all choices; equal states give equal bits.
        n: samples.
        voices: utterances (n_i,) for babble, at least two; other classes ignore them.

    Returns:
        (n,) float32 in (-1, 1) at 16 kHz.

    Raises:
        ValueError: for an unknown class, a length below 0.1 s, or babble without voices.
    """
    if noise_class not in NOISE_CLASSES:
        raise ValueError(f"noise_class must be one of {NOISE_CLASSES}, got {noise_class!r}")
    if n < SAMPLE_RATE // 10:
        raise ValueError(f"n must be at least {SAMPLE_RATE // 10} samples, got {n}")
    if noise_class == "babble":
        if voices is None or len(voices) < 2:
            got = "none" if voices is None else len(voices)
            raise ValueError(f"babble needs the utterances of at least two voices, got {got}")
        noise = foregrounds.babble(rng, n, voices)
    else:
        noise = _GENERATORS[noise_class](rng, n)
    return _recorded(rng, noise)


def nonstationarity_db(x: np.ndarray) -> float:
    """How much the octave bands' levels move, as defined at the top.

    Args:
        x: (n,) samples at 16 kHz, at least 0.1 s.

    Returns:
        Mean over bands of the standard deviation over time, in dB.
    """
    _, _, spectrum = signal.stft(x, nperseg=512, noverlap=256, boundary=None, padded=False)
    power = np.abs(spectrum) ** 2
    # 31.25 Hz per bin; bands of 4, 8, ..., 128 bins from 125 Hz upwards.
    edges = (4, 8, 16, 32, 64, 128, 257)
    bands = np.array([power[a:b].sum(axis=0) for a, b in pairwise(edges)])
    floor = 1e-5 * bands.mean() + 1e-20
    return float(np.mean(np.std(10.0 * np.log10(np.maximum(bands, floor)), axis=1)))


def _recorded(rng: np.random.Generator, noise: np.ndarray) -> np.ndarray:
    """Through a drawn microphone, without its mean, at a drawn level below full scale."""
    points = random_colour(rng, (-0.5, 0.5), 2.0)
    hz, db = np.array([(0.0, points[0][1] - 12.0), *points]).T
    response = signal.firwin2(
        129, np.append(hz[:-1], 8000.0) / 8000.0, 10.0 ** ((db - db.mean()) / 20.0)
    )
    out = signal.oaconvolve(noise.astype(np.float32), response.astype(np.float32), mode="same")
    out -= out.mean()
    gain = 10.0 ** (rng.uniform(-34.0, -18.0) / 20.0) / rms(out)
    peak = float(np.max(np.abs(out))) + 1e-12
    return (out * min(gain, 0.9 / peak)).astype(np.float32)
