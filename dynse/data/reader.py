"""Crops of a bank that is too large for the device: read on the host, one step ahead.

Which crop belongs to a key is drawn by the function that draws it on the device, in a small program
on the CPU; the samples are then read from the memory map in runs, of which a crop needs two where
it wraps around once. So the crops of a key are the same bits either way, and a run may change from
one way to the other at any step. int32 counts the samples within a group alone: where a group
begins is an int64 of the host, so the bank itself may be of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
import numpy as np

from dynse.data.mixing import Crops, HostSource, draw_places, frame_centres
from dynse.data.pitch import HOP_LENGTH as PITCH_HOP

Read = TypeVar("Read")


def crop_reader(
    source: HostSource, keys: Callable[[jax.Array], jax.Array], samples: int, rows: np.ndarray
) -> Callable[[int], Crops]:
    """What reads a batch's crops by the batch's number.

    Args:
        source: where from.
        keys: (B,) of a batch's crops, by its number; traced.
        samples: of a crop.
        rows: (b,), of the B crops those to read.
    """
    # Of this process, and not the accelerator: that would answer only after the step it is at.
    cpu = jax.local_devices(backend="cpu")[0]

    @jax.jit
    def places(lengths: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        return draw_places(lengths, keys(index))

    def read(index: int) -> Crops:
        with jax.default_device(cpu):
            group, offset = places(source.lengths, index)
        return read_crops(source, np.asarray(group)[rows], np.asarray(offset)[rows], samples)

    return read


def read_crops(source: HostSource, group: np.ndarray, offset: np.ndarray, samples: int) -> Crops:
    """The crops that begin so many samples (B,) into groups (B,), as NumPy arrays."""
    start, length = source.starts[group], source.lengths[group].astype(np.int64)
    crops = np.empty((len(group), samples), np.int16)
    for crop, first, size, at in zip(
        crops, start.tolist(), length.tolist(), offset.tolist(), strict=True
    ):
        filled = 0
        while filled < samples:
            stop = min(size, at + samples - filled)
            crop[filled : filled + stop - at] = source.samples[first + at : first + stop]
            filled += stop - at
            at = 0  # around the group's end
    if source.f0_hz is None:
        return Crops(crops)
    ahead = offset.astype(np.int64)[:, None] + frame_centres(samples)
    return Crops(crops, source.f0_hz[(start[:, None] + ahead % length[:, None]) // PITCH_HOP])


def read_ahead(read: Callable[[int], Read], indices: Iterable[int]) -> Generator[Read, None, None]:
    """`map(read, indices)`, whose next item is read in a thread while this one is in use.

    To be closed where it is not used up: the thread ends then, after the item that it is at. What
    `read` raises is raised in the place of its item.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="crops")
    try:
        coming = None
        for index in indices:
            following = pool.submit(read, index)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()
    finally:
        pool.shutdown(cancel_futures=True)
