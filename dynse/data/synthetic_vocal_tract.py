"""From tracks of articulation to sound: the source-filter model of synthetic speech.

    speech = OLA_m [ G_m V_m (w pulses) + V_m / |V_m|_rms (w aspiration) + C_m (w frication) ]

Excitations are made in the time domain and keep their exact timing: glottal pulses at fractional
times, with jitter and shimmer, and two noises. Every 10 ms a Hann window w (20 ms, its shifts sum
to one) cuts a block out of each, one FFT filters it, and the blocks are overlap-added: the filters
cross-fade, at a few FFTs per block and no loop over samples.

    V = product over formants k of  A_k(1) / A_k(z),  A_k = 1 - 2 r cos(t) z^-1 + r^2 z^-2,
        r = exp(-pi b/fs), t = 2 pi f/fs, times a zero and a pole for nasals (Klatt, 1980)
    G = (1 - z^-1) / (conj(A_g) (1 - p z^-1)): the glottal flow's derivative as an anticausal
        resonance at the glottal formant and a causal low-pass, the spectral tilt (Doval,
        d'Alessandro and Henrich, "The voice source as a causal/anticausal linear filter", 2003):
        f_g = f0/(2 Oq), bandwidth f0/(Oq tan(pi (1 - am))), am = 2/3
    C = a fixed spectrum per place of articulation, cross-faded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, signal

from dynse.data.synthetic_phonemes import FRICATION, FRICATION_NAMES
from dynse.data.synthetic_voices import EQUALISER_HZ, Voice

SAMPLE_RATE = 16000
TRACK_HOP = 80
_BLOCK_HOP = 160
_WINDOW = signal.windows.hann(2 * _BLOCK_HOP, sym=False).astype(np.float32)
# A block is [8 ms for what precedes (anticausal, zero phase) | 20 ms | 22 ms of ringing].
_BEFORE = 128
_FFT = 800
_BINS_HZ = np.arange(_FFT // 2 + 1) * (SAMPLE_RATE / _FFT)
# Rows 1, z^-1, z^-2 on the unit circle.
_POWERS = np.exp(-2j * np.pi * np.arange(3)[:, None] * _BINS_HZ / SAMPLE_RATE).astype(np.complex64)
_CLOSING_SPEED = np.tan(np.pi / 3.0)
# Blocks filtered at once: small enough for the temporary spectra to stay in the cache.
_CHUNK = 64
# Fractional delays of a pulse: windowed-sinc taps, 64 delays between two samples.
_DELAYS = 64
_TAPS = np.arange(-7, 9)
_PULSES = (
    np.sinc(_TAPS[None, :] - np.arange(_DELAYS + 1)[:, None] / _DELAYS)
    * np.cos(np.pi / 17.0 * (_TAPS[None, :] - np.arange(_DELAYS + 1)[:, None] / _DELAYS)) ** 2
)


@dataclass(frozen=True)
class Articulation:
    """What the glottis and the tract do, every 5 ms (T frames).

    Attributes:
        f0_hz: (T,) fundamental, also where nothing is voiced.
        voicing: (T,) amplitude of the glottal pulses.
        aspiration: (T,) amplitude of the noise at the glottis.
        frication: (T,) amplitude of the noise at the constriction.
        irregularity: (T,) factor on jitter and shimmer.
        effort_db: (T,) loudness; a louder voice has a brighter source.
        formants_hz: (T, 4) in this voice's tract.
        places: (T, P) weights of the spectra in FRICATION.
        zero_hz: (T,) antiformant of a nasal.
        nasal_hz: (T,) its pole, equal to zero_hz where there is no nasal.
        bursts: (K, 2) first sample and amplitude of each plosive burst.
    """

    f0_hz: np.ndarray
    voicing: np.ndarray
    aspiration: np.ndarray
    frication: np.ndarray
    irregularity: np.ndarray
    effort_db: np.ndarray
    formants_hz: np.ndarray
    places: np.ndarray
    zero_hz: np.ndarray
    nasal_hz: np.ndarray
    bursts: np.ndarray


def to_samples(track: np.ndarray) -> np.ndarray:
    """A track (T,) of 5-ms frames, linear between the frames' centres, as samples (80 T,)."""
    padded = np.concatenate([track[:1], track, track[-1:]]).astype(np.float32)
    ramp = (np.arange(TRACK_HOP, dtype=np.float32) + 0.5) / TRACK_HOP
    lines = padded[:-1, None] + np.diff(padded)[:, None] * ramp
    half = TRACK_HOP // 2
    return lines.reshape(-1)[half : half + len(track) * TRACK_HOP]


