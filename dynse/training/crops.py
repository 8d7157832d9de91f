"""The crops of each step: drawn on the devices, or read ahead where a bank stays on the host.

Either way they are a function of the step's number alone, and the same bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dynse.data.mixing import Crops, HostSource, MixingConfig, Source, crop_keys, draw_crops
from dynse.data.reader import crop_reader, read_ahead
from dynse.training.mesh import AXIS, join, on_each, share


class _Way(NamedTuple):
    """How the crops of one source come about.

    Attributes:
        read: what a thread may do ahead, by the batch's number.
        put: what is then left to do on the devices.
    """

    read: Callable[[int], Any]
    put: Callable[[Any], Crops]


class CropDraw:
    """Crops of speech and of noise, by the number of their batch.

    Args:
        speech: from `load_source`.
        noise: the same.
        key: of a batch by its number, traced; `mix_crops` is to be given the same.
        mixing: the batches.
        mesh: of the devices that share a batch.
    """

    def __init__(
        self,
        speech: Source | HostSource,
        noise: Source | HostSource,
        key: Callable[[jax.Array], jax.Array],
        mixing: MixingConfig,
        *,
        mesh: Mesh | None = None,
    ) -> None:
        def keys(kind: int) -> Callable[[jax.Array], jax.Array]:
            return lambda index: crop_keys(key(index), mixing)[kind]

        self._ways = [
            _way(own, keys(kind), mixing, mesh) for kind, own in enumerate([speech, noise])
        ]
        self.from_host = any(isinstance(source, HostSource) for source in (speech, noise))

    def __call__(self, index: int) -> tuple[Crops, Crops]:
        """Those of one batch."""
        return self._put(self._read(index))

    def each(self, indices: Iterable[int]) -> Generator[tuple[Crops, Crops], None, None]:
        """Those of one batch after the other; to be closed.

        What is read on the host is read while the devices compute with what came before.
        """
        if not self.from_host:
            yield from map(self, indices)
            return
        with contextlib.closing(read_ahead(self._read, indices)) as found:
            yield from map(self._put, found)

    def _read(self, index: int) -> list[Any]:
        return [way.read(index) for way in self._ways]

    def _put(self, found: list[Any]) -> tuple[Crops, Crops]:
        speech, noise = (way.put(own) for way, own in zip(self._ways, found, strict=True))
        return speech, noise


def _way(
    source: Source | HostSource,
    keys: Callable[[jax.Array], jax.Array],
    mixing: MixingConfig,
    mesh: Mesh | None,
) -> _Way:
    count, samples = mixing.batch_size, mixing.crop_samples()
    if isinstance(source, HostSource):
        read = crop_reader(source, keys, samples, share(mesh, count))
        return _Way(read, lambda found: join(mesh, found, count))
    by_rows = None if mesh is None else NamedSharding(mesh, PartitionSpec(AXIS))
    draw = jax.jit(
        lambda source, index: draw_crops(source, keys(index), samples), out_shardings=by_rows
    )
    placed = on_each(mesh, source)
    return _Way(lambda index: index, lambda index: draw(placed, index))
