"""Devices that share a batch: its mixtures are split among them, all else lies on each.

The train step stays one program. What is a mean over the batch stays one, across devices, so loss,
gradient, batch statistics and gates' budgets are those of one device but for rounding; a batch is
drawn from its key alone, so each device draws its own part of the same batch, and reads no data
from another. Several processes, on one host or many, are one mesh: each runs the same script, and
of a bank that stays on the host each reads the crops of its own devices alone.
"""

from __future__ import annotations

import os
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"
Tree = TypeVar("Tree")


def join_processes() -> None:
    """Join the processes that the environment names, before anything is computed.

    JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID. Without
    them this process is alone.

    Raises:
        ValueError: where some of them are missing.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    missing = [name for name in names if name not in os.environ]
    if len(missing) == len(names):
        return
    if missing:
        raise ValueError(f"several processes need {', '.join(names)}; missing: {missing}")
    address, count, index = (os.environ[name] for name in names)
    jax.distributed.initialize(address, int(count), int(index))


def batch_mesh(batch_size: int) -> Mesh | None:
    """The devices that a batch is split among: as many as divide it; None where that is one.

    Raises:
        ValueError: where there are several processes and their devices do not divide the batch.
    """
    devices = jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    if jax.process_count() > 1 and count < len(devices):
        raise ValueError(
            f"the {len(devices)} devices of {jax.process_count()} processes do not divide a batch "
            f"of {batch_size}"
        )
    return Mesh(np.array(devices[:count]), (AXIS,)) if count > 1 else None


def on_each(mesh: Mesh | None, tree: Tree) -> Tree:
    """Arrays, the same in every process, put on each device."""
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf), everywhere), tree)


def split(mesh: Mesh | None, batch: Tree) -> Tree:
    """Inside jit: arrays (B, ...) of which each device has its part of the batch."""
    if mesh is None:
        return batch
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(AXIS)))


def share(mesh: Mesh | None, batch_size: int) -> np.ndarray:
    """The rows (b,) of a batch that this process' devices have, rising."""
    rows = np.arange(batch_size)
    if mesh is None:
        return rows
    by_rows = NamedSharding(mesh, PartitionSpec(AXIS))
    parts = by_rows.addressable_devices_indices_map(rows.shape).values()
    return np.sort(np.concatenate([rows[part] for part in parts]))


def join(mesh: Mesh | None, own: Tree, batch_size: int) -> Tree:
    """A batch on the devices, of NumPy arrays (b, ...) with this process' `share` of it."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, own)
    rows, by_rows = share(mesh, batch_size), NamedSharding(mesh, PartitionSpec(AXIS))

    def joined(leaf: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...]) -> np.ndarray:
            return leaf[slice(*np.searchsorted(rows, [index[0].start, index[0].stop]))]

        return jax.make_array_from_callback((batch_size, *leaf.shape[1:]), by_rows, part)

    return jax.tree.map(joined, own)


def on_one(mesh: Mesh | None, tree: Tree) -> Tree:
    """Arrays that lie on each device, put on this process's first one."""
    if mesh is None:
        return tree
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), tree)
