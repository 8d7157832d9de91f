"""How fast the train step is.

    python benchmarks/train_step.py                 # about five minutes on two cores

Measures, in one process on one machine, medians and quartiles over interleaved rounds: the whole
train step (batch drawn, STFTs, net, loss, gradient, AdamW) of the causal 128/256 net, batch 16 x
2 s, dense and gated, as multiples of real time; the net alone, forward and forward + backward;
the same net with plain autodiff in place of the hand-written gradients (gradients checked equal
first); and the dense net's step in plain PyTorch (`torch_conv_fsenet.py`: eager, and with the net
and loss through torch.compile), which is given its batch mixed and has no schedule of its learning
rate; loss and gradients are checked equal first.
With --system-malloc it leaves glibc's malloc as it is, for comparison.
Writes benchmarks/results/train_step.json.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import tyro
from torch_conv_fsenet import Trainer

from dynse.audio.features import magnitude
from dynse.audio.stft import STFT
from dynse.data.bank import Bank
from dynse.data.mixing import MixingConfig, draw_batch, load_source
from dynse.evaluation.scores import commit, machine
from dynse.layers import conv, norm
from dynse.models.conv_fsenet import ConvFSENet
from dynse.training.dyncp_nets import PUBLISHED, dyncp
from dynse.training.loop import write_json
from dynse.training.losses import compressed_spectral_loss
from dynse.training.memory import keep_freed_memory
from dynse.training.nets import ConvFSENetConfig
from dynse.training.runs import RunConfig, new_state, train_crops, train_step

THRESHOLD = 0.025  # e_t of active frames (`dynse.training.losses`), as published: all steps here
NETS = {
    "dense": ConvFSENetConfig(),
    "gated, as published": PUBLISHED,
    "gated, output": dyncp(),
    "gated, inner": dyncp("inner"),
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Time the train step."""

    rounds: int = 15
    """Interleaved rounds; medians and quartiles are over these."""
    torch_threads: int = len(os.sched_getaffinity(0))
    """That PyTorch computes with."""
    system_malloc: bool = False
    """Leave malloc as it is."""
    out: pathlib.Path = pathlib.Path(__file__).parent / "results" / "train_step.json"
    """Where the figures go."""


def main(arguments: Arguments) -> dict[str, Any]:
    """Measure, print, write."""
    kept = False if arguments.system_malloc else keep_freed_memory()
    speech, noise = load_source(_bank(0)), load_source(_bank(1))
    seconds_of_audio = RunConfig().mixing.batch_size * RunConfig().mixing.crop_s
    calls: dict[str, Callable[[], Any]] = {}
    compile_s = {}
    for name, net in NETS.items():
        config = RunConfig(net=net, active_threshold=THRESHOLD)
        step = train_step(config)
        holder = [new_state(config)]
        coming = train_crops(config, speech, noise).each(itertools.count())

        def run(step=step, holder=holder, coming=coming):
            holder[0], _ = step(holder[0], *next(coming))
            return holder[0]

        started = time.perf_counter()
        jax.block_until_ready(run())
        compile_s[name] = time.perf_counter() - started
        calls[f"step, {name}"] = run

    batch = draw_batch(speech, noise, jax.random.key(0), MixingConfig())
    frames = magnitude(STFT().forward(batch.noisy))
    variables = ConvFSENet().init(jax.random.key(0), frames[:1])
    forward, both = _net(variables), jax.jit(jax.grad(_net(variables), has_aux=True))
    with (
        mock.patch.multiple(conv, pointwise=_plain_pointwise, _shift_multiply_add=_plain_shift),
        mock.patch.object(norm, "normalize_batch", _plain_norm),
    ):
        plain = jax.jit(jax.grad(_net(variables), has_aux=True))
        expected = plain(variables["params"], frames)
    _check_equal(both(variables["params"], frames)[0], expected[0])
    forward = jax.jit(forward)
    calls["net, forward"] = lambda: forward(variables["params"], frames)
    calls["net, forward + backward"] = lambda: both(variables["params"], frames)
    calls["net, forward + backward, plain autodiff"] = lambda: plain(variables["params"], frames)
    if jax.default_backend() == "cpu":
        calls |= _torch_steps(variables, batch, arguments.torch_threads)
    else:
        print("PyTorch is measured on a CPU alone: left out")

    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    draw = np.random.default_rng(0)
    for _ in range(arguments.rounds):
        # In another order each time: PyTorch's threads spin on for a while.
        for name in draw.permutation(list(calls)):
            call = calls[name]
            started = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - started)

    results = {name: _summary(values) for name, values in times.items()}
    for name in NETS:
        median = results[f"step, {name}"]["median_ms"] / 1000
        results[f"step, {name}"]["times_real_time"] = round(seconds_of_audio / median, 1)
        results[f"step, {name}"]["first_call_s"] = round(compile_s[name], 1)
    ratio = results["net, forward + backward"]["median_ms"] / results["net, forward"]["median_ms"]
    speedup = (
        results["net, forward + backward, plain autodiff"]["median_ms"]
        / results["net, forward + backward"]["median_ms"]
    )
    dense = results["step, dense"]["median_ms"]
    over_torch = {
        name: round(values["median_ms"] / dense, 2)
        for name, values in results.items()
        if "PyTorch" in name
    }
    content = {
        "machine": machine(),
        "commit": commit(),
        "torch": {"version": torch.__version__, "threads": arguments.torch_threads},
        "memory_kept": kept,
        "rounds": arguments.rounds,
        "times": results,
        "forward_backward_over_forward": round(ratio, 2),
        "plain_autodiff_over_ours": round(speedup, 2),
        "pytorch_over_ours": over_torch,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, content)
    for name, values in results.items():
        print(f"{name:42s} {values}")
    print(f"forward + backward over forward {ratio:.2f}; plain autodiff over ours {speedup:.2f}")
    print(f"PyTorch over ours: {over_torch}")
    return content


