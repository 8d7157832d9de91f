"""What is true of a mixture: voice, F0 and SNR of every frame, who speaks, and over what.

Frames are those of the 512/256 STFT (`dynse.audio.stft`): frame t sees the samples
[256 t - 256, 256 t + 256) and its centre is sample 256 t. From the clean signal s and the noise n,

    snr_db[t] = 10 log10(P_s[t] / P_n[t]), limited to -20 to 30 dB,

P the mean square of a frame, without the transform's window. Where s is silent it is -20, where n
alone is, 30; the limits are ours.

Voice follows the one rule for active speech, applied to s as it is mixed; where the corpus brings
the track "voice", it is that track at the frame's centre. F0 is that of the recording at the
sample which lies at the frame's centre, and 0 in frames without voice: a pitch tracker finds a
pitch in a pause's hum as well. Gaps between joined recordings hold neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dynse.audio.activity import active_frames, frame_power
from dynse.audio.stft import STFT
from dynse.data.bank import TRACK_HOP, Corpus
from dynse.data.noise_categories import noise_category
from dynse.data.pitch import Pitch
from dynse.data.testsets import GAP, MixtureSpec, render

SHAPE = STFT(n_fft=512, win_length=512, hop_length=256)
SNR_RANGE_DB = (-20.0, 30.0)
# The synthetic corpus' voices have a register in place of a gender.
_GENDER_OF_REGISTER = {"low": "M", "high": "F"}


class FrameLabels(NamedTuple):
    """Labels of the T frames of a mixture.

    Attributes:
        voice: (T,) bool, active speech.
        f0_hz: (T,) float32, 0 where unvoiced.
        snr_db: (T,) float32 in SNR_RANGE_DB.
    """

    voice: np.ndarray
    f0_hz: np.ndarray
    snr_db: np.ndarray


class MixtureLabels(NamedTuple):
    """Labels of a mixture.

    Attributes:
        frames: of its frames.
        noise_class: the noise's group in the corpus.
        noise_category: one of `noise_categories.CATEGORIES`, None where the class is not known.
        snr_db: over active frames, as it was mixed.
        speaker: the speech's group in the corpus.
        gender: "F", "M", or None where the corpus does not say; of a synthetic voice "M" for the
            low register and "F" for the high one.
        noise_recording: name of the recording of noise.
        speech_recordings: names of the recordings of speech.
        noise_source: what recordings share that were cut from one original: the "attribution" of
            the noise where the corpus has one, else its name.
    """

    frames: FrameLabels
    noise_class: str
    noise_category: str | None
    snr_db: float
    speaker: str
    gender: str | None
    noise_recording: str
    speech_recordings: tuple[str, ...]
    noise_source: str


def label_mixture(spec: MixtureSpec, corpus: Corpus, pitch: Pitch) -> MixtureLabels:
    """The labels of one mixture.

    Args:
        spec: the mixture.
        corpus: holds its recordings in the split ``spec.split``.
        pitch: of the speech of that split, from `bank_pitch`.

    Returns:
        The labels; as many frames as `SHAPE` has for the mixture's samples.

    Raises:
        KeyError: the corpus lacks the split or a recording, or `pitch` lacks one.
        ValueError: the corpus' samples are not those that the mixture was made from.
    """
    mixture = render(spec, corpus)
    bank = corpus.speech[spec.split]
    centres = np.arange(SHAPE.frames(spec.length)) * SHAPE.hop_length
    if "voice" in bank.tracks:

        def is_voice(name: str, positions: np.ndarray) -> np.ndarray:
            first = bank.offsets[bank.index_of(name)]
            return bank.tracks["voice"][(first + positions) // TRACK_HOP]

        voice = _at_pieces(spec, centres, is_voice).astype(bool)
    else:
        voice = active_frames(mixture.clean, SHAPE.win_length, SHAPE.hop_length)
    f0_hz = np.where(voice, _at_pieces(spec, centres, pitch.at), 0.0).astype(np.float32)
    return MixtureLabels(
        frames=FrameLabels(voice, f0_hz, frame_snr_db(mixture.clean, mixture.noise)),
        noise_class=mixture.noise_class,
        noise_category=noise_category(mixture.noise_class),
        snr_db=mixture.snr_db,
        speaker=mixture.speaker,
        gender=_gender(corpus, spec.speech[0]),
        noise_recording=spec.noise,
        speech_recordings=spec.speech,
        noise_source=corpus.attributes.get(spec.noise, {}).get("attribution") or spec.noise,
    )


def frame_snr_db(clean: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """SNR of every frame in dB: (N,) and (N,) to (T,) float32, limited to SNR_RANGE_DB."""
    clean_power, noise_power = (
        frame_power(signal.astype(np.float64), SHAPE.win_length, SHAPE.hop_length)
        for signal in (clean, noise)
    )
    low, high = (10 ** (limit / 10) for limit in SNR_RANGE_DB)
    limited = np.clip(clean_power, low * noise_power, high * noise_power)
    heard = noise_power > 0
    ratio = np.where(heard, limited / np.where(heard, noise_power, 1.0), high)
    return (10 * np.log10(np.where(clean_power > 0, ratio, low))).astype(np.float32)


def _at_pieces(
    spec: MixtureSpec, centres: np.ndarray, lookup: Callable[[str, np.ndarray], np.ndarray]
) -> np.ndarray:
    """`lookup` of the recording and its sample at each centre (T,); 0 outside of the pieces."""
    values = np.zeros(len(centres))
    first = 0
    for name, (start, stop) in zip(spec.speech, spec.speech_ranges, strict=True):
        inside = (centres >= first) & (centres < first + stop - start)
        values[inside] = lookup(name, start + centres[inside] - first)
        first += stop - start + GAP
    return values


def _gender(corpus: Corpus, recording: str) -> str | None:
    known = corpus.attributes.get(recording, {})
    if known.get("gender") in ("F", "M"):
        return known["gender"]
    return _GENDER_OF_REGISTER.get(known.get("register"))
