"""How fast the GRU is, forward and backward, beside Linen's RNN and PyTorch's.

    python benchmarks/gru.py                        # about a minute on two quiet cores

400 units on 400 inputs, 300 frames, batch 16, float32, all of them in one process with the same
weights: `dynse.layers.gru` with its gradient by hand and with plain autodiff, Linen's
RNN(GRUCell), and PyTorch's nn.GRU on two threads. Outputs and gradients are checked equal first.
Medians and quartiles over interleaved rounds; the ratios are medians of the rounds' own ratios.
A short pause before each call lets the other library's threads, which wait busily for more work,
go to sleep. Writes benchmarks/results/gru.json.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro

from dynse.evaluation.scores import commit, machine
from dynse.layers import gru as layer
from dynse.training.loop import write_json
from dynse.training.memory import keep_freed_memory

TORCH_THREADS = 2
PAUSE_S = 0.05
TORCH_NAMES = {
    "input_kernel": "weight_ih_l0",
    "hidden_kernel": "weight_hh_l0",
    "input_bias": "bias_ih_l0",
    "hidden_bias": "bias_hh_l0",
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Time the GRU."""

    units: int = 400
    """Width, and inputs."""
    frames: int = 300
    """Frames of a block; at least those that take the gradient by hand."""
    batch: int = 16
    """Sequences."""
    rounds: int = 30
    """Interleaved rounds."""
    out: pathlib.Path = pathlib.Path(__file__).parent / "results" / "gru.json"
    """Where the figures go."""


def main(arguments: Arguments) -> dict[str, Any]:
    """Check, measure, print, write."""
    if arguments.frames < layer.LONG_BLOCK:
        raise ValueError(f"frames must be at least {layer.LONG_BLOCK}, got {arguments.frames}")
    kept = keep_freed_memory()
    params, x, dy = _draw(arguments)
    forward, both = {}, {}
    forward["ours"], both["ours"] = _ours(params, x, dy)
    with mock.patch.object(layer, "_long_recurrence", layer._recurrence):
        forward["ours, plain autodiff"], both["ours, plain autodiff"] = _ours(params, x, dy)
    forward["linen"], both["linen"] = _linen(params, x, dy)
    forward["torch"], both["torch"] = _torch(params, x, dy)

    expected = both["ours"]()
    differences = {}
    for name, call in both.items():
        pairs = [(np.asarray(expected[key]), _joined(value)) for key, value in call().items()]
        difference = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)
        if not difference < 1e-4:
            raise RuntimeError(f"{name} differs from ours by {difference:.1e} of the largest value")
        differences[name] = float(f"{difference:.1e}")

    calls = {f"{name}, forward": call for name, call in forward.items()}
    calls |= {f"{name}, forward + backward": call for name, call in both.items()}
    times = _time(calls, arguments.rounds)
    results = {name: _summary(values) for name, values in times.items()}
    ratios = {
        f"{part}: {name} over ours": _ratio(times[f"{name}, {part}"], times[f"ours, {part}"])
        for part in ("forward", "forward + backward")
        for name in forward
        if name != "ours"
    }
    content = {
        "machine": machine(),
        "commit": commit(),
        "memory_kept": kept,
        "torch": {"version": torch.__version__, "threads": TORCH_THREADS},
        **{name: getattr(arguments, name) for name in ("units", "frames", "batch", "rounds")},
        "largest_difference_from_ours": differences,
        "times": results,
        "ratios": ratios,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, content)
    for name, values in (results | ratios).items():
        print(f"{name:50s} {values}")
    return content


def _draw(arguments: Arguments) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
    """Parameters, input (B, T, D) and gradient of the output (B, T, H).

    The hidden biases of r and z are zero: Linen's cell has none.
    """
    units = arguments.units
    draw = np.random.default_rng(0)
    shape = (arguments.batch, arguments.frames, units)
    x, dy = (jnp.asarray(draw.normal(size=shape), jnp.float32) for _ in range(2))
    state = jnp.zeros((arguments.batch, units))
    params = layer.GRU(units).init(jax.random.key(0), state, x[:, :1])["params"]
    params["hidden_bias"] = params["hidden_bias"].at[: 2 * units].set(0)
    return params, x, dy


