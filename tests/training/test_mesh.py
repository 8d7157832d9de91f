"""Four devices, and two processes, train what one device trains, but for rounding."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from training.small import corpus, run_config

from dynse.training import mesh
from dynse.training.runs import load_run, train_run

TESTS = Path(__file__).parents[1]
START = f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"

# One step, whose gates are the same on both; twenty of plain SGD on a dense net.
DEVICES = """
import dataclasses
import jax, numpy as np, optax
from training.small import bank, run_config
from dynse.data.mixing import device_source, host_source
from dynse.training import runs
from dynse.training.mesh import batch_mesh, on_each

batch = 8
mesh = batch_mesh(batch)
assert mesh.size == 4
banks = host_source(bank(0)), host_source(bank(2))
sources = tuple(map(device_source, banks))

def trained(config, mesh, steps, around):
    step = runs.train_step(config, around=around, mesh=mesh)
    state = on_each(mesh, runs.new_state(config, around=around))
    crops = runs.train_crops(config, *sources, mesh=mesh)
    text = step.lower(state, *crops(0)).compile().as_text()
    metrics = []
    for own in crops.each(range(steps)):
        state, values = step(state, *own)
        metrics.append({name: float(value) for name, value in values.items()})
    return jax.tree.map(np.asarray, state.params), metrics, text

# One step of a high rate is the gradient: the parameters do not round it away.
for gated, steps, rate in ((True, 1, 1e4), (False, 20, 0.01)):
    sgd = lambda _: optax.sgd(rate)
    config = run_config(gated=gated)
    mixing = dataclasses.replace(config.mixing, batch_size=batch)
    config = dataclasses.replace(config, mixing=mixing)
    one, metrics, alone = trained(config, None, steps, sgd)
    four, same, text = trained(config, mesh, steps, sgd)
    assert "all-reduce" in text and "all-reduce" not in alone
    assert "s16[2,4000]" in text and "s16[8,4000]" not in text, "two of the eight crops a device"
    drawn, alone, read = (
        runs.train_crops(config, *own, mesh=split)(1)
        for own, split in ((sources, mesh), (sources, None), (banks, mesh))
    )
    for left, other, right in zip(*map(jax.tree.leaves, (drawn, alone, read)), strict=True):
        np.testing.assert_array_equal(left, other)
        np.testing.assert_array_equal(left, right)
        assert left.dtype == right.dtype and left.sharding == right.sharding
        assert [part.data.shape for part in left.addressable_shards] == [(2, 4000)] * 4
    start = jax.tree.map(np.asarray, runs.new_state(config, around=sgd).params)
    if gated:
        assert metrics[0]["kept"] == same[0]["kept"]
        np.testing.assert_allclose(same[0]["loss"], metrics[0]["loss"], rtol=1e-6)
        np.testing.assert_allclose(same[0]["grad_norm"], metrics[0]["grad_norm"], rtol=1e-5)
        moved, expected = (jax.tree.map(np.subtract, end, start) for end in (four, one))
        scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
        for left, right in zip(jax.tree.leaves(moved), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5 * scale)
    else:
        far = max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(start)))
        assert far > 1e-3
        for left, right in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=min(1e-4, 1e-2 * far))
print("equal")
"""

PROCESS = """
from training.small import corpus, run_config
from dynse.data import mixing, reader
from dynse.training.mesh import batch_mesh, share
from dynse.training.start import start_experiment
from dynse.training.runs import train_run
import jax
start_experiment(sys.argv[1] + "/cache")
assert (jax.process_count(), jax.device_count(), jax.local_device_count()) == (2, 2, 1)
config, index = run_config(steps=4, gated=False), jax.process_index()
assert share(batch_mesh(2), 2) == [index]
train_run(sys.argv[1] + "/run", config, corpus())
mixing.DEVICE_BYTES = 0  # and with crops that are read, by each process its own
rows, original = [], reader.read_crops

def read_crops(source, group, *args):
    rows.append(len(group))
    return original(source, group, *args)

reader.read_crops = read_crops
train_run(sys.argv[1] + "/read", config, corpus())
assert rows and set(rows) == {1}
"""


def start(script, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", START + script, *map(str, arguments)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, message = process.communicate(timeout=300)
    assert process.returncode == 0, message[-3000:]
    return out


def test_four_devices():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    assert finish(start(DEVICES, XLA_FLAGS=flags)).split() == ["equal"]


def test_two_processes(tmp_path):
    """Into one folder, whose run is read by a process alone."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [
        start(
            PROCESS,
            tmp_path,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]
    first, second = [finish(process) for process in both]
    for word in ("devices: ", "train "):
        assert word in first
        assert word not in second
    config = run_config(steps=4, gated=False)
    _, variables, lines = train_run(tmp_path / "alone", config, corpus())
    _, together, found = load_run(tmp_path / "run")
    assert found == config
    for left, right in zip(jax.tree.leaves(together), jax.tree.leaves(variables), strict=True):
        # A bias before a batch normalisation has no gradient: Adam makes steps of its rounding.
        if right.ndim > 1:
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-3 * np.abs(right).max())
    found, read = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("run", "read")
    )
    # The same crops in the same program.
    for left, right in zip(found, read, strict=True):
        assert left | {"audio_s_per_s": 0} == right | {"audio_s_per_s": 0}
    assert [line["step"] for line in found] == [line["step"] for line in lines]  # each once
    for line, expected in zip(found, lines, strict=True):
        if "loss" in expected:
            np.testing.assert_allclose(line["loss"], expected["loss"], rtol=1e-4)


def test_as_many_devices_as_divide_the_batch(monkeypatch):
    device = jax.devices()[0]
    monkeypatch.setattr(jax, "devices", lambda: [device] * 4)
    monkeypatch.setattr(mesh, "Mesh", lambda devices, axes: len(devices))
    assert [mesh.batch_mesh(size) for size in (8, 6, 5, 2, 1)] == [4, 3, None, 2, None]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="the 4 devices of 2 processes do not divide a batch of 6"):
        mesh.batch_mesh(6)


def test_half_an_environment_is_named(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match=r"missing: \['JAX_COORDINATOR_ADDRESS', 'JAX_PROCESS_ID"):
        mesh.join_processes()
