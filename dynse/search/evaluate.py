"""From the evaluation of one genome to that of a population, in one jitted program.

    evaluate = batched(evaluate_one)         # evaluate_one(genome, params, data) -> (M,) objectives
    objectives = evaluate(genomes, params, data)                                  # (P, M)

Genomes are traced, so that a population is compiled once. They are mapped over in chunks: a chunk
at a time fills an accelerator and bounds the memory. With several devices each takes its share
of the population.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

AXIS = "population"


def batched(
    evaluate_one: Callable[..., jax.Array],
    *,
    chunk: int = 8,
    devices: Sequence[jax.Device] | None = None,
) -> Callable[..., jax.Array]:
    """Evaluate populations.

    Args:
        evaluate_one: `(genome (G,), *arguments) -> objectives (M,)`, traceable.
        chunk: genomes evaluated side by side on each device.
        devices: that share the population; None: all of this process. The result does not
            depend on them, but for the rounding of matmuls of another batch size.

    Returns:
        `evaluate(genomes (P, G), *arguments) -> (P, M)`, jitted. The arguments, any pytrees of
        arrays, are traced and not built into the program, and shared by all genomes. On several
        devices they are copied there in each call, unless they are replicated already.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    mesh = Mesh(np.array(jax.local_devices() if devices is None else devices), (AXIS,))

    def share(genomes, arguments):
        return jax.lax.map(
            lambda genome: evaluate_one(genome, *arguments), genomes, batch_size=chunk
        )

    # The check would refuse a scan inside evaluate_one whose carry starts as a constant, the same
    # on all devices, and then differs: a recurrent net from zeros. Nothing is summed over devices.
    sharded = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(PartitionSpec(AXIS), PartitionSpec()),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )

    @jax.jit
    def evaluate(genomes, *arguments):
        count = len(genomes)
        filled = jnp.pad(genomes, ((0, -count % mesh.size), (0, 0)), mode="edge")
        return sharded(filled, arguments)[:count]

    return evaluate
