"""The header of a packed file: the nesting, a line for each tensor, and the caller's metadata.

Deflated JSON, [tensors, metadata]; tensors is a nested dict whose leaves are the fields of `Entry`.
What is read is not believed: every field is checked by itself and against the others, so that the
sizes of a tensor may be trusted where its total is within the reader's limit.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

DTYPES = (
    "float32",
    "bfloat16",
    "float16",
    "int32",
    "int16",
    "int8",
    "uint32",
    "uint16",
    "uint8",
)
_MAX_BYTES = 2**24


class Entry(NamedTuple):
    """A tensor's line in the header.

    Attributes:
        dtype, shape: of the tensor.
        axes: within one group.
        own: each group's positions have their own density.
        live: groups with a non-zero weight.
        nonzeros: non-zero weights.
        clusters: length of the code book; 0: the values are stored as they are.
    """

    dtype: str
    shape: list[int]
    axes: list[int]
    own: bool
    live: int
    nonzeros: int
    clusters: int

    @property
    def within(self) -> int:
        """Weights of a group."""
        return math.prod(self.shape[axis] for axis in self.axes)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return math.prod(size for axis, size in enumerate(self.shape) if axis not in self.axes)

    @property
    def bits(self) -> np.dtype:
        """The unsigned integer of the dtype's width: equal bits are equal values."""
        return np.dtype(f"<u{jnp.dtype(self.dtype).itemsize}")


def write_header(tensors: dict[str, Any], metadata: Any) -> bytes:
    """The header's bytes.

    Raises:
        ValueError: metadata that JSON cannot hold, or too much of it.
    """
    try:
        text = json.dumps([tensors, metadata], allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected metadata that JSON can hold, got {error}") from error
    if len(text) > _MAX_BYTES:
        raise ValueError(f"expected a header of at most {_MAX_BYTES} bytes, got {len(text)}")
    return zlib.compress(text.encode("ascii"), 9)


def read_header(deflated: bytes) -> list[Any]:
    """The two parts of the header: nested dicts of lines, and metadata.

    Raises:
        ValueError: not such a header.
        RecursionError: nested deeper than Python can follow.
    """
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(deflated, _MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"expected a deflated header, got {error}") from error
    if not inflate.eof or inflate.unused_data:
        raise ValueError(f"expected one header of at most {_MAX_BYTES} bytes, got another length")
    try:
        header = json.loads(text)
    except ValueError as error:
        raise ValueError(f"expected a header in JSON, got {error}") from error
    if not (isinstance(header, list) and len(header) == 2 and isinstance(header[0], dict)):
        raise ValueError("expected a header of tensors and metadata, got something else")
    return header


def read_entries(node: Any) -> Iterator[Entry]:
    """Every tensor's entry, in the order of the file.

    Raises:
        ValueError: one that describes no tensor.
    """
    if isinstance(node, dict):
        for child in node.values():
            yield from read_entries(child)
        return
    if not (isinstance(node, list) and len(node) == len(Entry._fields)):
        raise ValueError(f"expected {Entry._fields} of a tensor, got {str(node)[:80]}")
    entry = Entry(*node)
    numbers = [entry.live, entry.nonzeros, entry.clusters]
    for part in (entry.shape, entry.axes):
        if not (isinstance(part, list) and len(part) <= 32):
            raise ValueError(f"expected lists of sizes and axes, got {str(node)[:80]}")
        numbers += part
    if (
        entry.dtype not in DTYPES
        or type(entry.own) is not bool
        or any(type(n) is not int or n < 0 for n in numbers)
    ):
        raise ValueError(f"expected a dtype and counts of a tensor, got {str(node)[:80]}")
    if len(set(entry.axes)) < len(entry.axes) or max(entry.axes, default=-1) >= len(entry.shape):
        raise ValueError(f"expected distinct axes of {entry.shape}, got {entry.axes}")
    if (
        entry.live > entry.groups
        or not entry.live <= entry.nonzeros <= entry.live * entry.within
        or entry.clusters > entry.nonzeros
    ):
        raise ValueError(f"expected counts that fit each other, got {str(node)[:80]}")
    yield entry