def render(track: Articulation, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """The sound of an articulation.

    Args:
        track: T frames of 5 ms.
        voice: source, bandwidths and microphone.
        rng: draws jitter, shimmer and the noises.

    Returns:
        (80 T,) float32; a neutral vowel at voicing 1 has an RMS of about 1.
    """
    n = len(track.f0_hz) * TRACK_HOP
    pulses, opening = _glottal_pulses(track, voice, rng)
    # Breath flows while the glottis is open: the noise pulsates with the voice.
    voiced = to_samples(np.minimum(1.0, 3.0 * track.voicing))
    aspiration = rng.standard_normal(n, np.float32) * to_samples(track.aspiration)
    aspiration *= 1.0 + 0.7 * voiced * opening
    frication = to_samples(track.frication)
    _add_bursts(frication, track.bursts, rng)
    frication *= rng.standard_normal(n, np.float32) * (1.0 + 0.5 * voiced * opening)
    return _filter_blocks((pulses, aspiration, frication), track, voice, rng)


def _glottal_pulses(
    track: Articulation, voice: Voice, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pulses (N,) of power one at voicing one, and the phase's cosine (N,)."""
    phase = np.cumsum(to_samples(track.f0_hz), dtype=np.float64) / SAMPLE_RATE
    n = len(phase)
    whole = np.floor(phase)
    at = np.flatnonzero(whole[1:] > whole[:-1]) + 1
    step = phase[at] - phase[at - 1]
    frame = np.minimum(at // TRACK_HOP, len(track.voicing) - 1)
    irregular = track.irregularity[frame]
    period = 1.0 / step
    time = at - (phase[at] - whole[at]) * period
    time += period * voice.jitter * irregular * rng.standard_normal(len(at))
    time = np.clip(time, 0.0, n - 1.0)
    # A pulse train of amplitude sqrt(period) has power one.
    size = np.sqrt(period) * track.voicing[frame]
    size *= np.maximum(0.0, 1.0 + voice.shimmer * irregular * rng.standard_normal(len(at)))
    first = np.floor(time).astype(np.int64)
    delay = np.rint((time - first) * _DELAYS).astype(np.int64)
    index = (first[:, None] + _TAPS).ravel() + 8
    values = (size[:, None] * _PULSES[delay]).ravel()
    pulses = np.bincount(index, values, minlength=n + 17)[8 : 8 + n]
    opening = np.cos((2.0 * np.pi) * (phase - whole).astype(np.float32))
    return pulses.astype(np.float32), opening


def _add_bursts(envelope: np.ndarray, bursts: np.ndarray, rng: np.random.Generator) -> None:
    """Adds to the frication's envelope, in place: sharp onsets that decay over 2 to 7 ms."""
    for start, size in bursts:
        decay = SAMPLE_RATE * rng.uniform(0.002, 0.007)
        tail = size * np.exp(-np.arange(int(5 * decay)) / decay)
        start = int(start) + int(rng.integers(TRACK_HOP))
        stop = min(len(envelope), start + len(tail))
        envelope[start:stop] += tail[: max(0, stop - start)].astype(np.float32)


def _filter_blocks(
    excitations: tuple[np.ndarray, np.ndarray, np.ndarray],
    track: Articulation,
    voice: Voice,
    rng: np.random.Generator,
) -> np.ndarray:
    n = len(excitations[0])
    blocks = n // _BLOCK_HOP + 2
    # Block b is centred on sample 160 b, the boundary of frames 2b-1 and 2b.
    frame = np.clip(2 * np.arange(blocks), 0, len(track.f0_hz) - 1)
    size = (blocks + 1) * _BLOCK_HOP
    padded = np.zeros((3, size), np.float32)
    for row, excitation in zip(padded, excitations, strict=True):
        row[_BLOCK_HOP : _BLOCK_HOP + n] = excitation
    cut = np.lib.stride_tricks.sliding_window_view(padded, 2 * _BLOCK_HOP, axis=1)
    cut = cut[:, ::_BLOCK_HOP]
    spectra = _place_spectra(voice)
    equaliser = _equaliser(voice, rng)
    whole = np.zeros((blocks + _FFT // _BLOCK_HOP, _BLOCK_HOP), np.float32)
    for start in range(0, blocks, _CHUNK):
        rows = slice(start, min(start + _CHUNK, blocks))
        count = rows.stop - rows.start
        buffer = np.zeros((3, count, _FFT), np.float32)
        buffer[:, :, _BEFORE : _BEFORE + 2 * _BLOCK_HOP] = cut[:, rows] * _WINDOW
        pulses, aspiration, frication = fft.rfft(buffer, axis=-1, overwrite_x=True)
        at = frame[rows]
        tract = _tract(track.formants_hz[at], track.zero_hz[at], track.nasal_hz[at], voice)
        out = _glottis(track.f0_hz[at], track.effort_db[at], voice)
        out *= pulses
        aspiration *= 1.0 / _rms(tract)
        out += aspiration
        out *= tract
        frication *= _mix(track.places[at].astype(np.float32), spectra)
        out += frication
        out *= equaliser
        filtered = fft.irfft(out, n=_FFT, axis=-1, overwrite_x=True)
        filtered = filtered.reshape(count, _FFT // _BLOCK_HOP, _BLOCK_HOP)
        for k in range(_FFT // _BLOCK_HOP):
            whole[start + k : start + k + count] += filtered[:, k]
    shift = _BLOCK_HOP + _BEFORE
    return whole.reshape(-1)[shift : shift + n].copy()


def _tract(
    formants_hz: np.ndarray, zero_hz: np.ndarray, nasal_hz: np.ndarray, voice: Voice
) -> np.ndarray:
    """Transfer function (T, bins) complex64 of a cascade of resonators with unit gain at 0 Hz."""
    scale = voice.formant_scale
    upper = np.arange(4.5, 8.0) * 1000.0 * scale
    upper = upper[upper < 0.97 * SAMPLE_RATE / 2.0]
    count = len(formants_hz)
    poles_hz = np.concatenate(
        [formants_hz, np.broadcast_to(upper, (count, len(upper))), nasal_hz[:, None]], axis=1
    )
    widths_hz = voice.bandwidth * (60.0 + 0.025 * poles_hz + 4e-6 * poles_hz**2)
    widths_hz[:, -1] = 100.0
    poles = np.ones((count, 1))
    for a1, a2 in zip(*(c.T for c in _resonator(poles_hz, widths_hz)), strict=True):
        longer = np.zeros((count, poles.shape[1] + 2))
        longer[:, :-2] = poles
        longer[:, 1:-1] += a1[:, None] * poles
        longer[:, 2:] += a2[:, None] * poles
        poles = longer
    b1, b2 = (c[:, None] for c in _resonator(zero_hz, np.full(count, 100.0)))
    # float64: the coefficients of a 20th-order polynomial cancel in float32.
    denominator = fft.rfft(poles, _FFT, axis=1).astype(np.complex64)
    zeros = np.concatenate([np.ones_like(b1), b1, b2], axis=1)
    zeros *= poles.sum(axis=1, keepdims=True) / zeros.sum(axis=1, keepdims=True)
    tract = _mix(zeros.astype(np.complex64), _POWERS)
    tract /= denominator
    return tract


def _glottis(f0_hz: np.ndarray, effort_db: np.ndarray, voice: Voice) -> np.ndarray:
    """Spectrum (T, bins) complex64 of a glottal pulse of mean power one."""
    formant = f0_hz / (2.0 * voice.open_quotient)
    width = f0_hz / (voice.open_quotient * _CLOSING_SPEED)
    a1, a2 = _resonator(formant, width)
    corner = voice.tilt_hz * 2.0 ** (effort_db / 6.0)
    pole = np.exp(-2.0 * np.pi * corner / SAMPLE_RATE)
    coefficients = np.stack([np.ones_like(a1), a1, a2], axis=1).astype(np.complex64)
    # conj(A_g) is A_g with z for 1/z.
    spectrum = _mix(coefficients, np.conj(_POWERS))
    spectrum *= 1.0 - pole.astype(np.float32)[:, None] * _POWERS[1]
    np.divide(1.0 - _POWERS[1], spectrum, out=spectrum)
    spectrum *= 1.0 / _rms(spectrum)
    return spectrum


def _mix(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """weights (T, K) times rows (K, bins), without BLAS.

    For products this thin its threads cost more than they save when the cores are busy, and their
    number could decide on the last bit.
    """
    return np.einsum("tk,kf->tf", weights, rows)


def _rms(spectrum: np.ndarray) -> np.ndarray:
    """(T, 1) root mean square over the bins of (T, bins) complex64."""
    parts = spectrum.view(np.float32)
    return np.sqrt(np.einsum("ij,ij->i", parts, parts) / spectrum.shape[1])[:, None]


def _resonator(centre_hz: np.ndarray, width_hz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radius = np.exp(-np.pi * width_hz / SAMPLE_RATE)
    return -2.0 * radius * np.cos(2.0 * np.pi * centre_hz / SAMPLE_RATE), radius**2


def _place_spectra(voice: Voice) -> np.ndarray:
    """(P, bins) float32 magnitudes of mean power one; front cavities scale less than tracts."""
    rows = []
    for name in FRICATION_NAMES:
        hz, db = np.array(FRICATION[name], float).T
        magnitude = 10.0 ** (np.interp(_BINS_HZ, hz * voice.formant_scale**0.6, db) / 20.0)
        rows.append(magnitude / np.sqrt(np.mean(magnitude**2)))
    return np.array(rows, np.float32)


def _equaliser(voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """(bins,) float32: the voice's microphone, a little different in every recording."""
    db = np.array(voice.equaliser_db) + rng.normal(0.0, 0.8, len(EQUALISER_HZ))
    octaves = np.log2(np.maximum(_BINS_HZ, 20.0))
    curve = np.interp(octaves, np.log2(EQUALISER_HZ), db - db.mean())
    high_pass = 1.0 / (1.0 + (70.0 / np.maximum(_BINS_HZ, 1.0)) ** 4)
    return (high_pass * 10.0 ** (curve / 20.0)).astype(np.float32)
