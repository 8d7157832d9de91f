"""Reading, writing and resampling audio files.

A file becomes (N,) float32 in [-1, 1] at the asked sample rate: channels are averaged, other rates
are resampled (soxr, very high quality), and what passes full scale is scaled down as a whole, each
with a notice. What cannot be used raises `AudioFileError` with the file's name and the reason.

Files are encoded in memory and written beside their place, then renamed: there is never half a
file, and a full disk is an OSError that names the file.

soundfile and soxr are imported inside the functions that need them, so that training from a cache
runs without them.
"""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import numpy as np

from dynse.atomic import write_whole

FRAME_LENGTH = 512  # a file shorter than one STFT frame at 16 kHz is of no use
READ_SUFFIXES = frozenset((
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".nist", ".oga", ".ogg", ".opus",
    ".rf64", ".snd", ".sph", ".w64", ".wav",
))  # fmt: skip
_WRITE_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
_LFS_STUB = b"version https://git-lfs"
# An MP3 header may announce a little more than can be decoded: two frames of 1152 samples.
_MISSING_ALLOWED = 2304
_WRITE_BLOCK = 65536  # the Vorbis encoder overflows its stack on minutes in a single call

logger = logging.getLogger(__name__)


class AudioFileError(ValueError):
    """An audio file that cannot be used.

    Attributes:
        path: the file.
        reason: why, in words.
    """

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


