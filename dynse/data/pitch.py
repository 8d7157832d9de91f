"""The fundamental frequency of clean recordings: the corpus' own truth, or pYIN.

A `Pitch` holds one track for each recording; value k stands for the samples [k hop, (k + 1) hop),
so that it can be asked at any sample, for pieces that were cut out of a recording and moved.

Where a bank brings the track "f0_hz" (the synthetic corpus), that is taken as it is. Elsewhere it
is estimated by pYIN (Mauch and Dixon, "pYIN: a fundamental frequency estimator using probabilistic
threshold distributions", 2014) as librosa computes it: the difference function of YIN, the
probability of every trough over a prior of thresholds, and Viterbi's path through 0.1 semitones,
voiced or not. Our choices: 60 to 500 Hz; a value every 10 ms; frames of 40 ms, each centred on the
10 ms that its value stands for. 40 ms hold two periods of 60 Hz; longer frames reach further into
the pauses and call more of them voiced.

pYIN runs at about ten times real time, so its tracks are cached under a key of the bank's names and
samples, of these choices and of a version, a few recordings in each file: what was killed goes on
with the first file that is missing.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from dynse.atomic import write_whole
from dynse.data.bank import TRACK_HOP, Bank
from dynse.data.cache import default_cache_dir
from dynse.progress import progress_bar

SAMPLE_RATE = 16000
LOWEST_HZ = 60.0
HIGHEST_HZ = 500.0
HOP_LENGTH = 160  # samples for each value of pYIN's tracks: 10 ms
WIN_LENGTH = 640
_VERSION = 1  # to be raised when the same recordings would be given other tracks
_CHUNK = 16  # recordings in one file of the cache


@dataclass(frozen=True, eq=False)
class Pitch:
    """F0 of the recordings of one bank.

    Attributes:
        tracks: recording name -> (ceil(n / hop_length),) float32 in Hz, 0 where unvoiced.
        hop_length: samples that a value stands for.
    """

    tracks: Mapping[str, np.ndarray]
    hop_length: int

    def at(self, name: str, positions: np.ndarray) -> np.ndarray:
        """F0 at samples of a recording.

        Args:
            name: the recording.
            positions: (...,) int, samples counted from the recording's first.

        Returns:
            (...,) float32 in Hz, 0 where unvoiced.

        Raises:
            KeyError: no such recording.
            ValueError: a position before the recording's start or after its end.
        """
        if name not in self.tracks:
            raise KeyError(f"no pitch of {name!r} among {len(self.tracks)} recordings")
        track = self.tracks[name]
        index = np.asarray(positions) // self.hop_length
        if index.size and not 0 <= index.min() <= index.max() < len(track):
            raise ValueError(
                f"positions must lie within the {len(track) * self.hop_length} samples of {name}, "
                f"got {np.min(positions)} to {np.max(positions)}"
            )
        return track[index]


def bank_pitch(
    bank: Bank, *, cache_dir: str | os.PathLike | None = None, progress: bool = True
) -> Pitch:
    """F0 of all recordings of a bank of speech.

    Args:
        bank: clean speech.
        cache_dir: where caches lie; `default_cache_dir()` if None.
        progress: show a bar while pYIN runs.

    Returns:
        The bank's own track "f0_hz" where it has one, else pYIN's, from the cache or made now.

    Raises:
        ValueError: a file of the cache is damaged; names it.
        OSError: the cache cannot be written.
    """
    if "f0_hz" in bank.tracks:
        cuts = bank.offsets[1:-1] // TRACK_HOP
        return Pitch(_by_name(bank.names, np.split(bank.tracks["f0_hz"], cuts)), TRACK_HOP)
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    folder = root / f"pitch-{_cache_key(bank)[:16]}"
    chunks = {
        folder / f"{first:05d}.npy": range(first, min(first + _CHUNK, len(bank)))
        for first in range(0, len(bank), _CHUNK)
    }
    missing = {path: chunk for path, chunk in chunks.items() if not path.exists()}
    if missing:
        _make(bank, missing, progress)
    tracks = [track for path, chunk in chunks.items() for track in _read(path, bank, chunk)]
    return Pitch(_by_name(bank.names, tracks), HOP_LENGTH)


def estimate_pitch(samples: np.ndarray) -> np.ndarray:
    """F0 of one recording by pYIN.

    Args:
        samples: (n,) float at 16 kHz, n >= 1.

    Returns:
        (ceil(n / 160),) float32 in Hz, 0 where unvoiced; value k from the 640 samples around the
        centre of [160 k, 160 (k + 1)), zeros beyond the recording's ends.
    """
    import librosa  # takes a second, and its first call compiles

    count = _values(len(samples))
    before = (WIN_LENGTH - HOP_LENGTH) // 2
    after = (count - 1) * HOP_LENGTH + WIN_LENGTH - before - len(samples)
    f0_hz, _, _ = librosa.pyin(
        np.pad(samples, (before, after)),
        fmin=LOWEST_HZ,
        fmax=HIGHEST_HZ,
        sr=SAMPLE_RATE,
        frame_length=WIN_LENGTH,
        hop_length=HOP_LENGTH,
        fill_na=0.0,
        center=False,
    )
    return f0_hz.astype(np.float32)


def _values(samples: int) -> int:
    return -(-samples // HOP_LENGTH)


def _by_name(names: Sequence[str], tracks: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip(names, tracks, strict=True))


def _cache_key(bank: Bank) -> str:
    settings = (_VERSION, _CHUNK, SAMPLE_RATE, LOWEST_HZ, HIGHEST_HZ, HOP_LENGTH, WIN_LENGTH)
    digest = hashlib.sha256(f"{settings}\n".encode())
    for index, name in enumerate(bank.names):
        digest.update(f"{name}\t{bank.length(index)}\n".encode())
    digest.update(np.ascontiguousarray(bank.samples).data)
    return digest.hexdigest()


def _make(bank: Bank, missing: Mapping[Path, range], show: bool) -> None:
    """Compute and write the files that are missing."""
    every = [index for chunk in missing.values() for index in chunk]
    seconds = sum(bank.length(index) for index in every) / SAMPLE_RATE
    with progress_bar(None if show else Console(quiet=True)) as bar:
        task = bar.add_task("pitch", total=seconds, status="s of speech")
        for path, chunk in missing.items():
            tracks = []
            for index in chunk:
                tracks.append(estimate_pitch(bank.recording(index)))
                bar.advance(task, bank.length(index) / SAMPLE_RATE)
            buffer = io.BytesIO()
            np.save(buffer, np.concatenate(tracks))
            write_whole(path, buffer.getvalue())


def _read(path: Path, bank: Bank, chunk: range) -> list[np.ndarray]:
    """The tracks of a chunk of recordings from a file of the cache."""
    counts = [_values(bank.length(index)) for index in chunk]
    try:
        values = np.load(path, allow_pickle=False)
        if values.shape != (sum(counts),) or values.dtype != np.float32:
            raise ValueError(
                f"expected ({sum(counts)},) float32, got {values.shape} {values.dtype}"
            )
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"the cache file {path} is damaged ({error}): delete it, it will be made again"
        ) from error
    return np.split(values, np.cumsum(counts)[:-1])
