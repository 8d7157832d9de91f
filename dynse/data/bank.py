"""Recordings decoded once: banks of int16 samples, and corpora of banks.

A `Bank` holds all recordings of one kind (speech or noise) and one split back to back in one
int16 array; recording r is ``samples[offsets[r]:offsets[r + 1]]``. A `Corpus` is one bank per
split and kind; `dynse.data.cache` keeps it on disk.

A float sample x in [-1, 1] is stored as ``round(32768 x)`` limited to [-32768, 32767] and read
back as ``q / 32768``, so 16-bit files survive unchanged and the error of others is at most half a
step, 2^-16 (a whole step at x = 1); see `dynse.audio.files.to_int16`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

TRACK_HOP = 80  # samples of 16 kHz per value of a track: 5 ms


@dataclass(frozen=True)
class Skipped:
    """A file left out of a corpus: its path relative to the corpus' root, and why."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording on its way into a cache.

    Attributes:
        name: unique within its bank; for a file its relative path with forward slashes.
        group: speaker id or noise class.
        samples: (n,) int16, n >= 1.
        tracks: ground truth every 80 samples, each (n // 80,); n is a multiple of 80 where any.
    """

    name: str
    group: str
    samples: np.ndarray
    tracks: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Bank:
    """Recordings of one kind and one split, sorted by (group, name).

    Attributes:
        samples: (N,) int16 at 16 kHz, recordings back to back; memory-mapped when loaded.
        offsets: (R + 1,) int64; recording r is ``samples[offsets[r]:offsets[r + 1]]``.
        names: R unique names.
        groups: R speaker ids or noise classes.
        tracks: optional ground truth every 80 samples (5 ms), each (N // 80,): "f0_hz" float32
            (0 = unvoiced), "voice" bool. Recording r's part is
            ``track[offsets[r] // 80:offsets[r + 1] // 80]``.
    """

    samples: np.ndarray
    offsets: np.ndarray
    names: tuple[str, ...]
    groups: tuple[str, ...]
    tracks: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.names)
        if self.samples.dtype != np.int16 or self.samples.ndim != 1:
            raise ValueError(
                f"samples must be (N,) int16, got {self.samples.shape} {self.samples.dtype}"
            )
        if len(self.groups) != count or self.offsets.shape != (count + 1,):
            raise ValueError(
                f"{count} names need as many groups and one more offset, "
                f"got {len(self.groups)} groups and offsets of shape {self.offsets.shape}"
            )
        if len(set(self.names)) != count:
            raise ValueError("names must be unique")
        if self.offsets[0] != 0 or np.any(np.diff(self.offsets) <= 0):
            raise ValueError("offsets must start at 0 and rise")
        if self.offsets[-1] != self.samples.shape[0]:
            raise ValueError(f"offsets end at {self.offsets[-1]} of {self.samples.shape[0]}")
        keys = list(zip(self.groups, self.names, strict=True))
        if keys != sorted(keys):
            raise ValueError("recordings must be sorted by (group, name)")
        for name, track in self.tracks.items():
            if np.any(self.offsets % TRACK_HOP) or len(track) != self.offsets[-1] // TRACK_HOP:
                raise ValueError(
                    f"track {name!r} needs recordings of whole {TRACK_HOP} samples and one value "
                    f"for each, got {len(track)} values for {self.offsets[-1]} samples"
                )

    def __len__(self) -> int:
        return len(self.names)

    def recording(self, index: int) -> np.ndarray:
        """Recording `index` as (n,) float32 in [-1, 1)."""
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        return self.samples[start:stop].astype(np.float32) / np.float32(32768)

    def length(self, index: int) -> int:
        """Samples of recording `index`."""
        return int(self.offsets[index + 1] - self.offsets[index])

    def index_of(self, name: str) -> int:
        """The index of the recording called `name`; raises KeyError naming it."""
        if name not in self._positions:
            raise KeyError(f"no recording {name!r} among the {len(self)} of this bank")
        return self._positions[name]

    def group_spans(self) -> dict[str, tuple[int, int]]:
        """For each group, in order, the range [start, stop) of its samples: without a gap."""
        spans: dict[str, tuple[int, int]] = {}
        for index, group in enumerate(self.groups):
            start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
            spans[group] = (spans.get(group, (start, stop))[0], stop)
        return spans

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}


@dataclass(frozen=True, eq=False)
class Corpus:
    """Speech and noise by split.

    Attributes:
        name: "synthetic", "dynse-mini" or the folder's name.
        fingerprint: SHA-256 (hex) over names, groups, samples and tracks of all banks.
        speech: split -> Bank, groups are speakers.
        noise: split -> Bank, groups are noise classes.
        skipped: files that were left out, with the reason.
        attributes: recording name -> what else is known of it (gender, upstream corpus, ...).
        pairs: splits whose noise was given with the speech. Recording r of their noise lies under
            recording r of their speech, sample by sample, and has its name and its group; the
            noise's class is the attribute "noise_class" of that name, where it is known.
    """

    name: str
    fingerprint: str
    speech: Mapping[str, Bank]
    noise: Mapping[str, Bank]
    skipped: tuple[Skipped, ...] = ()
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pairs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for split in self.pairs:
            speech, noise = self.speech[split], self.noise[split]
            if (speech.names, speech.groups) != (noise.names, noise.groups) or not np.array_equal(
                speech.offsets, noise.offsets
            ):
                raise ValueError(
                    f"the noise of the given pairs of split {split!r} must have the names, groups "
                    f"and lengths of their speech, got {len(noise)} recordings for {len(speech)}"
                )

    def noise_class(self, split: str, index: int) -> str:
        """Class of a recording of noise: its group, but "noise" of a pair of unknown class."""
        bank = self.noise[split]
        if split not in self.pairs:
            return bank.groups[index]
        return self.attributes.get(bank.names[index], {}).get("noise_class", "noise")
