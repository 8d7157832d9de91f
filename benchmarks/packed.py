"""How near a packed file comes to the entropy of what it holds, by which coder; what it refuses.

    python benchmarks/packed.py                     # under a minute on two cores

Coders: positions and assignments of one tensor at several densities, pruned weight by weight or in
whole columns, clustered by k-means. The weights are normal with scales that differ by input and by
output (--spread), as those of trained nets do. Each stream through the range coder of
`constriction`, positions with one density (whole columns apart) and in the smallest form, and
through zstandard at its highest ordinary level: positions row by row or column by column, as bits
or as gaps in bytes; assignments as bytes or in log2 K bits; whichever comes out smallest. Beside
them the whole file, and the published size, which counts no positions.

Damage: mutants of one file (flipped bits, cut ends, bytes put in, taken out or replaced, garbage),
as they are, where each must be refused with a ValueError that names the file, and with the checksum
made right, where each must be refused so or give arrays. Anything else ends the script.
Writes benchmarks/results/packed.json.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import tyro
import zstandard
from constriction import stream

from dynse.evaluation.scores import commit, machine
from dynse.pruning.accounting import by_group, frequency_bits, sizes
from dynse.pruning.clustering import assign, kmeans, reconstruct, sort_weights
from dynse.pruning.packed import load_packed, save_packed
from dynse.pruning.positions import Form, encode_positions, form_bits, smallest_form
from dynse.training.loop import write_json

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
AXES = {"weights": (), "columns": (1,)}
ZSTD_LEVEL = 19


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure the packed form."""

    width: int = 1024
    """Inputs and outputs of the tensor."""
    spread: float = 0.3
    """Standard deviation of the logarithm of an input's, and of an output's scale."""
    clusters: int = 32
    """Of its non-zero weights; at most 256."""
    mutants: int = 2000
    """Damaged files, twice."""
    seed: int = 0
    """Of everything drawn."""
    out: pathlib.Path = pathlib.Path(__file__).parent / "results" / "packed.json"
    """Where the figures go."""


def main(arguments: Arguments) -> dict[str, Any]:
    """Measure, print, write."""
    fit = jax.jit(partial(kmeans, max_clusters=arguments.clusters))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "net.packed"
        coders = [
            _measure(path, arguments, fit, kind, density) for kind in AXES for density in DENSITIES
        ]
        damage = _damage(path, arguments, fit)
    largest = max(case["file_over_entropy"] for case in coders)
    content = {
        "machine": machine(),
        "commit": commit(),
        "arguments": {
            name: getattr(arguments, name)
            for name in ("width", "spread", "clusters", "mutants", "seed")
        },
        "bytes": coders,
        "largest_file_over_entropy": largest,
        "damage": damage,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, content)
    for case in coders:
        print({name: value for name, value in case.items() if name != "dense"})
    print(f"largest file: {largest:.4f} times the entropy of what it holds")
    print(damage)
    return content


def _tensor(arguments, fit, kind, density, width):
    """(width, width) weights, pruned and clustered, and their code book."""
    draw = np.random.default_rng(arguments.seed)
    scales = np.exp(arguments.spread * draw.normal(size=(2, width)))
    weights = (draw.normal(size=(width, width)) * scales[0][:, None] * scales[1]).astype(np.float32)
    sizes = np.abs(weights) if kind == "weights" else np.abs(weights).mean(1, keepdims=True)
    weights *= sizes >= np.quantile(sizes, 1 - density)
    codebook = fit(sort_weights(weights), arguments.clusters)
    return np.asarray(reconstruct(assign(weights, codebook), codebook)), np.asarray(codebook)


def _measure(path, arguments, fit, kind, density):
    """Bytes of one tensor's streams by each coder, and of its file."""
    tensor, codebook = _tensor(arguments, fit, kind, density, arguments.width)
    symbols = np.searchsorted(np.unique(tensor[tensor != 0]), tensor[tensor != 0])
    params, groups = {"kernel": tensor}, {"kernel": AXES[kind]}
    save_packed(path, params, groups=groups, metadata={"density": density})
    assert np.array_equal(load_packed(path)[0]["kernel"], tensor)
    found = sizes(path, params, groups, {"kernel": codebook})
    return {
        "pruned": kind,
        "density": density,
        "positions": _positions(tensor != 0, AXES[kind]),
        "assignments": _assignments(symbols, arguments.clusters),
        "dense": found.dense,
        "published": round(found.published),
        "entropy": round(found.entropy),
        "file": found.file,
        "file_over_entropy": round(found.file / found.entropy, 4),
    }


