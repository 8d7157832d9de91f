"""A corpus from a folder of audio files, in one of the layouts of `dynse.data.layouts`.

Every file is decoded once into a cache (see `dynse.data.cache`); loading it again is a matter of
opening memory-mapped arrays. The cache's key is a hash of every file's relative path, size and
modification time, of the tables beside them, of the layout and of this module's version: a changed
corpus is decoded anew. Files that cannot be used are named, counted and left out.

Of a given pair of a clean and a noisy file, the noise is

    noise[n] = noisy[n] - clean[n],

both decoded and rounded to int16 before, so that clean and noise add up to the noisy file exactly;
where the difference passes the range of int16 it is limited to that, with a notice. (A file that
resampling takes past full scale is scaled down by itself, with a notice as well.) The noise is kept
under the name and the group of the clean file. A pair of two lengths, or without any noise, cannot
be used.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dynse.audio.files import AudioFileError, decode_audio, duration_s, to_int16
from dynse.data.bank import Corpus, Recording, Skipped
from dynse.data.cache import CACHE_VERSION, default_cache_dir, load_corpus, save_corpus
from dynse.data.layouts import SPLITS, AudioFile, Listing, list_corpus

SAMPLE_RATE = 16000
_DECODER_VERSION = 1  # raise it when the same files would be decoded to other samples
_NAMED_IN_LOG = 20

logger = logging.getLogger(__name__)


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
        root: the folder, in one of the layouts.
        cache_dir: where caches lie; default `default_cache_dir()`.
        name: the corpus' name; default the folder's.
        splits: the splits that must be there.
        progress: show a progress bar while decoding.

    Returns:
        The corpus; ``skipped`` lists files left out, ``attributes`` what the tables say.

    Raises:
        FileNotFoundError: no such folder, a missing split, or a split without audio files; the
            message shows the layouts.
        ValueError: no file of a split could be used, or manifest.csv has no column "path".
        OSError: the cache cannot be written; nothing is left behind.
    """
    root = Path(root)
    name = name or root.resolve().name
    listing = list_corpus(root, splits)
    key = _cache_key(name, listing)
    directory = Path(cache_dir or default_cache_dir()) / f"{name}-{key[:16]}"
    if not directory.exists():
        _decode_into_cache(root, directory, name, listing, progress)
    corpus = load_corpus(directory)
    if corpus.skipped:
        logger.warning("%s: %s", corpus.name, skipped_summary(corpus.skipped))
    return corpus


def _cache_key(name: str, listing: Listing) -> str:
    digest = hashlib.sha256(f"{CACHE_VERSION} {_DECODER_VERSION} {SAMPLE_RATE} {name}\n".encode())
    digest.update(listing.layout.encode())
    for kind, by_split in (("speech", listing.speech), ("noise", listing.noise)):
        for split, files in by_split.items():
            digest.update(f"{kind} {split}\n".encode())
            for file in files:
                digest.update(f"{file.name}\t{file.size}\t{file.mtime_ns}\n".encode())
    for table in listing.tables:
        digest.update(table.read_bytes())
    return digest.hexdigest()


def _decode_into_cache(
    root: Path, directory: Path, name: str, listing: Listing, progress: bool
) -> None:
    findings = _Findings(skipped=list(listing.skipped))
    banks = {"speech": listing.speech, "noise": listing.noise}
    every = [file for by_split in banks.values() for files in by_split.values() for file in files]
    seconds = sum(duration_s(root / file.name) for file in every)
    with _progress(f"decoding {name}", sum(file.size for file in every), progress) as advance:

        def decode(kind: str, split: str) -> Iterator[Recording]:
            if split in listing.pairs:
                pairs = zip(listing.speech[split], listing.noise[split], strict=True)
                return _decode_pairs(root, pairs, kind, findings, advance)
            return _decode(root, banks[kind][split], findings, advance)

        try:
            save_corpus(
                directory,
                name=name,
                speech={split: decode("speech", split) for split in listing.speech},
                noise={split: decode("noise", split) for split in listing.noise},
                pairs=listing.pairs,
                skipped=findings.skipped,
                attributes=listing.attributes,
                bytes_needed=round(seconds * SAMPLE_RATE) * 2,
            )
        except ValueError as error:
            if not findings.skipped:
                raise
            raise ValueError(f"{root}: {error}; {skipped_summary(findings.skipped)}") from error
    for notice, count in findings.notices.most_common():
        logger.warning("%s: %d %s %s", name, count, "file" if count == 1 else "files", notice)


def _decode(
    root: Path, files: Sequence[AudioFile], findings: _Findings, advance: Callable[[int], None]
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


def _decode_pairs(
    root: Path,
    pairs: Iterable[tuple[AudioFile, AudioFile]],
    kind: str,
    findings: _Findings,
    advance: Callable[[int], None],
) -> Iterator[Recording]:
    """One side of given pairs of (clean, noisy) files, "speech" or "noise".

    The cache takes all speech before all noise, so a pair is decoded once for each; what is found
    is noted with the speech.
    """
    for clean_file, noisy_file in pairs:
        try:
            clean, noise, notices = _decode_pair(root / clean_file.name, root / noisy_file.name)
        except AudioFileError as error:
            if kind == "speech":
                path = error.path.relative_to(root).as_posix()
                findings.skipped.append(Skipped(path, error.reason))
        else:
            if kind == "speech":
                findings.notices.update(notices)
            samples = clean if kind == "speech" else noise
            yield Recording(clean_file.name, clean_file.group, samples)
        advance((clean_file if kind == "speech" else noisy_file).size)


def _decode_pair(
    clean_path: Path, noisy_path: Path
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Clean and noise of a pair, each (n,) int16, and what was done to the two files."""
    clean, clean_notices = decode_audio(clean_path, sample_rate=SAMPLE_RATE)
    noisy, noisy_notices = decode_audio(noisy_path, sample_rate=SAMPLE_RATE)
    if clean.size != noisy.size:
        raise AudioFileError(
            noisy_path, f"has {noisy.size} samples, its clean file has {clean.size}"
        )
    clean = to_int16(clean)
    if not np.any(clean):
        raise AudioFileError(clean_path, "is digital silence")
    difference = to_int16(noisy).astype(np.int32) - clean
    if not np.any(difference):
        raise AudioFileError(noisy_path, "holds no noise: it equals its clean file")
    noise = np.clip(difference, -32768, 32767).astype(np.int16)
    limited = ("noise limited to full scale",) if np.any(noise != difference) else ()
    return clean, noise, (*clean_notices, *noisy_notices, *limited)


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
