"""What the README shows runs."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from training.small import corpus, run_config

from dynse.audio.files import read_audio, write_audio
from dynse.gating import init_gate, init_gate_state
from dynse.training.runs import train_run

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 20, 8)), jnp.float32)


def run(index):
    names = {}
    exec(SNIPPETS[index], names)
    return names


def test_there_are_four_snippets_of_about_ten_lines():
    assert len(SNIPPETS) == 4
    for snippet in SNIPPETS:
        assert len([line for line in snippet.splitlines() if line.strip()]) <= 12


def test_a_trained_net_enhances_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_run("runs/dyncp-default/dyncp", run_config(steps=2, gated=False), corpus())
    noisy = 0.1 * np.random.default_rng(0).normal(size=8000).astype(np.float32)
    write_audio("noisy.wav", noisy)
    names = run(0)
    written = read_audio("enhanced.wav")
    np.testing.assert_allclose(written, names["enhanced"][0], atol=1e-4)
    assert written.shape == noisy.shape
    assert np.abs(written - noisy).max() > 1e-3


def check(gate, y):
    assert gate.shape == y.shape == (2, 20, 16)
    assert set(np.unique(gate)) <= {0.0, 1.0}
    np.testing.assert_array_equal(np.asarray(y)[np.asarray(gate) == 0], 0)


def test_the_linen_block():
    net = run(1)["GatedDense"](16)
    gate = init_gate(jax.random.key(0), 8, 16)
    state = init_gate_state(gate, 2)
    variables = net.init(jax.random.key(1), state, X)
    _, y, gate = net.apply(variables, state, X)
    check(gate, y)


def test_the_nnx_block_and_its_gradient():
    net = run(2)["GatedLinear"](8, 16, nnx.Rngs(0))
    state = init_gate_state(net.gate.get_value(), 2)
    _, y, gate = net(state, X)
    check(gate, y)
    gradient = nnx.grad(lambda net: jnp.square(net(state, X)[1]).sum())(net)
    assert float(jnp.abs(jax.tree.leaves(gradient["linear"])[1]).max()) > 0


def test_the_plain_function_keeps_to_its_budget():
    names = run(3)
    params = {
        "gate": init_gate(jax.random.key(0), 8, 16),
        "kernel": jax.random.normal(jax.random.key(1), (8, 16)),
    }
    state = init_gate_state(params["gate"], 2)
    _, y, gate = names["layer"](params, state, X)
    check(gate, y)
    start = float(gate.mean())
    optimizer = optax.adam(0.03)
    moments = optimizer.init(params)

    @jax.jit
    def step(params, moments):
        updates, moments = optimizer.update(jax.grad(names["loss"])(params, state, X, 0), moments)
        return optax.apply_updates(params, updates), moments

    for _ in range(150):
        params, moments = step(params, moments)
    kept = float(names["layer"](params, state, X)[2].mean())
    assert abs(kept - 0.25) < 0.5 * abs(start - 0.25)


@pytest.mark.parametrize("name", ["run", "test"])
def test_the_commands_are_marked(name):
    block = re.search(rf"<!-- {name} command -->\n```bash\n(.*?)\n```\n<!-- end -->", TEXT)
    assert block is not None
    assert "\n" not in block[1]
