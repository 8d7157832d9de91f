"""What a trained net has to beat: the noisy signal, and Wiener gains that know the noise.

The oracle knows the true noise of each mixture, but only its mean power per bin,
N(f) = mean_t |N(t, f)|^2: everything that a stationary noise model could know. With the noisy power
P(t, f) = |X(t, f)|^2 its forms are

    stationary         G(f)    = max(1 - N(f) / mean_t P(t, f), 0), the classical S / (S + N)
    subtraction        G(t, f) = max(1 - N(f) / P(t, f), 0)
    decision_directed  G(t, f) = xi / (1 + xi), xi = a G^2(t-1, f) P(t-1, f) / N(f)
                                 + (1 - a) max(P(t, f) / N(f) - 1, 0) (Ephraim and Malah, 1984)
    bounded            G(t, f) = min(stationary, decision_directed)

each on the noisy spectrum, its phase kept. `stationary` is the literal gain per bin; `bounded` is
the strongest of them. The frame-wise forms alone are weak because the power of noise scatters
around its mean by as much as the mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from dynse.audio.stft import STFT

Form = Literal["bounded", "stationary", "subtraction", "decision_directed"]
FORMS: tuple[Form, ...] = get_args(Form)
# Lengths are rounded up to whole seconds, so that few shapes are compiled.
_LENGTH_STEP = 16000
_TINY = 1e-12


def oracle_wiener(
    noisy: np.ndarray,
    noise: np.ndarray,
    *,
    form: Form = "bounded",
    smoothing: float = 0.9,
    stft: STFT | None = None,
) -> np.ndarray:
    """Enhances with a Wiener gain from the true noise's mean power spectrum.

    Args:
        noisy: (N,).
        noise: (N,), the noise that is in it.
        form: "bounded", "stationary", "subtraction" or "decision_directed".
        smoothing: a of the decision-directed form, 0 to 1.
        stft: 512 with hop 256 by default.

    Returns:
        (N,) float32.

    Raises:
        ValueError: where the shapes differ or are not (N,), or the form is unknown.
    """
    if noisy.ndim != 1 or noisy.shape != noise.shape:
        raise ValueError(f"expected noisy and noise (N,), got {noisy.shape} and {noise.shape}")
    stft = stft or STFT()
    spectrum = _spectrum(noisy, stft)
    noise_power = np.mean(np.abs(_spectrum(noise, stft)) ** 2, axis=0)
    gain = wiener_gain(np.abs(spectrum) ** 2, noise_power, form=form, smoothing=smoothing)
    return _signal(spectrum * gain, len(noisy), stft)


# What needs no training, by its name in tables: (noisy (N,), noise (N,)) -> estimate (N,).
BASELINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "noisy": lambda noisy, noise: noisy,
    "oracle Wiener": functools.partial(oracle_wiener, form="stationary"),
    "oracle Wiener, bounded": functools.partial(oracle_wiener, form="bounded"),
}


def wiener_gain(
    noisy_power: np.ndarray,
    noise_power: np.ndarray,
    *,
    form: Form = "bounded",
    smoothing: float = 0.9,
) -> np.ndarray:
    """The gain of a form, see the module: (T, F) and (F,) -> (T, F), each 0 to 1.

    Raises:
        ValueError: where the form is unknown.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}; got {form!r}")
    if form == "subtraction":
        return np.maximum(1 - noise_power / np.maximum(noisy_power, _TINY), 0)
    mean = np.maximum(noisy_power.mean(0), _TINY)
    stationary = np.broadcast_to(np.maximum(1 - noise_power / mean, 0), noisy_power.shape)
    if form == "stationary":
        return stationary
    directed = _decision_directed(noisy_power / np.maximum(noise_power, _TINY), smoothing)
    return directed if form == "decision_directed" else np.minimum(stationary, directed)


def _decision_directed(ratio: np.ndarray, smoothing: float) -> np.ndarray:
    """Gain (T, F) from the a-posteriori ratio P / N (T, F)."""
    excess = np.maximum(ratio - 1, 0)
    gain = np.empty_like(ratio)
    clean_ratio = excess[0]
    for t in range(len(ratio)):
        prior = smoothing * clean_ratio + (1 - smoothing) * excess[t]
        gain[t] = prior / (1 + prior)
        clean_ratio = gain[t] ** 2 * ratio[t]
    return gain


def _spectrum(signal: np.ndarray, stft: STFT) -> np.ndarray:
    padding = -len(signal) % _LENGTH_STEP
    padded = np.pad(np.asarray(signal, np.float32), (0, padding))
    return np.asarray(stft.forward(padded[None]))[0, : stft.frames(len(signal))]


def _signal(spectrum: np.ndarray, length: int, stft: STFT) -> np.ndarray:
    whole = length + -length % _LENGTH_STEP
    missing = stft.frames(whole) - len(spectrum)
    padded = np.pad(spectrum.astype(np.complex64), ((0, missing), (0, 0)))
    return np.asarray(stft.inverse(padded[None], whole))[0, :length]
