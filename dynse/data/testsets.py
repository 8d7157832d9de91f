"""Fixed test sets: which recordings, which samples, which SNR, written down once.

A mixture is made from int16 recordings s_i and v:

    clean[n] = g * speech[n],   speech = s_1[a_1:b_1], 0.2 s of zeros, s_2[a_2:b_2], ...
    noise[n] = h * v[(offset + n) mod length(v)]
    noisy    = clean + noise

Each piece of speech fades in and out over 10 ms (raised cosine), so that neither a cut nor a
joint clicks. g sets the level of clean over its active frames to `level_db`; h sets

    snr_db = active_level_db(clean) - active_level_db(noise),

the one rule for active speech applied to both, so that pauses in the speech and silence padded to
a noise event count on neither side. Where a peak of noisy, clean or noise would pass 0.99, all
three are scaled down together. Arithmetic is float64, the results are float32, and noisy is their
float32 sum. Gains are rounded to float32 before use, so that the last bit of a logarithm, which
may differ between machines, does not reach the samples.

A given pair has no `level_db`: clean and noise are one recording each, as recorded, without fades
and gains, and noisy is the file that they were taken from.

The CSV holds names and numbers only. Its first line carries the SHA-256 of the rest, checked on
reading; each mixture carries a CRC-32 of the int16 samples it uses, checked on rendering, so that
a corpus that differs is refused rather than scored.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dynse.atomic import write_whole
from dynse.audio.activity import active_level_db
from dynse.data.bank import Bank, Corpus

SAMPLE_RATE = 16000
GAP = 3200  # zeros between two pieces of speech: 0.2 s
FADE = 160  # samples of a piece's fade in and out: 10 ms
PEAK = 0.99
SILENCE_DB = -90.0  # what has no active frame above this cannot be set to a level
_HEADER = "# dynse test set 1"
_COLUMNS = (
    "id", "speech", "speech_ranges", "noise", "noise_offset", "snr_db", "level_db", "crc32",
)  # fmt: skip


@dataclass(frozen=True)
class MixtureSpec:
    """One mixture of a test set.

    Attributes:
        id: unique within the set, for example "test-017".
        split: where its recordings are taken from.
        speech: names of the recordings that are joined, all of one speaker.
        speech_ranges: [start, stop) in samples, one for each of them.
        noise: name of the noise recording, looped where it is shorter than the mixture.
        noise_offset: its first sample that is used, 0 <= noise_offset < its length.
        snr_db: active level of clean minus active level of noise; of a given pair what its corpus
            says.
        level_db: active level of clean in dBFS, before a scaling for the peak; None as recorded.
        crc32: checksum (8 hex digits) over the int16 samples of all pieces and of the noise.
    """

    id: str
    split: str
    speech: tuple[str, ...]
    speech_ranges: tuple[tuple[int, int], ...]
    noise: str
    noise_offset: int
    snr_db: float
    level_db: float | None
    crc32: str

    def __post_init__(self) -> None:
        if self.level_db is None and len(self.speech) != 1:
            raise ValueError(
                f"{self.id}: without a level it is one recording as it is, got {len(self.speech)}"
            )

    @property
    def length(self) -> int:
        """Samples of the mixture, gaps included."""
        return sum(b - a for a, b in self.speech_ranges) + GAP * (len(self.speech_ranges) - 1)


@dataclass(frozen=True)
class TestSet:
    """A fixed list of mixtures.

    Attributes:
        name: "dynse-mini-test-v1".
        corpus: the name of the corpus it was drawn from.
        split: that corpus' split.
        mixtures: the mixtures.
    """

    name: str
    corpus: str
    split: str
    mixtures: tuple[MixtureSpec, ...]

    def __len__(self) -> int:
        return len(self.mixtures)

    def __iter__(self) -> Iterator[MixtureSpec]:
        return iter(self.mixtures)

    @property
    def sha256(self) -> str:
        """The hash that its CSV carries."""
        return hashlib.sha256(_body(self).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Mixture:
    """A rendered mixture; noisy, clean and noise are (N,) float32, noisy = clean + noise."""

    id: str
    noisy: np.ndarray
    clean: np.ndarray
    noise: np.ndarray
    snr_db: float
    noise_class: str
    speaker: str
    sample_rate: int = SAMPLE_RATE


def render(spec: MixtureSpec, corpus: Corpus) -> Mixture:
    """The samples of one mixture: the same bytes whenever spec and corpus are the same.

    Args:
        spec: the mixture.
        corpus: holds its recordings in the split ``spec.split``.

    Returns:
        The mixture.

    Raises:
        KeyError: the corpus lacks the split or a recording.
        ValueError: the corpus' samples are not those that the mixture was made from, or speech or
            noise is silent.
    """
    speech_bank = _bank(corpus.speech, spec.split, corpus.name)
    noise_bank = _bank(corpus.noise, spec.split, corpus.name)
    indices = [speech_bank.index_of(name) for name in spec.speech]
    noise_index = noise_bank.index_of(spec.noise)
    pieces = cut(speech_bank, indices, spec.speech_ranges)
    looped = loop(noise_bank, noise_index, spec.noise_offset, spec.length)
    if checksum(pieces, looped) != spec.crc32:
        raise ValueError(
            f"{spec.id}: the samples of {', '.join(spec.speech)} or {spec.noise} in the corpus "
            f"{corpus.name!r} are not those that the test set was drawn from"
        )
    if spec.level_db is None:
        # Exact: the sum of two int16 numbers fits into float32.
        clean, noise = (part / np.float32(32768) for part in (pieces[0], looped))
    else:
        clean, noise = _at_level(spec, spec.level_db, join(pieces), looped / 32768.0)
    return Mixture(
        id=spec.id,
        noisy=clean + noise,
        clean=clean,
        noise=noise,
        snr_db=spec.snr_db,
        noise_class=corpus.noise_class(spec.split, noise_index),
        speaker=speech_bank.groups[indices[0]],
    )


def cut(
    bank: Bank, indices: list[int], ranges: tuple[tuple[int, int], ...]
) -> tuple[np.ndarray, ...]:
    """The pieces [start, stop) of the recordings `indices`, each (n,) int16."""
    pieces = []
    for index, (start, stop) in zip(indices, ranges, strict=True):
        if not 0 <= start < stop <= bank.length(index):
            raise ValueError(
                f"[{start}, {stop}) lies outside of {bank.names[index]}, "
                f"which has {bank.length(index)} samples"
            )
        first = int(bank.offsets[index])
        pieces.append(np.asarray(bank.samples[first + start : first + stop]))
    return tuple(pieces)


def join(pieces: tuple[np.ndarray, ...]) -> np.ndarray:
    """int16 pieces, faded and joined with gaps of zeros: (N,) float64 in [-1, 1)."""
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(FADE) + 0.5) / FADE)
    parts: list[np.ndarray] = []
    for piece in pieces:
        faded = piece / 32768.0
        edge = min(FADE, faded.size)
        faded[:edge] *= ramp[:edge]
        faded[-edge:] *= ramp[:edge][::-1]
        parts += [np.zeros(GAP), faded] if parts else [faded]
    return np.concatenate(parts)


def loop(bank: Bank, index: int, offset: int, length: int) -> np.ndarray:
    """`length` int16 samples of recording `index` from `offset` on, starting over at its end."""
    if not 0 <= offset < bank.length(index):
        raise ValueError(
            f"the offset {offset} lies outside of {bank.names[index]}, "
            f"which has {bank.length(index)} samples"
        )
    positions = (offset + np.arange(length)) % bank.length(index)
    return np.asarray(bank.samples[int(bank.offsets[index]) + positions])


def checksum(pieces: tuple[np.ndarray, ...], noise: np.ndarray) -> str:
    """CRC-32 over the samples of a mixture, 8 hex digits."""
    crc = 0
    for part in (*pieces, noise):
        crc = zlib.crc32(np.ascontiguousarray(part, dtype="<i2").data, crc)
    return f"{crc:08x}"


def write_csv(test_set: TestSet, path: str | os.PathLike) -> None:
    """Write a test set, whole or not at all, with its hash in the first line."""
    write_whole(path, f"{_HEADER} sha256={test_set.sha256}\n{_body(test_set)}")


def read_csv(path: str | os.PathLike) -> TestSet:
    """Read a test set.

    Raises:
        ValueError: not a test set of this version, or changed since it was written.
    """
    text = Path(path).read_text(encoding="utf-8").replace("\r\n", "\n")
    header, _, body = text.partition("\n")
    if not header.startswith(f"{_HEADER} sha256="):
        raise ValueError(f"{path}: expected a first line '{_HEADER} sha256=...', got {header!r}")
    expected = header.partition("sha256=")[2]
    found = hashlib.sha256(body.encode()).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} was changed: its first line says sha256 {expected}, its content has {found}"
        )
    about, _, table = body.partition("\n")
    name, corpus, split = (field.partition("=")[2] for field in about[2:].split(","))
    mixtures = tuple(
        MixtureSpec(
            id=row["id"],
            split=split,
            speech=tuple(row["speech"].split(";")),
            speech_ranges=tuple(_parse_range(part) for part in row["speech_ranges"].split(";")),
            noise=row["noise"],
            noise_offset=int(row["noise_offset"]),
            snr_db=float(row["snr_db"]),
            level_db=float(row["level_db"]) if row["level_db"] else None,
            crc32=row["crc32"],
        )
        for row in csv.DictReader(io.StringIO(table))
    )
    return TestSet(name, corpus, split, mixtures)


def _body(test_set: TestSet) -> str:
    """Everything after the CSV's first line."""
    about = (test_set.name, test_set.corpus, test_set.split)
    for text in (*about, *(name for spec in test_set for name in spec.speech)):
        if any(mark in text for mark in ";,\n"):
            raise ValueError(f"names in a test set must not hold ';', ',' or line ends: {text!r}")
    out = io.StringIO()
    out.write("# name={},corpus={},split={}\n".format(*about))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for spec in test_set:
        writer.writerow((
            spec.id,
            ";".join(spec.speech),
            ";".join(f"{start}-{stop}" for start, stop in spec.speech_ranges),
            spec.noise,
            spec.noise_offset,
            f"{spec.snr_db:g}",
            "" if spec.level_db is None else f"{spec.level_db:.2f}",
            spec.crc32,
        ))  # fmt: skip
    return out.getvalue()


