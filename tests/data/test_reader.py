"""Crops read on the host: the device's, bit for bit, at any place, and one step ahead."""

import functools
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from dynse.data.bank import Bank
from dynse.data.mixing import (
    HostSource,
    MixingConfig,
    crop_keys,
    device_source,
    draw_crops,
    host_source,
)
from dynse.data.pitch import HOP_LENGTH, Pitch
from dynse.data.reader import crop_reader, read_ahead, read_crops

SAMPLES = 2000
ALL = np.arange(8)


def keys(index, kind=0):
    return crop_keys(jax.random.fold_in(jax.random.key(5), index), MixingConfig(batch_size=8))[kind]


@pytest.fixture(scope="module")
def source():
    """Groups longer than a crop, shorter, and so short that a crop goes round many times."""
    draw = np.random.default_rng(0)
    lengths = (9000, 700, 1300, 2000, 37, 1)
    samples = draw.integers(-32768, 32768, sum(lengths)).astype(np.int16)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    names = tuple("abcdef")
    bank = Bank(samples, offsets, names, names)
    values = [draw.uniform(60, 500, -(-length // HOP_LENGTH)) for length in lengths]
    tracks = {name: own.astype(np.float32) for name, own in zip(names, values, strict=True)}
    return host_source(bank, Pitch(tracks, HOP_LENGTH))


@pytest.mark.parametrize("rows", [ALL, np.array([2, 3, 6])])
def test_the_devices_crops_bit_for_bit(source, rows):
    read = crop_reader(source, keys, SAMPLES, rows)
    draw = jax.jit(lambda source, index: draw_crops(source, keys(index), SAMPLES))
    device = device_source(source)
    for index in (0, 1, 7, 2**31 - 1):
        found, expected = read(index), draw(device, index)
        for left, right in zip(found, expected, strict=True):
            assert isinstance(left, np.ndarray)
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, np.asarray(right)[rows])


def test_other_keys_read_other_crops(source):
    """So equal bits above mean something."""
    one, other = (
        crop_reader(source, functools.partial(keys, kind=kind), SAMPLES, ALL)(0) for kind in (0, 1)
    )
    assert not np.array_equal(one.samples, other.samples)
    assert not np.array_equal(one.f0_hz, other.f0_hz)


class Endless:
    """Samples that tell their place modulo a prime; no memory behind them. Counts its reads."""

    dtype, ndim = np.dtype(np.int16), 1

    def __init__(self, length, prime=32749):
        self.shape, self.prime, self.reads = (length,), prime, []

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, where):
        self.reads.append(where)
        if isinstance(where, slice):
            where = np.arange(where.start, where.stop)
        return (where % self.prime).astype(self.dtype)


def test_groups_behind_int32_are_read_at_their_place():
    lengths = np.array([2**31 - 1, 2**31 - 1, 5000, 30000])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    samples, names = Endless(offsets[-1]), tuple("abcd")
    source = host_source(Bank(samples, offsets, names, names))
    assert source.starts[2] == 2**32 - 2
    source = HostSource(samples, source.starts, source.lengths, Endless(offsets[-1] // HOP_LENGTH))
    group = np.array([1, 2, 3, 1], np.int32)
    offset = np.array([2**31 - 500, 4990, 123, 2**30], np.int32)
    found = read_crops(source, group, offset, SAMPLES)
    start, length = ([int(own[g]) for g in group] for own in (offsets, lengths))
    for row, first, size, at in zip(found.samples, start, length, offset.tolist(), strict=True):
        expected = [(first + (at + ahead) % size) % 32749 for ahead in range(SAMPLES)]
        np.testing.assert_array_equal(row, expected)
    for row, first, size, at in zip(found.f0_hz, start, length, offset.tolist(), strict=True):
        places = [first + (at + 256 * frame) % size for frame in range(found.f0_hz.shape[1])]
        np.testing.assert_array_equal(row, [place // HOP_LENGTH % 32749 for place in places])
    # Two runs where a crop wraps around, one where it does not.
    assert len(samples.reads) == 2 + 2 + 1 + 1
    # And what is drawn there is read: every group comes up.
    samples.reads.clear()
    read = crop_reader(source, keys, SAMPLES, ALL)
    for index in range(4):
        read(index)
    begun = {int(np.searchsorted(offsets, one.start, "right")) - 1 for one in samples.reads}
    assert begun == {0, 1, 2, 3}


def crop_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("crops")]


def test_one_item_ahead_and_in_order():
    read, another = [], threading.Event()

    def note(index):
        read.append(index)
        if index == 3:
            another.set()
        return 10 * index

    found = read_ahead(note, range(2, 6))
    assert next(found) == 20
    # The next one is read while this one is in use, and no more than it.
    assert another.wait(5)
    time.sleep(0.02)
    assert read == [2, 3]
    assert list(found) == [30, 40, 50]
    assert crop_threads() == []
    assert list(read_ahead(note, range(0))) == []


def test_closed_it_leaves_no_thread():
    found = read_ahead(lambda index: time.sleep(0.01), range(100))
    next(found)
    assert len(crop_threads()) == 1
    found.close()
    assert crop_threads() == []


def test_an_error_comes_in_the_place_of_its_item():
    def fail(index):
        if index == 2:
            raise OSError("the disk is gone")
        return index

    found = read_ahead(fail, range(5))
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)
    assert crop_threads() == []


INTERRUPTED = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell hands on: ignored
from dynse.data.reader import read_ahead
for index in read_ahead(lambda index: time.sleep(0.01), range(10**9)):
    print(index, flush=True)
"""


def test_an_interrupted_process_ends():
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "None\n"
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert "KeyboardInterrupt" in message
