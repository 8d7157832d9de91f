"""The packed form: pruned and clustered parameters in a file that is about as small as they are.

Any nested dict of arrays goes in and comes out with the same bits. Of each tensor the file holds

    shape, dtype     in a JSON header, with the nesting and the caller's metadata
    positions        which groups of weights are not all zero, then which weights in those are not
                     (`dynse.pruning.positions`)
    values           a code book and the assignments to it, or the non-zero values as they are,
                     whichever is smaller; the code book is the tensor's distinct non-zero values

Positions and assignments go through one range coder (Martin 1979; constriction's), the assignments
by their frequencies, K bytes of 4 bits mantissa and 4 bits exponent. So a tensor of zeros costs its
line in the header, and one without zeros or repeated values is stored as it is.

    magic (8) | version u32 | length u64 | header length u32, code length u32
    | header, deflated | densities, code books, frequencies, values | range code (u32)
    | BLAKE2b of all before (16)

All little-endian. Nothing in the file is code. A reader trusts no number: the sum is checked first
(against accidents), then every count before something is allocated by it (against forgeries).
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from constriction import stream

from dynse.atomic import write_whole
from dynse.pruning.accounting import by_group, frequency_bits
from dynse.pruning.packed_header import DTYPES, Entry, read_entries, read_header, write_header
from dynse.pruning.positions import decode_positions, encode_positions, smallest_form

MAGIC = b"dynsePK\n"
VERSION = 1
LIMIT = 2**26
_PREFIX = struct.Struct("<8sIQII")
_DIGEST_BYTES = 16
_LEVELS = np.array([(16 + code % 16) << (code // 16) for code in range(256)], np.float64)


def save_packed(
    path: str | os.PathLike[str],
    params: Mapping[str, Any],
    *,
    groups: Mapping[str, tuple[int, ...]] | None = None,
    metadata: Any = None,
) -> Path:
    """Writes a packed file, whole or not at all.

    Args:
        path: where to.
        params: nested dict of arrays of a dtype in `DTYPES`.
        groups: path ("lstm1/hidden_kernel") to the axes within one group, of tensors whose weights
            were pruned in groups: their positions take less room. It changes no value.
        metadata: what JSON can hold, such as the network's configuration. Tuples come back as
            lists.

    Returns:
        The path.

    Raises:
        ValueError: params that are not nested dicts of such arrays, a path or axes that they do
            not have, or metadata that JSON cannot hold.
    """
    encoder, plain, found = stream.queue.RangeEncoder(), [], set()
    groups = dict(groups or {})

    def describe(node, names):
        where = "/".join(names)
        if isinstance(node, Mapping):
            wrong = [name for name in node if not isinstance(name, str)]
            if wrong:
                raise ValueError(f"expected names that are strings under {where!r}, got {wrong}")
            return {name: describe(child, (*names, name)) for name, child in node.items()}
        tensor = np.asarray(node)
        if tensor.dtype.name not in DTYPES or not tensor.dtype.isnative:
            raise ValueError(f"expected {where!r} to be one of {DTYPES}, got {tensor.dtype!r}")
        found.add(where)
        return list(_encode(tensor, tuple(groups.get(where, ())), plain, encoder))

    if not isinstance(params, Mapping):
        raise ValueError(f"expected params as a nested dict, got {type(params).__name__}")
    tensors = describe(params, ())
    unknown = sorted(set(groups) - found)
    if unknown:
        raise ValueError(f"expected groups of {sorted(found)}, got {unknown}")
    header = write_header(tensors, metadata)
    code = encoder.get_compressed().astype("<u4").tobytes()
    body = header + b"".join(plain) + code
    length = _PREFIX.size + len(body) + _DIGEST_BYTES
    content = _PREFIX.pack(MAGIC, VERSION, length, len(header), len(code)) + body
    return write_whole(path, content + _digest(content))


def load_packed(path: str | os.PathLike[str], *, limit: int = LIMIT) -> tuple[dict[str, Any], Any]:
    """Reads a packed file.

    Args:
        path: of the file.
        limit: elements that all tensors together may have; the default is twice the 30 million of
            the largest net. Zeros cost nothing in a file, so a small one may claim anything.

    Returns:
        ``(params, metadata)``, params a nested dict of NumPy arrays.

    Raises:
        ValueError: not such a file, of another version, damaged, or beyond the limit; names it.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        try:
            content = _checked(file)
            return _decode_all(content, limit)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error


def _encode(tensor, axes, plain, encoder):
    """Writes one tensor to the list of plain bytes and to the encoder; returns its entry."""
    patterns = tensor.view(f"u{tensor.itemsize}")
    form = smallest_form(patterns != 0, axes)
    rows = by_group(patterns, form.axes)
    plain.append(encode_positions(encoder, rows != 0, form.own).tobytes())
    values = rows[rows != 0]
    book, symbols, counts = np.unique(values, return_inverse=True, return_counts=True)
    width = 8 * tensor.itemsize
    clustered = book.size * (width + 8) + frequency_bits(counts) < values.size * width
    entry = Entry(
        tensor.dtype.name,
        list(tensor.shape),
        list(form.axes),
        form.own,
        int((rows != 0).any(1).sum()),
        values.size,
        book.size if clustered else 0,
    )
    if not clustered:
        plain.append(values.astype(entry.bits).tobytes())
        return entry
    frequencies = _frequency_codes(counts)
    plain += [book.astype(entry.bits).tobytes(), frequencies.tobytes()]
    if book.size > 1:
        encoder.encode(symbols.astype(np.int32), _categorical(frequencies))
    return entry