def _torch_steps(variables: Any, batch: Any, threads: int) -> dict[str, Callable[[], Any]]:
    """Whole steps of the dense net in PyTorch, from the mixed batch on."""
    torch.set_num_threads(threads)
    given = [torch.tensor(np.array(part)) for part in (batch.noisy, batch.clean)]
    stft, steps = STFT(), {}

    def loss(params: Any) -> jax.Array:
        frames = stft.forward(batch.noisy)
        (_, gain, _), _ = ConvFSENet().apply(
            {**variables, "params": params}, magnitude(frames), train=True, mutable=["batch_stats"]
        )
        enhanced = stft.inverse(gain * frames, batch.noisy.shape[1])
        return compressed_spectral_loss(
            enhanced, batch.clean, stft=stft, threshold=THRESHOLD
        ).mean()

    expected, gradient = jax.jit(jax.value_and_grad(loss))(variables["params"])
    for name, compiled in (("PyTorch, eager", False), ("PyTorch, compiled", True)):
        trainer = Trainer(variables["params"], stft, THRESHOLD, compiled=compiled)
        try:
            found = trainer.gradients(*given)
        except torch._dynamo.exc.TorchDynamoException as error:
            if not compiled:
                raise
            print(f"{name}: {type(error).__name__}, left out")  # it needs a compiler that it knows
            continue
        ours = [gradient["front"]["kernel"].T, gradient["block4"]["conv2"]["kernel"].T]
        theirs = [trainer.net.front.weight.grad, trainer.net.blocks[4].conv2.weight.grad]
        error = max(
            np.linalg.norm(one - other[..., 0].numpy()) / np.linalg.norm(one)
            for one, other in zip(ours, theirs, strict=True)
        )
        print(f"{name}: loss {found:.6f} against {float(expected):.6f}, gradients {error:.1e}")
        if not (abs(found / float(expected) - 1) < 1e-5 and error < 1e-2):
            raise RuntimeError(f"{name} is not the same net")
        steps[f"step, dense, {name}"] = lambda trainer=trainer: trainer.step(*given)
    return steps


def _bank(seed: int) -> Bank:
    samples = np.random.default_rng(seed).normal(scale=3000, size=600 * 16000).astype(np.int16)
    offsets = np.arange(0, len(samples) + 1, 10 * 16000)
    names = tuple(f"{index:03d}" for index in range(len(offsets) - 1))
    return Bank(samples, offsets, names, names)


def _net(variables: Any) -> Callable[..., Any]:
    def call(params: Any, frames: jax.Array) -> tuple[jax.Array, Any]:
        (_, gain, _), updated = ConvFSENet().apply(
            {**variables, "params": params}, frames, train=True, mutable=["batch_stats"]
        )
        return jnp.square(gain).sum(), updated

    return call


def _plain_pointwise(kernel, x):
    return x @ kernel


def _plain_shift(kernel, signal, dilation):
    frames = signal.shape[1] - (kernel.shape[0] - 1) * dilation
    return sum(
        kernel[k] * signal[:, k * dilation : k * dilation + frames] for k in range(len(kernel))
    )


def _plain_norm(scale, bias, x, relu=False):
    mean = x.mean((0, 1))
    var = jnp.square(x - mean).mean((0, 1))
    y = (x - mean) * jax.lax.rsqrt(var + norm.EPS) * scale + bias
    return jnp.maximum(y, 0) if relu else y, mean, var


def _check_equal(ours: Any, plain: Any) -> None:
    """Both gradients are the same but for rounding, which decides some ReLUs the other way.

    That the formulas are equal is tested in float64, in tests/layers.
    """
    error = optax.tree.norm(jax.tree.map(jnp.subtract, ours, plain)) / optax.tree.norm(plain)
    print(f"relative difference of the two gradients: {float(error):.1e}")
    if not error < 1e-2:
        raise RuntimeError(f"the two gradients differ by {float(error):.1e} of their norm")


def _summary(values: list[float]) -> dict[str, float]:
    low, median, high = (1000 * np.quantile(values, [0.25, 0.5, 0.75])).round(1).tolist()
    return {"median_ms": median, "quartiles_ms": [low, high]}


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
