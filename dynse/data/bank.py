"""Recordings decoded once: banks of int16 samples, and their cache on disk.

A `Bank` holds all recordings of one kind (speech or noise) and one split back to back in one
int16 array; recording r is ``samples[offsets[r]:offsets[r + 1]]``. A `Corpus` is one bank per
split and kind. On disk a corpus is a folder of plain ``.npy`` files, which are memory-mapped on
loading, and one ``index.json``.

A float sample x in [-1, 1] is stored as ``round(32768 x)`` limited to [-32768, 32767] and read
back as ``q / 32768``, so 16-bit files survive unchanged and the error of others is at most half a
step, 2^-16 (a whole step at x = 1); see `dynse.audio.files.to_int16`.

A corpus' fingerprint is the SHA-256 over every bank's names, groups, samples and tracks: it says
what a model was trained on wherever the cache lay and however the recordings came about.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

CACHE_VERSION = 1
TRACK_HOP = 80  # samples of 16 kHz per value of a track: 5 ms
_KINDS = ("speech", "noise")
_INDEX = "index.json"


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


def default_cache_dir() -> Path:
    """$DYNSE_CACHE, else $XDG_CACHE_HOME/dynse, else ~/.cache/dynse."""
    if os.environ.get("DYNSE_CACHE"):
        return Path(os.environ["DYNSE_CACHE"])
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "dynse"
    return Path.home() / ".cache" / "dynse"


def save_corpus(
    directory: str | os.PathLike,
    *,
    name: str,
    speech: Mapping[str, Iterable[Recording]],
    noise: Mapping[str, Iterable[Recording]],
    skipped: Iterable[Skipped] = (),
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    pairs: Iterable[str] = (),
    bytes_needed: int | None = None,
) -> None:
    """Write a corpus' cache folder, whole or not at all.

    It is built beside `directory` and renamed when complete. Recordings are taken one at a time,
    so generators keep memory small; `skipped` and `attributes` are read after the last recording,
    so that a generator may add to them. If another process finished the same folder meanwhile,
    that one stays.

    Args:
        directory: the cache folder to make; its parent is created.
        name: the corpus' name.
        speech: split -> recordings sorted by (group, name).
        noise: the same for noise.
        skipped: files left out.
        attributes: recording name -> further columns.
        pairs: splits whose noise was given with the speech, recording by recording.
        bytes_needed: expected size, checked against the free space before anything is written.

    Raises:
        ValueError: a bank without recordings, recordings out of order or ill-formed.
        OSError: no space left (names folder and bytes needed) or not writable. Nothing stays.
    """
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(directory)
    free = shutil.disk_usage(directory.parent).free
    if bytes_needed is not None and bytes_needed > free:
        raise _no_space(directory, bytes_needed, free)
    build = directory.parent / f".building-{directory.name}-{socket.gethostname()}-{os.getpid()}"
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir()
    try:
        digest = hashlib.sha256()
        banks = {
            kind: {
                split: _write_bank(build, f"{kind}-{split}", recordings, digest)
                for split, recordings in sorted(by_split.items())
            }
            for kind, by_split in zip(_KINDS, (speech, noise), strict=True)
        }
        index = {
            "version": CACHE_VERSION,
            "name": name,
            "fingerprint": digest.hexdigest(),
            "banks": banks,
            "skipped": [[skip.path, skip.reason] for skip in skipped],
            "attributes": {key: dict(value) for key, value in (attributes or {}).items()},
            "pairs": sorted(pairs),
        }
        (build / _INDEX).write_text(json.dumps(index), encoding="utf-8")
        try:
            os.replace(build, directory)
        except OSError:
            if not (directory / _INDEX).exists():
                raise
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        written = sum(file.stat().st_size for file in build.iterdir())
        need = bytes_needed if bytes_needed is not None else written + 1
        free = shutil.disk_usage(directory.parent).free
        raise _no_space(directory, need, free, written) from error
    finally:
        shutil.rmtree(build, ignore_errors=True)


def load_corpus(directory: str | os.PathLike) -> Corpus:
    """Open a cache folder; samples and tracks are memory-mapped, read-only.

    Raises:
        FileNotFoundError: there is no cache in `directory`.
        ValueError: it was written by another version or its files do not fit together.
    """
    directory = Path(directory)
    path = directory / _INDEX
    if not path.exists():
        raise FileNotFoundError(f"no corpus cache in {directory}: {_INDEX} is missing")
    index = json.loads(path.read_text(encoding="utf-8"))
    if index.get("version") != CACHE_VERSION:
        raise ValueError(
            f"the corpus cache {directory} has version {index.get('version')}, "
            f"expected {CACHE_VERSION}: delete the folder, it will be made again"
        )
    try:
        speech, noise = (
            {
                split: _read_bank(directory, f"{kind}-{split}", entry)
                for split, entry in index["banks"][kind].items()
            }
            for kind in _KINDS
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the corpus cache {directory} is damaged ({error}): delete the folder, "
            "it will be made again"
        ) from error
    return Corpus(
        name=index["name"],
        fingerprint=index["fingerprint"],
        speech=speech,
        noise=noise,
        skipped=tuple(Skipped(*entry) for entry in index["skipped"]),
        attributes=index["attributes"],
        pairs=frozenset(index.get("pairs", ())),  # caches made before there were any lack it
    )


def _write_bank(build: Path, stem: str, recordings: Iterable[Recording], digest) -> dict:
    """Write one bank's arrays into `build`; return its entry for the index."""
    names: list[str] = []
    groups: list[str] = []
    lengths: list[int] = []
    tracks: dict[str, list[np.ndarray]] = {}
    digest.update(f"{stem}\n".encode())
    with open(build / f"{stem}.npy", "wb") as file:
        header_length = _write_header(file, np.dtype(np.int16), 0)
        for recording in recordings:
            samples = np.ascontiguousarray(recording.samples)
            if samples.dtype != np.int16 or samples.ndim != 1 or samples.size == 0:
                raise ValueError(
                    f"{recording.name}: samples must be (n,) int16 with n >= 1, "
                    f"got {samples.shape} {samples.dtype}"
                )
            key = (recording.group, recording.name)
            if names and (groups[-1], names[-1]) >= key:
                raise ValueError(f"recordings of {stem} are not sorted by (group, name) at {key}")
            if names and set(recording.tracks) != set(tracks):
                raise ValueError(
                    f"{recording.name}: expected the tracks {sorted(tracks)}, "
                    f"got {sorted(recording.tracks)}"
                )
            digest.update(f"{recording.group}\t{recording.name}\t{samples.size}\n".encode())
            digest.update(samples.data)
            for track, values in sorted(recording.tracks.items()):
                values = np.ascontiguousarray(values)
                if values.shape != (samples.size / TRACK_HOP,):
                    raise ValueError(
                        f"{recording.name}: {samples.size} samples need {TRACK_HOP} to each value "
                        f"of track {track!r}, got {values.shape}"
                    )
                digest.update(values.data)
                tracks.setdefault(track, []).append(values)
            file.write(samples.data)
            names.append(recording.name)
            groups.append(recording.group)
            lengths.append(samples.size)
        if not names:
            raise ValueError(f"no recording for {stem}")
        file.seek(0)
        if _write_header(file, np.dtype(np.int16), sum(lengths)) != header_length:
            raise RuntimeError("the .npy header changed its length")
    for track, parts in tracks.items():
        np.save(build / f"{stem}.{track}.npy", np.concatenate(parts))
    return {"names": names, "groups": groups, "lengths": lengths, "tracks": sorted(tracks)}


