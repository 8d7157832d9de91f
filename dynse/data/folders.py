"""A corpus from plain folders of audio files.

    root/clean/<train|valid|test>/<speaker>/*      speech, in any format that libsndfile reads
    root/noise/<train|valid|test>/<class>/*        noise
    root/manifest.csv                              optional: a column "path", others as they come

Every file is decoded once into a cache (see `dynse.data.bank`); loading it again is a matter of
opening memory-mapped arrays. The cache's key is a hash of every file's relative path, size and
modification time, of manifest.csv, and of this module's version: a changed corpus is decoded anew.
Files that cannot be used are named, counted and left out.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dynse.audio.files import READ_SUFFIXES, AudioFileError, decode_audio, duration_s, to_int16
from dynse.data.bank import (
    CACHE_VERSION,
    Corpus,
    Recording,
    Skipped,
    default_cache_dir,
    load_corpus,
    save_corpus,
)

SAMPLE_RATE = 16000
SPLITS = ("train", "valid", "test")
_DECODER_VERSION = 1  # raise it when the same files would be decoded to other samples
_KIND_FOLDERS = {"speech": "clean", "noise": "noise"}
_MANIFEST = "manifest.csv"
_NAMED_IN_LOG = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _File:
    name: str  # relative to the root, with forward slashes
    group: str
    size: int
    mtime_ns: int


@dataclass
class _Findings:
    """What the decoding of a corpus comes across."""

    skipped: list[Skipped] = field(default_factory=list)
    notices: Counter[str] = field(default_factory=Counter)


def folder_corpus(
    root: str | os.PathLike,
    *,
    cache_dir: str | os.PathLike | None = None,
    name: str | None = None,
    splits: Sequence[str] = SPLITS,
    progress: bool = True,
) -> Corpus:
    """Open a folder corpus, decoding it into the cache when that was not done before.

    Args:
        root: the folder that holds clean/ and noise/.
        cache_dir: where caches lie; default `default_cache_dir()`.
        name: the corpus' name; default the folder's.
        splits: the splits that must be there.
        progress: show a progress bar while decoding.

    Returns:
        The corpus; ``skipped`` lists files left out, ``attributes`` the manifest's columns.

    Raises:
        FileNotFoundError: no such folder, a missing split, or a split without audio files; the
            message shows the expected layout.
        ValueError: no file of a split could be used, or manifest.csv has no column "path".
        OSError: the cache cannot be written; nothing is left behind.
    """
    root = Path(root)
    name = name or root.resolve().name
    files = {
        kind: {split: _list_files(root, folder, split) for split in splits}
        for kind, folder in _KIND_FOLDERS.items()
    }
    key = _cache_key(root, name, files)
    directory = Path(cache_dir or default_cache_dir()) / f"{name}-{key[:16]}"
    if not directory.exists():
        _decode_into_cache(root, directory, name, files, progress)
    corpus = load_corpus(directory)
    if corpus.skipped:
        logger.warning("%s: %s", corpus.name, skipped_summary(corpus.skipped))
    return corpus


def _list_files(root: Path, folder: str, split: str) -> list[_File]:
    """The audio files of one split, sorted by (group, name)."""
    base = root / folder / split
    if not base.is_dir():
        raise FileNotFoundError(f"no folder {base}. {_layout(root)}")
    files = []
    for folder_path, subfolders, entries in os.walk(base, followlinks=True):
        subfolders[:] = [entry for entry in subfolders if not entry.startswith(".")]
        below = Path(folder_path).relative_to(base).parts
        if not below:  # files outside of any speaker's or class' folder
            continue
        for entry in entries:
            suffix = os.path.splitext(entry)[1].lower()
            if entry.startswith(".") or suffix not in READ_SUFFIXES:
                continue
            path = os.path.join(folder_path, entry)
            # lstat for a broken link, which decoding then reports as missing
            status = os.stat(path) if os.path.exists(path) else os.lstat(path)
            name = "/".join((folder, split, *below, entry))
            files.append(_File(name, below[0], status.st_size, status.st_mtime_ns))
    if not files:
        raise FileNotFoundError(f"no audio file in a folder below {base}. {_layout(root)}")
    return sorted(files, key=lambda file: (file.group, file.name))


def _layout(root: Path) -> str:
    return (
        f"Expected {root}/clean/<split>/<speaker>/* and {root}/noise/<split>/<class>/* with the "
        f"splits {', '.join(SPLITS)} and files ending in {' '.join(sorted(READ_SUFFIXES))}"
    )


def _cache_key(root: Path, name: str, files: dict[str, dict[str, list[_File]]]) -> str:
    digest = hashlib.sha256(f"{CACHE_VERSION} {_DECODER_VERSION} {SAMPLE_RATE} {name}\n".encode())
    for kind, by_split in files.items():
        for split, listed in by_split.items():
            digest.update(f"{kind} {split}\n".encode())
            for file in listed:
                digest.update(f"{file.name}\t{file.size}\t{file.mtime_ns}\n".encode())
    manifest = root / _MANIFEST
    if manifest.exists():
        digest.update(manifest.read_bytes())
    return digest.hexdigest()


def _decode_into_cache(
    root: Path,
    directory: Path,
    name: str,
    files: dict[str, dict[str, list[_File]]],
    progress: bool,
) -> None:
    findings = _Findings()
    every = [file for by_split in files.values() for listed in by_split.values() for file in listed]
    attributes = _read_manifest(root, {file.name for file in every})
    seconds = sum(duration_s(root / file.name) for file in every)
    with _progress(f"decoding {name}", sum(file.size for file in every), progress) as advance:
        parts = {
            kind: {
                split: _decode(root, listed, findings, advance)
                for split, listed in by_split.items()
            }
            for kind, by_split in files.items()
        }
        try:
            save_corpus(
                directory,
                name=name,
                **parts,
                skipped=findings.skipped,
                attributes=attributes,
                bytes_needed=round(seconds * SAMPLE_RATE) * 2,
            )
        except ValueError as error:
            if not findings.skipped:
                raise
            raise ValueError(f"{root}: {error}; {skipped_summary(findings.skipped)}") from error
    for notice, count in findings.notices.most_common():
        logger.warning("%s: %d %s %s", name, count, "file" if count == 1 else "files", notice)


def _decode(
    root: Path, files: list[_File], findings: _Findings, advance: Callable[[int], None]
) -> Iterator[Recording]:
    """The files that can be used as recordings; the others are noted in `findings`."""
    for file in files:
        try:
            samples, notices = decode_audio(root / file.name, sample_rate=SAMPLE_RATE)
            stored = to_int16(samples)
            if not np.any(stored):
                raise AudioFileError(root / file.name, "is digital silence")
        except AudioFileError as error:
            findings.skipped.append(Skipped(file.name, error.reason))
        else:
            findings.notices.update(notices)
            yield Recording(file.name, file.group, stored)
        advance(file.size)


def _read_manifest(root: Path, names: set[str]) -> dict[str, dict[str, str]]:
    """The manifest's non-empty columns by recording name, {} where there is no manifest."""
    path = root / _MANIFEST
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or ()):
            raise ValueError(f"{path}: expected a column 'path', got {reader.fieldnames}")
        rows = {row.pop("path"): row for row in reader}
    return {
        name: {column: value for column, value in row.items() if column and value}
        for name, row in rows.items()
        if name in names
    }


@contextmanager
def _progress(description: str, total: int, enabled: bool) -> Iterator[Callable[[int], None]]:
    """A bar over bytes; yields the function that advances it."""
    if not enabled:
        yield lambda amount: None
        return
    from rich.progress import Progress

    with Progress() as bar:
        task = bar.add_task(description, total=total)
        yield lambda amount: bar.advance(task, amount)


def skipped_summary(skipped: Sequence[Skipped]) -> str:
    """One line for a log: how many files were left out, and the first 20 with their reasons.

    Args:
        skipped: files left out, at least one.

    Returns:
        For example "skipped 2 files: clean/train/a/1.wav is digital silence; ...".
    """
    shown = "; ".join(f"{skip.path} {skip.reason}" for skip in skipped[:_NAMED_IN_LOG])
    more = len(skipped) - _NAMED_IN_LOG
    plural = "file" if len(skipped) == 1 else "files"
    return f"skipped {len(skipped)} {plural}: {shown}" + (f"; and {more} more" if more > 0 else "")