def _ours(params: Any, x: jax.Array, dy: jax.Array) -> tuple[Callable, Callable]:
    """Compiled calls: forward to y, forward + backward to y and the gradients."""
    state = jnp.zeros((x.shape[0], params["hidden_kernel"].shape[0]))

    def run(params: Any, x: jax.Array) -> jax.Array:
        return layer.gru(params, state, x)[1]

    both = _compile_both(run, params, x, dy)

    def call() -> dict[str, Any]:
        y, (dparams, dx) = both()
        return {"y": y, "x": dx, **{name: dparams[name] for name in TORCH_NAMES}}

    return _compile(run, params, x), call


def _linen(params: Any, x: jax.Array, dy: jax.Array) -> tuple[Callable, Callable]:
    """The same of RNN(GRUCell)."""
    rnn = nn.RNN(nn.GRUCell(params["hidden_kernel"].shape[0]))
    cell: dict[str, dict[str, jax.Array]] = {}
    for source, prefix in (("input", "i"), ("hidden", "h")):
        kernels = jnp.split(params[f"{source}_kernel"], 3, axis=1)
        biases = jnp.split(params[f"{source}_bias"], 3)
        for gate, kernel, bias in zip("rzn", kernels, biases, strict=True):
            cell[prefix + gate] = {"kernel": kernel}
            if prefix + gate not in ("hr", "hz"):
                cell[prefix + gate]["bias"] = bias
    variables = {"params": {"cell": cell}}
    both = _compile_both(rnn.apply, variables, x, dy)

    def call() -> dict[str, Any]:
        y, (gradients, dx) = both()
        cell = gradients["params"]["cell"]
        kernels = {
            name: [cell[prefix + gate]["kernel"] for gate in "rzn"]
            for name, prefix in (("input_kernel", "i"), ("hidden_kernel", "h"))
        }
        return {"y": y, "x": dx, **kernels}

    return _compile(rnn.apply, variables, x), call


def _torch(params: Any, x: jax.Array, dy: jax.Array) -> tuple[Callable, Callable]:
    """The same of nn.GRU."""
    torch.set_num_threads(TORCH_THREADS)
    net = torch.nn.GRU(x.shape[-1], params["hidden_kernel"].shape[0], batch_first=True)
    with torch.no_grad():
        for name, theirs in TORCH_NAMES.items():
            getattr(net, theirs).copy_(torch.tensor(np.array(params[name]).T))
    inputs, doutputs = torch.tensor(np.array(x), requires_grad=True), torch.tensor(np.array(dy))

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return net(inputs)[0]

    def both() -> dict[str, Any]:
        net.zero_grad()
        inputs.grad = None
        y, _ = net(inputs)
        y.backward(doutputs)
        gradients = {n: getattr(net, theirs).grad.numpy().T for n, theirs in TORCH_NAMES.items()}
        return {"y": y.detach(), "x": inputs.grad, **gradients}

    return forward, both


def _joined(value: Any) -> np.ndarray:
    """An array, or those of the three gates side by side."""
    return np.concatenate(value, axis=-1) if isinstance(value, list) else np.asarray(value)


def _compile(run: Callable, variables: Any, x: jax.Array) -> Callable:
    compiled = jax.jit(run).lower(variables, x).compile()
    return lambda: jax.block_until_ready(compiled(variables, x))


def _compile_both(run: Callable, variables: Any, x: jax.Array, dy: jax.Array) -> Callable:
    def differentiate(variables: Any, x: jax.Array, dy: jax.Array) -> Any:
        y, pull = jax.vjp(run, variables, x)
        return y, pull(dy)

    compiled = jax.jit(differentiate).lower(variables, x, dy).compile()
    return lambda: jax.block_until_ready(compiled(variables, x, dy))


def _time(calls: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call in every round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return times


def _summary(values: list[float]) -> dict[str, Any]:
    low, median, high = (1000 * np.quantile(values, [0.25, 0.5, 0.75])).round(1).tolist()
    return {"median_ms": median, "quartiles_ms": [low, high]}


def _ratio(theirs: list[float], ours: list[float]) -> dict[str, Any]:
    by_round = np.divide(theirs, ours)
    low, median, high = np.quantile(by_round, [0.25, 0.5, 0.75]).round(2).tolist()
    return {"median": median, "quartiles": [low, high]}


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
