"""Corpora on disk: decoded once, found again by what they hold.

A corpus is a folder of plain ``.npy`` files, which are memory-mapped on loading, and one
``index.json``. It is written under another name and renamed when it is whole.

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
from pathlib import Path

import numpy as np

from dynse.data.bank import TRACK_HOP, Bank, Corpus, Recording, Skipped

CACHE_VERSION = 1
_KINDS = ("speech", "noise")
_INDEX = "index.json"


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