def _write_header(file, dtype: np.dtype, length: int) -> int:
    """Write a .npy header for (length,); NumPy pads it so that the length may grow in place."""
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _read_bank(directory: Path, stem: str, entry: Mapping) -> Bank:
    return Bank(
        samples=np.load(directory / f"{stem}.npy", mmap_mode="r"),
        offsets=np.concatenate([[0], np.cumsum(entry["lengths"])]).astype(np.int64),
        names=tuple(entry["names"]),
        groups=tuple(entry["groups"]),
        tracks={
            track: np.load(directory / f"{stem}.{track}.npy", mmap_mode="r")
            for track in entry["tracks"]
        },
    )


def _remove_leftovers(directory: Path) -> None:
    """Remove what killed processes of this host left half built for the same folder."""
    prefix = f".building-{directory.name}-{socket.gethostname()}-"
    for leftover in directory.parent.glob(f"{prefix}*"):
        pid = leftover.name.removeprefix(prefix)
        if pid.isdigit() and not _is_running(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_running(pid: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 is not a question but ends the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _no_space(directory: Path, needed: int, free: int, written: int = 0) -> OSError:
    needs = f"at least {needed}" if written else f"{needed}"
    return OSError(
        errno.ENOSPC,
        f"no space left for the corpus cache {directory}: it needs {needs} bytes, {written} were "
        f"written and {free} are free. Make room or set DYNSE_CACHE to a folder on a larger disk",
    )
