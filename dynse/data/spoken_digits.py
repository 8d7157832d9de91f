"""Spoken digits from a folder, as log-mel sequences.

    folder/<speaker>/<digit>_<index>.flac       or any other format that libsndfile reads

the layout of the Free Spoken Digit Dataset at 8 kHz. Its own split: index 0 to 4 is the test set;
of the rest, index 5 to 9 is used for validation here. With speakers held out, all their clips are
the test set; the last of the other speakers, by name, is the validation set, so that choices are
made for unheard speakers too (ours); of those that are trained on, index 0 to 4 is left out, so
that no clip that is tested under one split is trained on under the other.

Features, our choice: 24 mel bands of 60 Hz to 4 kHz, windows of 32 ms every 20 ms, relative to the
clip's level; at most 48 frames (0.97 s, longer than 98 of 100 clips), the median clip has 21.

The features are computed once and cached, under a key of every file's name, size and modification
time. Files that cannot be used are named, counted and left out.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynse.audio.files import READ_SUFFIXES, AudioFileError, decode_audio
from dynse.audio.mel import LogMel
from dynse.data.bank import Skipped
from dynse.data.cache import default_cache_dir
from dynse.data.folders import skipped_summary
from dynse.data.sequences import CLIPS_VERSION, Clip, SequenceTask, cached_clips, make_task

FEATURES = LogMel(sample_rate=8000, win_length=256, hop_length=160, bands=24)
MAX_FRAMES = 48
_VERSION = 1  # to be raised when the same files would give other clips
_NAME = re.compile(r"([0-9])_([0-9]+)")

logger = logging.getLogger(__name__)


def spoken_digits(
    folder: str | os.PathLike,
    *,
    held_out: Sequence[str] = (),
    cache_dir: str | os.PathLike | None = None,
) -> SequenceTask:
    """The digits of a folder.

    Args:
        folder: holds one folder per speaker.
        held_out: speakers whose clips are the test set, one more is for validation; () for the
            split by index.
        cache_dir: where caches lie; `default_cache_dir()` if None.

    Returns:
        The task with the classes "0" to "9", speakers as groups, names of files below `folder` as
        ids; ``skipped`` lists files left out.

    Raises:
        FileNotFoundError: no such folder, or no audio file in it; says what was expected.
        ValueError: an unknown speaker in `held_out`, no file could be used, or a split is empty.
        OSError: the cache cannot be written; nothing is left behind.
    """
    folder = Path(folder)
    files = _list_files(folder)
    speakers = sorted({name.partition("/")[0] for name, _ in files})
    unknown = sorted(set(held_out) - set(speakers))
    if unknown:
        raise ValueError(f"held_out must be among the speakers {speakers}, got {unknown}")
    digest = hashlib.sha256(f"{CLIPS_VERSION} {_VERSION} {FEATURES} {MAX_FRAMES}\n".encode())
    for name, status in files:
        digest.update(f"{name}\t{status.st_size}\t{status.st_mtime_ns}\n".encode())
    path = Path(cache_dir or default_cache_dir()) / f"spoken-digits-{digest.hexdigest()[:16]}.npz"
    clips, skipped = cached_clips(path, lambda: _decode(folder, [name for name, _ in files]))
    if skipped:
        logger.warning("%s: %s", folder, skipped_summary(skipped))
    validation = [name for name in speakers if name not in held_out][-1:] if held_out else []
    splits: dict[str | None, list[Clip]] = {"train": [], "valid": [], "test": [], None: []}
    for clip in clips:
        splits[_split(clip, held_out, validation)].append(clip)
    return make_task("spoken-digits", [str(d) for d in range(10)], splits, skipped=skipped)


def _split(clip: Clip, held_out: Sequence[str], validation: Sequence[str]) -> str | None:
    """Where a clip belongs; None where it is left out."""
    index = int(_NAME.fullmatch(Path(clip.id).stem)[2])
    if held_out:
        if clip.group in (*held_out, *validation):
            return "test" if clip.group in held_out else "valid"
        return None if index < 5 else "train"
    if index < 5:
        return "test"
    return "valid" if index < 10 else "train"


def _list_files(folder: Path) -> list[tuple[str, os.stat_result]]:
    """Sorted names, with forward slashes, of the audio files below the speakers' folders; stat."""
    files = []
    if folder.is_dir():
        for path in folder.glob("*/*"):
            if path.suffix.lower() in READ_SUFFIXES and not path.name.startswith("."):
                # lstat for a broken link, which decoding then reports as missing
                status = path.stat() if path.exists() else path.lstat()
                files.append((f"{path.parent.name}/{path.name}", status))
    if not files:
        raise FileNotFoundError(
            f"no audio file in a folder below {folder}. Expected {folder}/<speaker>/"
            "<digit>_<index>.flac"
        )
    return sorted(files, key=lambda file: file[0])


def _decode(folder: Path, names: list[str]) -> tuple[list[Clip], list[Skipped]]:
    """The features of the files that can be used, and the others."""
    clips, skipped = [], []
    for name in names:
        path = folder / name
        match = _NAME.fullmatch(path.stem)
        try:
            if match is None:
                raise AudioFileError(path, "is not named <digit>_<index>")
            samples, _ = decode_audio(
                path, sample_rate=FEATURES.sample_rate, min_length=FEATURES.win_length
            )
            if not np.any(samples):
                raise AudioFileError(path, "is digital silence")
        except AudioFileError as error:
            skipped.append(Skipped(name, error.reason))
        else:
            frames = FEATURES(samples)[:MAX_FRAMES]
            clips.append(Clip(frames, int(match[1]), path.parent.name, name))
    return clips, skipped
