"""Sequential classification tasks: sequences of features with one label each, in three splits.

A `Clip` is one sequence of its own length; `make_task` pads clips with zeros at the end to one
length and standardises every feature d by the training split's frames,

    z[t, d] = (x[t, d] - mean[d]) / std[d],

so that a padded frame is exactly 0 after, not before, the standardisation. The other modules of
this room that end in clips bring their features along; `row_digits` is the one that is embedded:
scikit-learn's own 8x8 images of written digits, read row by row.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dynse.atomic import write_whole
from dynse.data.bank import Skipped
from dynse.data.folders import skipped_summary

SPLITS = ("train", "valid", "test")
CLIPS_VERSION = 1  # to be raised when files of clips are laid out otherwise


class Clip(NamedTuple):
    """One sequence on its way into a task.

    Attributes:
        frames: (T, D) float32 features, T >= 1.
        label: index of its class.
        group: whose or of which recording it is: what statistics are grouped by.
        id: unique within the task.
    """

    frames: np.ndarray
    label: int
    group: str
    id: str


class SequenceSplit(NamedTuple):
    """One split of a task, N sequences.

    Attributes:
        features: (N, T, D) float32, standardised; frames from `lengths` on are 0.
        lengths: (N,) int32, valid frames of each.
        labels: (N,) int32.
        groups: (N,) str.
        ids: (N,) str, unique within the task.
    """

    features: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True, eq=False)
class SequenceTask:
    """A classification of sequences.

    Attributes:
        name: for example "row-digits".
        classes: names of the labels 0, 1, ...
        train: what is trained on; its frames give `mean` and `std`.
        valid: what a search looks at.
        test: what neither sees.
        mean: (D,) float32, subtracted from every frame.
        std: (D,) float32, divided by after that; 1 where a feature never changes.
        skipped: files that were left out, with the reason.
    """

    name: str
    classes: tuple[str, ...]
    train: SequenceSplit
    valid: SequenceSplit
    test: SequenceSplit
    mean: np.ndarray
    std: np.ndarray
    skipped: tuple[Skipped, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over classes and all arrays: says what a model was trained on."""
        return fingerprint(np.array(self.classes), *self.train, *self.valid, *self.test)


def make_task(
    name: str,
    classes: Sequence[str],
    clips: Mapping[str, Sequence[Clip]],
    *,
    skipped: Iterable[Skipped] = (),
) -> SequenceTask:
    """Pads and standardises clips.

    Args:
        name: the task's name.
        classes: names of the labels.
        clips: "train", "valid" and "test" -> their clips.
        skipped: files that were left out.

    Returns:
        The task; all splits are padded to the longest clip of any.

    Raises:
        ValueError: an empty split, equal ids, a label without a class, or features that are not
            (T, D) and finite.
    """
    every = [clip for split in SPLITS for clip in clips[split]]
    for split in SPLITS:
        if not clips[split]:
            raise ValueError(f"{name}: the split {split!r} has no clip")
    if len({clip.id for clip in every}) != len(every):
        raise ValueError(f"{name}: ids must be unique within a task")
    width = every[0].frames.shape[-1]
    for clip in every:
        if not 0 <= clip.label < len(classes):
            raise ValueError(f"{clip.id}: label {clip.label} of {len(classes)} classes")
        shape = clip.frames.shape
        if (
            len(shape) != 2
            or not shape[0]
            or shape[1] != width
            or not np.isfinite(clip.frames).all()
        ):
            raise ValueError(f"{clip.id}: expected finite features (T, {width}), got {shape}")
    mean, std = frame_moments([clip.frames for clip in clips["train"]])
    longest = max(len(clip.frames) for clip in every)
    splits = {
        split: SequenceSplit(
            pad_frames([(clip.frames - mean) / std for clip in clips[split]], longest),
            np.array([len(clip.frames) for clip in clips[split]], np.int32),
            np.array([clip.label for clip in clips[split]], np.int32),
            np.array([clip.group for clip in clips[split]]),
            np.array([clip.id for clip in clips[split]]),
        )
        for split in SPLITS
    }
    return SequenceTask(name, tuple(classes), **splits, mean=mean, std=std, skipped=tuple(skipped))


def frame_moments(sequences: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per feature over all frames of (T_i, D): two (D,) float32.

    The deviation is 1 where a feature never changes, which standardises it to 0.
    """
    frames = np.concatenate(list(sequences)).astype(np.float64)
    std = frames.std(0)
    std[np.ptp(frames, axis=0) == 0] = 1.0
    return frames.mean(0).astype(np.float32), std.astype(np.float32)


def pad_frames(sequences: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Sequences (T_i, D) as (N, length, D) float32 with zeros at the end."""
    padded = np.zeros((len(sequences), length, *sequences[0].shape[1:]), np.float32)
    for row, frames in zip(padded, sequences, strict=True):
        row[: len(frames)] = frames
    return padded


def fingerprint(*arrays: np.ndarray) -> str:
    """SHA-256 (hex) over shape, kind and content of arrays, text included."""
    digest = hashlib.sha256()
    for array in arrays:
        text = array.dtype.kind == "U"
        digest.update(f"{array.shape} {'text' if text else array.dtype.str}\n".encode())
        digest.update("\n".join(array.ravel()).encode() if text else array.tobytes())
    return digest.hexdigest()


def cached_clips(
    path: str | os.PathLike, make: Callable[[], tuple[list[Clip], list[Skipped]]]
) -> tuple[list[Clip], list[Skipped]]:
    """Clips and skipped files from a cache file, or made now and written there as a whole.

    Args:
        path: a .npz file; its name holds the key of all that the clips depend on.
        make: gives the clips and the files that were left out.

    Raises:
        ValueError: `make` gave no clip, or the file is damaged.
        OSError: the file cannot be written; nothing is left behind.
    """
    path = Path(path)
    if not path.exists():
        clips, skipped = make()
        if not clips:
            raise ValueError(f"no clip could be used: {skipped_summary(skipped)}")
        buffer = io.BytesIO()
        np.savez(
            buffer,
            frames=np.concatenate([clip.frames for clip in clips]).astype(np.float32),
            lengths=np.array([len(clip.frames) for clip in clips]),
            labels=np.array([clip.label for clip in clips]),
            groups=np.array([clip.group for clip in clips]),
            ids=np.array([clip.id for clip in clips]),
            skipped=np.array([(skip.path, skip.reason) for skip in skipped], str).reshape(-1, 2),
        )
        write_whole(path, buffer.getvalue())
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            frames = np.split(stored["frames"], np.cumsum(stored["lengths"])[:-1])
            columns = (stored[column].tolist() for column in ("labels", "groups", "ids"))
            clips = [Clip(*fields) for fields in zip(frames, *columns, strict=True)]
            return clips, [Skipped(*map(str, row)) for row in stored["skipped"]]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"the cache file {path} is damaged ({error}): delete it, it will be made again"
        ) from error


def row_digits(seed: int = 0) -> SequenceTask:
    """Written digits read row by row: 8 rows of 8 pixels, from scikit-learn's 1,797 images.

    Each class is dealt 60 / 20 / 20 % to train, valid and test. Who wrote an image is not known:
    each is a group of its own.

    Args:
        seed: draws which images fall into which split.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    clips: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = (round(0.6 * members.size), round(0.8 * members.size))
        for split, part in zip(SPLITS, np.split(members, cuts), strict=True):
            for index in np.sort(part):
                name = f"image-{index:04d}"
                rows = images[index].reshape(8, 8).astype(np.float32)
                clips[split].append(Clip(rows, label, name, name))
    return make_task("row-digits", [str(label) for label in range(10)], clips)
