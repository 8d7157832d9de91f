"""A population in one program: equal to one genome at a time, on any number of devices."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.search.evaluate import batched

GENOMES = np.random.default_rng(0).integers(2, 9, (13, 5)).astype(np.int32)
INPUTS = np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32)


def recurrent(genome, inputs, scale):
    """A little recurrent net from zeros whose grid is the genome's."""

    def step(state, frame):
        state = jnp.round(jnp.tanh(state * scale["w"] + frame) * genome) / genome
        return state, jnp.abs(state).sum()

    _, outputs = jax.lax.scan(step, jnp.zeros(5), inputs)
    return jnp.stack([outputs.sum(), genome.sum().astype(jnp.float32)])


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_equal_to_one_genome_at_a_time(chunk):
    one = jax.jit(recurrent)
    scale = {"w": np.float32(0.7)}
    expected = np.stack([one(genome, INPUTS, scale) for genome in GENOMES])
    found = batched(recurrent, chunk=chunk)(GENOMES, INPUTS, scale)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_arguments_are_traced_and_the_program_compiled_once():
    traces = []

    def one(genome, weights):
        traces.append(weights)
        return jnp.stack([(genome * weights).sum(), 1.0 * genome[0]])

    evaluate = batched(one, chunk=4)
    for factor in (1.0, 2.0, 3.0):
        found = evaluate(GENOMES, np.full(5, factor, np.float32))
        np.testing.assert_allclose(found[:, 0], factor * GENOMES.sum(1))
    before = len(traces)
    assert all(isinstance(weights, jax.core.Tracer) for weights in traces)
    evaluate(GENOMES[::-1], np.zeros(5, np.float32))
    assert len(traces) == before
    # Another shape is another program: the count would show it.
    evaluate(GENOMES[:8], np.zeros(5, np.float32))
    assert len(traces) > before


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        batched(recurrent, chunk=0)


SHARDED = """
import jax
import numpy as np
from search.test_evaluate import GENOMES, INPUTS, batched, recurrent

assert len(jax.devices()) == 4
scale = {"w": np.float32(0.7)}
for count in (13, 12, 3):
    shared = batched(recurrent, chunk=2)(GENOMES[:count], INPUTS, scale)
    alone = batched(recurrent, chunk=2, devices=jax.devices()[:1])(GENOMES[:count], INPUTS, scale)
    assert shared.shape == (count, 2)
    np.testing.assert_array_equal(shared, alone)
text = jax.jit(batched(recurrent)).lower(GENOMES[:12], INPUTS, scale).compile().as_text()
assert "s32[3,5]" in text, "each device should get three genomes"
assert "all-reduce" not in text
print("equal")
"""


def test_four_devices_give_what_one_gives():
    tests = os.path.dirname(os.path.dirname(__file__))
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r}){SHARDED}"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["equal"]
