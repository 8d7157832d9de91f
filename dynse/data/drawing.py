"""Drawing a fixed test set from a corpus: who speaks, over what, at which SNR; or given pairs.

Speakers and noise classes are dealt, not sampled: after i of n mixtures a group with quota q has
had about q i / n of them, so groups are used equally often at every SNR and overall. Recordings
within a group take turns. Everything hangs on the seed and on sorted names alone.

Speech: a recording longer than `max_s` is cropped at a drawn offset; shorter ones of the same
speaker are joined whole until there are `min_s`, and the last is cropped only where the whole
would pass `max_s`. A speaker who has less than `min_s` altogether is repeated. Noise shorter than
the mixture is looped. A cut that falls into a recording's own pause (its active level more than
20 dB below the recording's) is drawn again.

Given pairs are taken whole, as recorded; where not all are wanted, speakers take turns.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dynse.audio.activity import active_level_db
from dynse.data.bank import Bank, Corpus
from dynse.data.testsets import GAP, SAMPLE_RATE, MixtureSpec, TestSet, checksum, cut, loop

SNRS_DB = (-5, 0, 5, 10, 15)
_TRIES = 50
_PAUSE_DB = 20.0
_MIN_PIECE = SAMPLE_RATE // 2  # a cropped last piece is at least half a second


def make_test_set(
    corpus: Corpus,
    split: str,
    *,
    name: str,
    seed: int,
    snrs_db: Sequence[float] = SNRS_DB,
    per_snr: int = 42,
    min_s: float = 6.0,
    max_s: float = 8.0,
    level_db: tuple[float, float] = (-35.0, -20.0),
    limits: Mapping[str, float] | None = None,
) -> TestSet:
    """Draw a test set.

    Args:
        corpus: where the recordings are.
        split: which split.
        name: the test set's name.
        seed: the same seed and corpus give the same test set.
        snrs_db: SNR over active speech; each gets `per_snr` mixtures.
        per_snr: mixtures at each SNR.
        min_s: shortest mixture in seconds.
        max_s: longest mixture in seconds.
        level_db: range of the active level of clean in dBFS, drawn uniformly.
        limits: beginning of speakers' names -> largest share of the mixtures that they may have
            together, for example {"emodb-": 0.2}.

    Returns:
        The test set, ``per_snr`` mixtures for each SNR in turn.

    Raises:
        KeyError: the corpus lacks the split.
        ValueError: lengths out of order, or limits that cannot be kept.
    """
    room = (GAP + _MIN_PIECE) / SAMPLE_RATE  # for a last piece that is cropped
    if not 0 < min_s <= max_s - room:
        raise ValueError(f"expected 0 < min_s <= max_s - {room}, got {min_s} and {max_s}")
    if split not in corpus.speech or split not in corpus.noise:
        raise KeyError(f"the corpus {corpus.name!r} lacks the split {split!r}")
    speech, noise = corpus.speech[split], corpus.noise[split]
    rng = np.random.Generator(np.random.PCG64(seed))
    total = per_snr * len(snrs_db)
    speakers = _deal(_quotas(sorted(set(speech.groups)), total, limits or {}, rng))
    classes = _deal(_quotas(sorted(set(noise.groups)), total, {}, rng))
    turns = {"speech": _turns(speech, rng), "noise": _turns(noise, rng)}
    shortest, longest = round(min_s * SAMPLE_RATE), round(max_s * SAMPLE_RATE)

    mixtures = []
    for block, snr_db in enumerate(snrs_db):
        first = block * per_snr
        # shuffled within the SNR, so that equal numbers of speakers and classes do not lock
        order = first + rng.permutation(per_snr)
        for position in range(per_snr):
            turn = turns["speech"][speakers[first + position]]
            indices, ranges = _draw_speech(speech, turn, shortest, longest, rng)
            length = sum(stop - start for start, stop in ranges) + GAP * (len(ranges) - 1)
            noise_index = next(turns["noise"][classes[order[position]]])
            offset = _draw_noise_offset(noise, noise_index, length, rng)
            pieces = cut(speech, indices, ranges)
            mixtures.append(
                MixtureSpec(
                    id=f"{split}-{len(mixtures):03d}",
                    split=split,
                    speech=tuple(speech.names[index] for index in indices),
                    speech_ranges=ranges,
                    noise=noise.names[noise_index],
                    noise_offset=offset,
                    snr_db=float(snr_db),
                    level_db=round(float(rng.uniform(*level_db)), 2),
                    crc32=checksum(pieces, loop(noise, noise_index, offset, length)),
                )
            )
    return TestSet(name, corpus.name, split, tuple(mixtures))


def pair_test_set(
    corpus: Corpus, split: str, *, name: str, seed: int, count: int | None = None
) -> TestSet:
    """Given pairs of a corpus as a test set.

    The SNR is the one that the corpus tells, else the one over active frames in whole dB, so that
    scores can be told apart by it.

    Args:
        corpus: where the recordings are.
        split: a split of given pairs.
        name: the test set's name.
        seed: of the choice.
        count: how many, spread over the speakers, or all there are; None for all.

    Raises:
        ValueError: the split is not one of given pairs.
    """
    if split not in corpus.pairs:
        raise ValueError(
            f"the split {split!r} of {corpus.name!r} is not of given pairs; those are: "
            f"{', '.join(sorted(corpus.pairs)) or 'none'}"
        )
    speech, noise = corpus.speech[split], corpus.noise[split]
    rng = np.random.Generator(np.random.PCG64(seed))
    had: Counter[str] = Counter()
    rounds = []
    for index in rng.permutation(len(speech)):
        rounds.append((had[speech.groups[index]], int(index)))
        had[speech.groups[index]] += 1
    # By rounds in each of which every speaker has one: the sort leaves the drawn order in them.
    chosen = sorted(index for _, index in sorted(rounds, key=lambda turn: turn[0])[:count])
    mixtures = []
    for index in chosen:
        recording, length = speech.names[index], speech.length(index)
        known = corpus.attributes.get(recording, {}).get("snr_db")
        levels = [active_level_db(bank.recording(index)) for bank in (speech, noise)]
        pieces = cut(speech, [index], ((0, length),))
        mixtures.append(
            MixtureSpec(
                id=f"{split}-{len(mixtures):03d}",
                split=split,
                speech=(recording,),
                speech_ranges=((0, length),),
                noise=noise.names[index],
                noise_offset=0,
                snr_db=float(known if known is not None else round(float(levels[0] - levels[1]))),
                level_db=None,
                crc32=checksum(pieces, loop(noise, index, 0, length)),
            )
        )
    return TestSet(name, corpus.name, split, tuple(mixtures))


def _quotas(
    groups: list[str], total: int, limits: Mapping[str, float], rng: np.random.Generator
) -> dict[str, int]:
    """How many of `total` mixtures each group gets: equally many but for the limits."""
    open_groups, left = list(groups), total
    quotas: dict[str, int] = {}
    for prefix, share in sorted(limits.items()):
        limited = [group for group in open_groups if group.startswith(prefix)]
        most = int(share * total)
        if len(limited) * total > most * len(groups):
            quotas |= _equal(limited, most, rng)
            open_groups = [group for group in open_groups if group not in limited]
            left -= most
    if not open_groups:
        raise ValueError(f"the limits {dict(limits)} leave nobody for {left} of {total} mixtures")
    quotas |= _equal(open_groups, left, rng)
    # the deal breaks ties by this order
    return {groups[index]: quotas[groups[index]] for index in rng.permutation(len(groups))}


def _equal(groups: list[str], total: int, rng: np.random.Generator) -> dict[str, int]:
    base, extra = divmod(total, len(groups))
    lucky = {groups[index] for index in rng.permutation(len(groups))[:extra]}
    return {group: base + (group in lucky) for group in groups}


def _deal(quotas: Mapping[str, int]) -> list[str]:
    """Groups in a sequence in which each is spread evenly: always the one furthest behind."""
    total = sum(quotas.values())
    had = dict.fromkeys(quotas, 0)
    sequence = []
    for position in range(1, total + 1):
        group = max(quotas, key=lambda group: quotas[group] * position - had[group] * total)
        had[group] += 1
        sequence.append(group)
    return sequence


def _turns(bank: Bank, rng: np.random.Generator) -> dict[str, Iterator[int]]:
    """For each group its recordings' indices in a drawn order, over and over."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(bank.groups):
        members.setdefault(group, []).append(index)
    return {
        group: itertools.cycle([indices[turn] for turn in rng.permutation(len(indices))])
        for group, indices in members.items()
    }