def decode_audio(
    path: str | os.PathLike, *, sample_rate: int = 16000, min_length: int = FRAME_LENGTH
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a file and say what was done to it.

    Args:
        path: the file; any format that libsndfile knows (WAV, FLAC, OGG, MP3, AIFF, ...).
        sample_rate: wanted rate in Hz.
        min_length: fewest samples at that rate.

    Returns:
        samples: (N,) float32 in [-1, 1].
        notices: what was converted, empty for a mono file of the right rate.

    Raises:
        AudioFileError: missing, empty, a Git LFS stub, unreadable, truncated, NaN or infinite
            samples, no samples, or shorter than `min_length`.
    """
    path = Path(path)
    frames, file_rate = _read_frames(path)
    notices = []
    channels = frames.shape[1]
    samples = frames[:, 0]
    if channels > 1:
        samples = frames.mean(axis=1, dtype=np.float64).astype(np.float32)
        notices.append(f"averaged {channels} channels")
    if file_rate != sample_rate:
        samples = resample(samples, file_rate, sample_rate)
        notices.append(f"resampled from {file_rate} to {sample_rate} Hz")
    if samples.size < min_length:
        raise AudioFileError(
            path, f"too short: {samples.size} samples at {sample_rate} Hz, at least {min_length}"
        )
    samples, scaled = _within_full_scale(samples)
    if scaled:
        notices.append("scaled down to full scale")
    return samples, tuple(notices)


def read_audio(
    path: str | os.PathLike, *, sample_rate: int = 16000, min_length: int = FRAME_LENGTH
) -> np.ndarray:
    """`decode_audio` with its notices logged as warnings: (N,) float32 in [-1, 1]."""
    samples, notices = decode_audio(path, sample_rate=sample_rate, min_length=min_length)
    if notices:
        logger.warning("%s: %s", path, ", ".join(notices))
    return samples


def duration_s(path: str | os.PathLike) -> float:
    """Seconds of audio that the file's header announces; 0 where there is no readable header."""
    import soundfile

    try:
        return soundfile.info(os.fspath(path)).duration
    except (soundfile.SoundFileError, TypeError, ValueError, OSError):
        return 0.0


def write_audio(path: str | os.PathLike, samples: np.ndarray, sample_rate: int = 16000) -> None:
    """Write a file, whole or not at all.

    WAV and FLAC hold 16-bit PCM, rounded to the nearest step; OGG is Vorbis and MP3 is lossy too.
    Samples beyond full scale scale the whole signal down, with a logged warning.

    Args:
        path: .wav, .flac, .ogg or .mp3.
        samples: (N,) or (N, channels) float in [-1, 1].
        sample_rate: in Hz.

    Raises:
        ValueError: unknown suffix, wrong shape, NaN or infinite samples.
        OSError: the file cannot be written (disk full, no permission); nothing is left behind.
    """
    import soundfile

    path = Path(path)
    if path.suffix.lower() not in _WRITE_FORMATS:
        legal = ", ".join(_WRITE_FORMATS)
        raise ValueError(f"{path}: expected one of the suffixes {legal}, got {path.suffix!r}")
    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise ValueError(f"{path}: samples must be (N,) or (N, channels), got {samples.shape}")
    if not np.all(np.isfinite(samples)):
        raise ValueError(f"{path}: samples hold NaN or infinity")
    samples, scaled = _within_full_scale(samples)
    if scaled:
        logger.warning("%s: scaled down to full scale", path)

    container, subtype = _WRITE_FORMATS[path.suffix.lower()]
    data = to_int16(samples) if subtype == "PCM_16" else samples
    encoded = io.BytesIO()
    channels = 1 if data.ndim == 1 else data.shape[1]
    with soundfile.SoundFile(
        encoded, "w", sample_rate, channels, subtype=subtype, format=container
    ) as file:
        for start in range(0, len(data), _WRITE_BLOCK):
            file.write(data[start : start + _WRITE_BLOCK])
    write_whole(path, encoded.getvalue())


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """(N,) float32 at `from_hz` as (about N * to_hz / from_hz,) float32 at `to_hz`, by soxr VHQ."""
    import soxr

    if from_hz <= 0 or to_hz <= 0:
        raise ValueError(f"sample rates must be positive, got {from_hz} and {to_hz} Hz")
    samples = np.asarray(samples, dtype=np.float32)
    if from_hz == to_hz:
        return samples
    return soxr.resample(samples, from_hz, to_hz, quality="VHQ")


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Float samples in [-1, 1] as int16, rounded to the nearest step.

    Args:
        samples: (...) float.

    Returns:
        (...) int16, ``round(32768 x)`` limited to [-32768, 32767].

    Raises:
        ValueError: a sample lies outside [-1, 1] or is not finite; scale the signal down first.
    """
    samples = np.asarray(samples)
    peak = float(np.max(np.abs(samples), initial=0.0))
    if not peak <= 1.0:
        raise ValueError(f"samples must lie in [-1, 1], got a peak of {peak}")
    scaled = np.rint(samples.astype(np.float64) * 32768)
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def _read_frames(path: Path) -> tuple[np.ndarray, int]:
    """The file's frames (N, channels) float32, N >= 1 and all finite, and its sample rate."""
    import soundfile

    if not path.is_file():
        raise AudioFileError(path, "is a folder" if path.is_dir() else "does not exist")
    try:
        with open(path, "rb") as file:
            head = file.read(len(_LFS_STUB))
    except OSError as error:
        raise AudioFileError(path, f"cannot be opened: {error.strerror}") from error
    if not head:
        raise AudioFileError(path, "is empty (0 bytes)")
    if head == _LFS_STUB:
        raise AudioFileError(path, "is a Git LFS pointer, not audio: fetch it with git lfs pull")
    try:
        with soundfile.SoundFile(path) as file:
            announced, file_rate = file.frames, file.samplerate
            frames = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        reason = str(error).removeprefix(f"Error opening {str(path)!r}: ").rstrip(".")
        raise AudioFileError(path, f"cannot be decoded: {reason}") from error
    if frames.shape[0] == 0:
        raise AudioFileError(path, "holds no samples")
    if frames.shape[0] < announced - _MISSING_ALLOWED:
        raise AudioFileError(
            path, f"is truncated: {frames.shape[0]} of {announced} samples are there"
        )
    bad = frames.size - int(np.count_nonzero(np.isfinite(frames)))
    if bad:
        raise AudioFileError(path, f"holds {bad} NaN or infinite samples")
    return frames, file_rate


def _within_full_scale(samples: np.ndarray) -> tuple[np.ndarray, bool]:
    peak = np.max(np.abs(samples))
    if peak <= 1.0:
        return samples, False
    return np.clip(samples / peak, -1.0, 1.0), True