def _decode(entry, plain, decoder):
    """Reads one tensor."""
    densities = plain.take(np.dtype("u1"), entry.live) if entry.own else None
    shape = (entry.groups, entry.within)
    kept = decode_positions(decoder, shape, entry.live, entry.nonzeros, densities)
    rows = np.zeros(shape, entry.bits)
    if entry.clusters:
        book = plain.take(entry.bits, entry.clusters)
        frequencies = plain.take(np.dtype("u1"), entry.clusters)
        symbols = np.zeros(entry.nonzeros, np.int32)
        if entry.clusters > 1:
            symbols = decoder.decode(_categorical(frequencies), entry.nonzeros)
        rows[kept] = book[symbols]
    else:
        rows[kept] = plain.take(entry.bits, entry.nonzeros)
    order = [axis for axis in range(len(entry.shape)) if axis not in entry.axes] + entry.axes
    tensor = rows.reshape([entry.shape[axis] for axis in order]).transpose(np.argsort(order))
    native = np.ascontiguousarray(tensor.astype(entry.bits.newbyteorder("=")))
    return native.reshape(entry.shape).view(jnp.dtype(entry.dtype))


def _categorical(frequencies):
    return stream.model.Categorical(_LEVELS[frequencies], perfect=False)


def _frequency_codes(counts):
    """The nearest level to each count, the largest count at the highest: (K,) uint8."""
    edges = (_LEVELS[:-1] + _LEVELS[1:]) / 2
    scaled = counts * (_LEVELS[-1] / max(counts.max(initial=0), 1))
    return np.searchsorted(edges, scaled).astype(np.uint8)


class _Plain:
    """Arrays one after the other in bytes."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def take(self, dtype: np.dtype, count: int) -> np.ndarray:
        """The next `count` elements."""
        end = self.place + count * dtype.itemsize
        if end > len(self.content):
            raise ValueError(f"expected {end} bytes of values, got {len(self.content)}")
        taken = np.frombuffer(self.content, dtype, count, self.place)
        self.place = end
        return taken


def _digest(content):
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _checked(file):
    """The content of a file whose magic, version, length and sum are right."""
    prefix = file.read(_PREFIX.size)
    if not prefix.startswith(MAGIC):
        raise ValueError(f"expected a packed file that begins with {MAGIC!r}, got {prefix[:8]!r}")
    actual = os.fstat(file.fileno()).st_size
    if actual < _PREFIX.size + _DIGEST_BYTES:
        raise ValueError(f"expected at least {_PREFIX.size + _DIGEST_BYTES} bytes, got {actual}")
    _, version, length, _, _ = _PREFIX.unpack(prefix)
    if version != VERSION:
        raise ValueError(f"expected version {VERSION} of the packed form, got {version}")
    if length != actual:
        raise ValueError(f"expected {length} bytes, got {actual}: cut off or added to")
    content = prefix + file.read()
    if _digest(content[:-_DIGEST_BYTES]) != content[-_DIGEST_BYTES:]:
        raise ValueError("expected the checksum at the end to be that of the content: damaged")
    return content


def _decode_all(content, limit):
    """Params and metadata of a file with the right sum, whose numbers may still be forged."""
    *_, header_bytes, code_bytes = _PREFIX.unpack_from(content)
    body = content[_PREFIX.size : -_DIGEST_BYTES]
    if header_bytes + code_bytes > len(body) or code_bytes % 4:
        raise ValueError(f"expected parts within {len(body)} bytes, got {header_bytes, code_bytes}")
    split = len(body) - code_bytes
    plain = _Plain(body[header_bytes:split])
    decoder = stream.queue.RangeDecoder(np.frombuffer(body[split:], "<u4").astype(np.uint32))
    try:
        tensors, metadata = read_header(body[:header_bytes])
        entries = list(read_entries(tensors))
        # An axis of 0 counts as 1, so that no other axis can be absurd beside it.
        total = sum(math.prod(max(size, 1) for size in entry.shape) for entry in entries)
        if total > limit:
            raise ValueError(f"expected at most {limit} elements, got {total}")
        params = _nested(tensors, iter([_decode(entry, plain, decoder) for entry in entries]))
    except RecursionError as error:
        raise ValueError("expected less nesting in the header") from error
    except AssertionError as error:  # The decoder's word for a code that no encoder writes.
        raise ValueError(f"expected a range code, got what does not decode: {error}") from error
    if plain.place != len(plain.content) or not decoder.maybe_exhausted():
        raise ValueError("expected no values and no code after the last tensor, got some")
    return params, metadata


def _nested(node, leaves):
    """The same nesting with the next of the leaves for each entry."""
    if isinstance(node, dict):
        return {name: _nested(child, leaves) for name, child in node.items()}
    return next(leaves)