def _draw_speech(
    bank: Bank, turn: Iterator[int], shortest: int, longest: int, rng: np.random.Generator
) -> tuple[list[int], tuple[tuple[int, int], ...]]:
    """Recordings of one speaker and the range taken of each, together shortest to longest."""
    indices: list[int] = []
    ranges: list[tuple[int, int]] = []
    total = 0
    while total < shortest:
        index = next(turn)
        gap = GAP if indices else 0
        length = bank.length(index)
        if total + gap + length > longest:
            least = max(shortest, total + gap + _MIN_PIECE)
            length = int(rng.integers(least, longest + 1)) - total - gap
        start = _draw_start(bank, index, length, bank.length(index) - length, rng)
        indices.append(index)
        ranges.append((start, start + length))
        total += gap + length
    return indices, tuple(ranges)


def _draw_noise_offset(bank: Bank, index: int, length: int, rng: np.random.Generator) -> int:
    """An offset after which the recording lasts, or any where it has to be looped."""
    spare = bank.length(index) - length
    if spare < 0:
        return int(rng.integers(bank.length(index)))
    return _draw_start(bank, index, length, spare, rng)


def _draw_start(bank: Bank, index: int, length: int, last: int, rng: np.random.Generator) -> int:
    """A start in [0, last] from which `length` samples are not one of the recording's pauses."""
    if last == 0:
        return 0
    recording = bank.recording(index)
    floor = active_level_db(recording) - _PAUSE_DB
    starts = rng.integers(0, last + 1, size=_TRIES)
    for start in starts:
        if active_level_db(recording[start : start + length]) >= floor:
            return int(start)
    raise ValueError(f"{_TRIES} cuts of {length} samples from {bank.names[index]} hold no sound")