def _positions(kept, axes):
    """Bytes by entropy (one density), by the range coder so and in its smallest form, by zstd."""
    plain = min(Form((), False), Form(axes, False), key=partial(form_bits, kept))
    forms = {"range_one_density": plain, "range": smallest_form(kept, axes)}
    figures = {"entropy": round(form_bits(kept, plain) / 8)}
    for name, form in forms.items():
        encoder = stream.queue.RangeEncoder()
        densities = encode_positions(encoder, by_group(kept, form.axes), form.own)
        figures[name] = encoder.get_compressed().nbytes + densities.size
    whole = min(_zstd_flags(kept.ravel()), _zstd_flags(kept.T.ravel()))
    rows = by_group(kept, axes)
    live = rows.any(1)
    return figures | {"zstd": min(whole, _zstd_flags(live) + _zstd_flags(rows[live].ravel()))}


def _assignments(symbols, clusters):
    """Bytes by entropy, by the range coder and by zstd."""
    counts = np.bincount(symbols, minlength=clusters)
    encoder = stream.queue.RangeEncoder()
    model = stream.model.Categorical(counts.astype(np.float64), perfect=False)
    encoder.encode(symbols.astype(np.int32), model)
    return {
        "entropy": round(frequency_bits(counts) / 8),
        "range": encoder.get_compressed().nbytes,
        "zstd": _zstd_symbols(symbols, clusters),
    }


def _zstd(content):
    return len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content))


def _zstd_flags(flags):
    """The smaller of bits, and of gaps between ones: a byte each, 255 to go on."""
    if flags.all() or not flags.any():
        return 0
    gaps = np.diff(np.flatnonzero(flags), prepend=-1) - 1
    escapes = gaps // 255
    spread = np.full(gaps.size + int(escapes.sum()), 255, np.uint8)
    spread[np.cumsum(escapes + 1) - 1] = gaps % 255
    return min(_zstd(np.packbits(flags).tobytes()), _zstd(spread.tobytes()))


def _zstd_symbols(symbols, clusters):
    """The smaller of bytes through zstandard, and of log2 K bits as they are."""
    plain = int(np.ceil(symbols.size * np.ceil(np.log2(clusters)) / 8))
    return min(_zstd(symbols.astype(np.uint8).tobytes()), plain)


def _damage(path, arguments, fit):
    """What became of the mutants of one small net's file."""
    params, groups = {"bias": np.arange(64, dtype=np.float32)}, {}
    for kind, axes in AXES.items():
        params[kind] = {"kernel": _tensor(arguments, fit, kind, 0.2, 128)[0]}
        groups[f"{kind}/kernel"] = axes
    save_packed(path, params, groups=groups, metadata={"network": "fdnn"})
    content = path.read_bytes()
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for mutant in _mutants(content, arguments.mutants, arguments.seed):
        for name, changed in (("damaged", mutant), ("forged", _reseal(mutant))):
            path.write_bytes(changed)
            start = time.perf_counter()
            outcome = _outcome(path)
            slowest = max(slowest, time.perf_counter() - start)
            outcomes[f"{name}_{outcome}"] += 1
    if outcomes["damaged_loaded"]:
        raise SystemExit(f"accepted {outcomes['damaged_loaded']} damaged files")
    return {"file_bytes": len(content), "slowest_ms": round(1e3 * slowest, 1), **outcomes}


def _outcome(path):
    """ "refused" or "loaded"; any other error goes through."""
    try:
        load_packed(path)
    except ValueError as error:
        if not str(error).startswith(f"{path}: "):
            raise
        return "refused"
    return "loaded"


def _mutants(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` files that differ from the content."""
    draw = np.random.default_rng(seed)
    given = 0
    while given < count:
        place = int(draw.integers(len(content)))
        garbage = draw.bytes(int(draw.integers(1, 40)))
        flipped = bytearray(content)
        for spot in draw.integers(len(content), size=int(draw.integers(1, 4))):
            flipped[int(spot)] ^= 1 << int(draw.integers(8))
        mutant = (
            bytes(flipped),
            content[:place],
            content[:place] + garbage + content[place:],
            content[:place] + content[place + len(garbage) :],
            content[:place] + garbage + content[place + len(garbage) :],
            content[:28] + draw.bytes(place),
            draw.bytes(place),
        )[given % 7]
        if mutant != content:
            given += 1
            yield mutant


def _reseal(content):
    """The same body with the magic, version, length and checksum that it ought to have."""
    body = b"dynsePK\n" + struct.pack("<IQ", 1, len(content)) + content[20:-16]
    return body + hashlib.blake2b(body, digest_size=16).digest()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
