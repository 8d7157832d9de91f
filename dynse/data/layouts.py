"""Which files are a corpus' recordings: three layouts of folders, told apart by what is there.

Our own:

    root/clean/<train|valid|test>/<speaker>/*      speech, in any format that libsndfile reads
    root/noise/<train|valid|test>/<class>/*        noise
    root/manifest.csv                              optional: a column "path", others as they come

VoiceBank+DEMAND (Valentini-Botinhao et al. 2016, 2017), given pairs of clean and noisy files:

    root/clean_trainset_28spk_wav/p226_001.wav     and noisy_..., or 56spk; 28spk where both are
    root/clean_testset_wav/p232_001.wav            and noisy_...
    root/log_trainset_28spk.txt, log_testset.txt   optional: lines "p232_001 bus 17.5"

The speakers p226 and p287 are the validation split, as is usual; where one of them is not there,
the first two by name are.

DNS Challenge (Reddy et al., Interspeech 2020), of which only the test split is given pairs:

    root/datasets/clean/**                         speaker: "reader_06709" in the name, else the
                                                   first subfolder, else each file its own
    root/datasets/noise/**                         class: the first subfolder, else "noise"
    root/datasets/test_set/synthetic/no_reverb/{clean,noisy}/*_fileid_7.wav
                                                   SNR: "snr12" in the noisy name

A twentieth of its speakers and of its noise files are the validation split, chosen by the hash of
their names, so that a file stays where it is whatever else comes or goes.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dynse.audio.files import READ_SUFFIXES
from dynse.data.bank import Skipped

SPLITS = ("train", "valid", "test")
HELD_OUT = ("p226", "p287")  # of VoiceBank: a man and a woman
VALID_SHARE = 0.05  # of the DNS Challenge
_MANIFEST = "manifest.csv"
_TRAIN_SETS = ("trainset_28spk", "trainset_56spk")
_DNS_TEST = "datasets/test_set/synthetic/no_reverb"
_LOG_ROW = re.compile(r"\s*(\S+)\s+(\S+)\s+(-?\d+(?:\.\d+)?)\s*")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioFile:
    """A file of a corpus: its name relative to the root, with forward slashes, and its group."""

    name: str
    group: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """The files of a corpus.

    Attributes:
        layout: name and version of the rules; "" for our own.
        speech: split -> files sorted by (group, name).
        noise: the same for noise; of a split of given pairs the noisy files, in the order of their
            clean ones.
        pairs: splits that are given pairs.
        attributes: name of a recording -> what else is known of it; of given pairs, under the name
            of the clean file, "noise_class" and "snr_db".
        skipped: files without a partner.
        tables: the files that the attributes were read from.
    """

    layout: str
    speech: Mapping[str, Sequence[AudioFile]]
    noise: Mapping[str, Sequence[AudioFile]]
    pairs: frozenset[str] = frozenset()
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    tables: tuple[Path, ...] = ()


def list_corpus(root: Path, splits: Sequence[str] = SPLITS) -> Listing:
    """Recognise the layout of a folder and list its files; none is opened.

    Args:
        root: the folder.
        splits: the splits that must be there.

    Raises:
        FileNotFoundError: no layout's folders, a missing one, or a split without audio files.
        ValueError: manifest.csv has no column "path".
    """
    voicebank = [f"{side}_{part}_wav" for part in _TRAIN_SETS for side in ("clean", "noisy")]
    voicebank += ["clean_testset_wav", "noisy_testset_wav"]
    for folders, layout in (
        (("clean", "noise"), _own),
        (voicebank, _voicebank),
        (("datasets/clean", "datasets/noise"), _dns_challenge),
    ):
        if any((root / folder).is_dir() for folder in folders):
            listing = layout(root, splits)
            break
    else:
        raise FileNotFoundError(f"no folder of a corpus in {root}. {_expected(root)}")
    for kind, by_split in (("speech", listing.speech), ("noise", listing.noise)):
        for split in splits:
            if not by_split.get(split):
                raise FileNotFoundError(
                    f"no audio file in {root} for the {kind} of the split {split!r}. "
                    f"{_expected(root)}"
                )
    return listing


def _expected(root: Path) -> str:
    return (
        f"Expected {root}/clean/<split>/<speaker>/* and {root}/noise/<split>/<class>/* with the "
        f"splits {', '.join(SPLITS)}; or VoiceBank+DEMAND with {root}/clean_trainset_28spk_wav/*, "
        "noisy_trainset_28spk_wav/* (or 56spk), clean_testset_wav/* and noisy_testset_wav/*; or "
        f"the DNS Challenge with {root}/datasets/clean/*, datasets/noise/* and {_DNS_TEST}/clean/*"
        f" and noisy/*; files ending in {' '.join(sorted(READ_SUFFIXES))}"
    )


def _own(root: Path, splits: Sequence[str]) -> Listing:
    def group(below: tuple[str, ...], name: str) -> str | None:
        return below[0] if below else None  # outside of any speaker's or class' folder

    speech, noise = (
        {split: _walk(root, f"{folder}/{split}", group) for split in splits}
        for folder in ("clean", "noise")
    )
    listed = [
        file.name for by_split in (speech, noise) for part in by_split.values() for file in part
    ]
    path = root / _MANIFEST
    if not path.exists():
        return Listing("", speech, noise)
    return Listing("", speech, noise, attributes=_read_manifest(path, listed), tables=(path,))


def _voicebank(root: Path, splits: Sequence[str]) -> Listing:
    def speaker(below: tuple[str, ...], name: str) -> str | None:
        return None if below else name.partition("_")[0]

    def there(part: str) -> bool:
        return any((root / f"{side}_{part}_wav").is_dir() for side in ("clean", "noisy"))

    train = next(filter(there, _TRAIN_SETS), _TRAIN_SETS[0])
    parts = {split: "testset" if split == "test" else train for split in splits}
    found, skipped, attributes, tables = {}, [], {}, []
    for part in sorted(set(parts.values())):
        clean, noisy = (_walk(root, f"{side}_{part}_wav", speaker) for side in ("clean", "noisy"))
        found[part], alone = _match(clean, noisy, lambda file: PurePosixPath(file.name).name)
        skipped += alone
        log = root / f"log_{part}.txt"
        if log.exists():
            tables.append(log)
            rows = _read_log(log)
            for file, _ in found[part]:
                stem = PurePosixPath(file.name).stem
                if stem in rows:
                    attributes[file.name] = rows[stem]
    if train in found:
        held_out = _held_out(root, {file.group for file, _ in found[train]})
        found["valid"] = [pair for pair in found[train] if pair[0].group in held_out]
        found["train"] = [pair for pair in found[train] if pair[0].group not in held_out]
    found["test"] = found.get("testset", [])
    speech, noise = (
        {split: [pair[side] for pair in found[split]] for split in splits} for side in (0, 1)
    )
    return Listing(
        "VoiceBank+DEMAND 1", speech, noise, frozenset(splits), attributes, tuple(skipped),
        tuple(tables),
    )  # fmt: skip


def _held_out(root: Path, speakers: set[str]) -> tuple[str, ...]:
    """The two training speakers that the validation split is made of."""
    if speakers.issuperset(HELD_OUT):
        return HELD_OUT
    first = tuple(sorted(speakers)[:2])
    logger.warning(
        "%s: the speakers %s are not both there; %s, the first two by name, are held out for "
        "validation", root, " and ".join(HELD_OUT), " and ".join(first),
    )  # fmt: skip
    return first


def _dns_challenge(root: Path, splits: Sequence[str]) -> Listing:
    def reader(below: tuple[str, ...], name: str) -> str:
        known = re.search(r"reader_\d+", name)
        return known[0] if known else below[0] if below else PurePosixPath(name).stem

    def noise_class(below: tuple[str, ...], name: str) -> str:
        return below[0] if below else "noise"

    def fileid(file: AudioFile) -> str:
        stem = PurePosixPath(file.name).stem
        known = re.search(r"fileid_\d+$", stem)
        return known[0] if known else stem

    speech, noise, skipped, attributes = {}, {}, [], {}
    if set(splits) - {"test"}:
        clean = _walk(root, "datasets/clean", reader)
        noises = _walk(root, "datasets/noise", noise_class)
        held_out = _share(file.group for file in clean), _share(file.name for file in noises)
        speech["train"] = [file for file in clean if file.group not in held_out[0]]
        speech["valid"] = [file for file in clean if file.group in held_out[0]]
        noise["train"] = [file for file in noises if file.name not in held_out[1]]
        noise["valid"] = [file for file in noises if file.name in held_out[1]]
    if "test" in splits:
        clean, noisy = (_walk(root, f"{_DNS_TEST}/{side}", reader) for side in ("clean", "noisy"))
        pairs, skipped = _match(clean, noisy, fileid)
        speech["test"], noise["test"] = ([pair[side] for pair in pairs] for side in (0, 1))
        for file, partner in pairs:
            snr = re.search(r"snr(-?\d+)", PurePosixPath(partner.name).name)
            if snr:
                attributes[file.name] = {"snr_db": snr[1]}
    return Listing(
        "DNS Challenge 1",
        {split: speech[split] for split in splits},
        {split: noise[split] for split in splits},
        frozenset(splits) & {"test"},
        attributes,
        tuple(skipped),
    )


def _share(names: Iterable[str]) -> set[str]:
    """About VALID_SHARE of the names, at least one: those with a small hash."""
    place = {name: int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) for name in names}
    small = {name for name, value in place.items() if value < VALID_SHARE * 2**32}
    return small or set(sorted(place, key=place.__getitem__)[:1])


def _walk(
    root: Path, folder: str, group: Callable[[tuple[str, ...], str], str | None]
) -> list[AudioFile]:
    """The audio files below a folder, sorted by (group, name).

    `group` is told the subfolders that a file lies in and its name; None leaves it out.
    """
    base = root / folder
    if not base.is_dir():
        raise FileNotFoundError(f"no folder {base}. {_expected(root)}")
    files = []
    for folder_path, subfolders, entries in os.walk(base, followlinks=True):
        subfolders[:] = [entry for entry in subfolders if not entry.startswith(".")]
        below = Path(folder_path).relative_to(base).parts
        for entry in entries:
            suffix = os.path.splitext(entry)[1].lower()
            if entry.startswith(".") or suffix not in READ_SUFFIXES:
                continue
            own_group = group(below, entry)
            if own_group is None:
                continue
            path = os.path.join(folder_path, entry)
            # lstat for a broken link, which decoding then reports as missing
            status = os.stat(path) if os.path.exists(path) else os.lstat(path)
            name = "/".join((folder, *below, entry))
            files.append(AudioFile(name, own_group, status.st_size, status.st_mtime_ns))
    return sorted(files, key=lambda file: (file.group, file.name))


def _match(
    clean: Sequence[AudioFile], noisy: Sequence[AudioFile], key: Callable[[AudioFile], str]
) -> tuple[list[tuple[AudioFile, AudioFile]], list[Skipped]]:
    """Clean and noisy files of one key, in the order of the clean ones, and those left alone."""
    partners = {key(file): file for file in noisy}
    pairs = [(file, partners.pop(key(file))) for file in clean if key(file) in partners]
    paired = {file.name for pair in pairs for file in pair}
    return pairs, [
        Skipped(file.name, f"has no {other} partner")
        for files, other in ((clean, "noisy"), (noisy, "clean"))
        for file in files
        if file.name not in paired
    ]


def _read_log(path: Path) -> dict[str, dict[str, str]]:
    """Noise class and SNR by the stem of a file; other lines are passed over."""
    matches = map(_LOG_ROW.fullmatch, path.read_text(encoding="utf-8-sig").splitlines())
    return {row[1]: {"noise_class": row[2], "snr_db": row[3]} for row in matches if row}


def _read_manifest(path: Path, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The manifest's non-empty columns by recording name."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or ()):
            raise ValueError(f"{path}: expected a column 'path', got {reader.fieldnames}")
        rows = {row.pop("path"): row for row in reader}
    listed = set(names)
    return {
        name: {column: value for column, value in row.items() if column and value}
        for name, row in rows.items()
        if name in listed
    }