def _parse_range(text: str) -> tuple[int, int]:
    start, stop = text.split("-")
    return int(start), int(stop)


def _bank(banks: Mapping[str, Bank], split: str, corpus: str) -> Bank:
    if split not in banks:
        raise KeyError(f"the corpus {corpus!r} has the splits {sorted(banks)}, not {split!r}")
    return banks[split]


def _at_level(
    spec: MixtureSpec, level_db: float, speech: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noise (N,) float32 at their levels, or below them where a peak needs it."""
    speech_gain = _gain(level_db, speech, spec)
    noise_gain = _gain(level_db - spec.snr_db, noise, spec)
    peak = max(
        np.max(np.abs(signal))
        for signal in (
            speech_gain * speech + noise_gain * noise,
            speech_gain * speech,
            noise_gain * noise,
        )
    )
    scale = float(np.float32(min(1.0, PEAK / peak)))
    clean = (scale * speech_gain * speech).astype(np.float32)
    return clean, (scale * noise_gain * noise).astype(np.float32)


def _gain(level_db: float, signal: np.ndarray, spec: MixtureSpec) -> float:
    """What brings the active level of `signal` to `level_db`, rounded to float32."""
    level = float(active_level_db(signal))
    if level < SILENCE_DB:
        raise ValueError(f"{spec.id}: speech or noise is silent ({level:.1f} dBFS)")
    return float(np.float32(10 ** ((level_db - level) / 20)))
