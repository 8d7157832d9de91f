"""How fast the sensitivity analysis is, beside Algorithm 1 as a plain loop in PyTorch.

    python benchmarks/sensitivity.py                # about seven minutes on two quiet cores

Algorithm 1 of Tan and Wang (`dynse.pruning.sensitivity`), each weight a group of its own, on an
LSTM and on a GCRN with random weights, twice as large as at the start of a training so that each
tensor matters, and the GCRN's running statistics those of its batches. The validation batches are
noise, their targets the output of the net as it is with noise on it: the time does not depend on
the values. It is done by

- scan: ours, the ratios in order with the early stop, six candidates or more at once;
- bisection: ours, the grid halved; both with one worker and with two;
- PyTorch: for each tensor and ratio from 5 % on, mask, evaluate the loss of all batches, stop at
  the first increase above alpha; in inference mode, on one thread or two, whichever is faster.

Weights and batches are the same. Alpha comes from our whole curves: the middle of the widest gap
between two increases, of those gaps where every curve crosses once, ratios differ and the loop
needs 6 to 12 evaluations a tensor on average. So bisection must find the loop's ratios, and
rounding decides none of them. Checked first is that losses agree to 1e-4 of the loss, that no
increase is within ten times their largest difference of alpha, and that all choose the same ratios.

Times are of the whole analysis, sorting of the weights included; compilation, of one sweep after
the other, is stated apart. Beside them stands one evaluation of the loss of the whole net, which
tells how much of a ratio is not due to the algorithm. Medians and quartiles are over interleaved
rounds; the ratios are medians of the rounds' own ratios. The goals are 2 for the scan and 4 for
bisection. A short pause before each call lets the other library's threads go to sleep. Writes
benchmarks/results/sensitivity.json.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro
from torch import nn

from dynse.evaluation.scores import commit, machine
from dynse.layers.norm import BatchNorm
from dynse.models.gcrn import GCRN, PARTS, STRIDE, TAPS
from dynse.models.lstm import LSTMMapping
from dynse.pruning import (
    Sensitivity,
    analyze_sensitivity,
    group_magnitudes,
    groups_by_rank,
    make_sweep,
    named_tensors,
    unstructured,
)
from dynse.training.loop import write_json
from dynse.training.memory import keep_freed_memory

GRID = range(5, 101, 5)
EVALUATIONS = (6, 12)  # that the loop may need a tensor, on average
SCALE = 2
TOLERANCE = 1e-4  # of losses, relative
MARGIN = 10  # distance of increases from alpha, in largest differences
THREADS = (1, 2)
PAUSE_S = 0.05
TORCH_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
    "input_kernel": "weight_ih_l0",
    "hidden_kernel": "weight_hh_l0",
    "input_bias": "bias_ih_l0",
    "hidden_bias": "bias_hh_l0",
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Time the sensitivity analysis."""

    lstm: tuple[int, ...] = (256, 256)
    """Widths of the LSTM net."""
    gcrn: tuple[int, ...] = (4, 8, 16, 32, 64)
    """Channels of the GCRN."""
    bins: int = 161
    """Frequencies of both."""
    utterances: int = 4
    """Of a validation batch."""
    frames: int = 401
    """Of an utterance: 4 s."""
    batches: int = 1
    """Of the validation set."""
    workers: tuple[int, ...] = (1, 2)
    """Candidates that ours evaluates at a time."""
    rounds: int = 5
    """Interleaved rounds."""
    out: pathlib.Path = pathlib.Path(__file__).parent / "results" / "sensitivity.json"
    """Where the figures go."""


def main(arguments: Arguments) -> dict[str, Any]:
    """Check, measure, print, write."""
    kept = keep_freed_memory()
    jax.config.update("jax_enable_compilation_cache", False)
    nets = {
        "lstm": (LSTMMapping(arguments.bins, arguments.lstm), TorchLSTM),
        "gcrn": (GCRN(arguments.bins, arguments.gcrn), TorchGCRN),
    }
    content = {
        "machine": machine(),
        "commit": commit(),
        "memory_kept": kept,
        "torch": torch.__version__,
        **{
            field.name: getattr(arguments, field.name)
            for field in dataclasses.fields(arguments)
            if field.name != "out"
        },
        **{name: _measure(model, kind, arguments) for name, (model, kind) in nets.items()},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, content)
    for name in nets:
        print(name)
        for key, values in content[name].items():
            if isinstance(values, dict) and key != "ratios_percent":
                for row, value in values.items():
                    print(f"    {row:32s} {value}")
            else:
                print(f"  {key:34s} {values}")
    return content


def _measure(model: Any, kind: type[nn.Module], arguments: Arguments) -> dict[str, Any]:
    """All figures of one net."""
    task = _task(model, arguments)
    plain = PlainLoop(kind(model), task)
    sweeps = {workers: make_sweep(task.loss, workers=workers) for workers in arguments.workers}
    compile_s = [_compile(sweep, task) for sweep in sweeps.values()]

    def ours(workers: int, alpha: float, **options: Any) -> Sensitivity:
        # Arrays of its own, as each iteration has, for which the net as it is must run.
        params = jax.tree.map(jnp.copy, task.params)
        return analyze_sensitivity(
            sweeps[workers], params, task.groups, task.batches, alpha=alpha, **options
        )

    whole = ours(arguments.workers[-1], 0, at_once=len(GRID) * len(task.groups))
    alpha = _choose_alpha(whole.curves)
    calls = {}
    for workers in arguments.workers:
        words = f"{workers} worker{'s' * (workers > 1)}"
        calls[f"scan, {words}"] = functools.partial(ours, workers, alpha)
        calls[f"bisection, {words}"] = functools.partial(ours, workers, alpha, bisect=True)
    calls["PyTorch"] = functools.partial(plain.analyze, alpha)
    found = {name: call() for name, call in calls.items()}
    check = _check(alpha, whole, found)

    batch, alone = task.batches[0], jax.jit(task.loss)
    times = _time(
        {
            **calls,
            "one evaluation": lambda: float(alone(task.params, batch)),
            "one evaluation, PyTorch": lambda: plain.evaluate_batch(0),
        },
        arguments.rounds,
    )
    theirs = dict.fromkeys(calls, "PyTorch") | {"one evaluation": "one evaluation, PyTorch"}
    del theirs["PyTorch"]
    return {
        "parameters": sum(tensor.size for tensor in named_tensors(task.params).values()),
        "tensors": len(task.groups),
        "torch_threads": plain.threads,
        "compile_s": compile_s,
        "alpha": alpha,
        "loss": whole.loss,
        "check": check,
        "ratios_percent": found["PyTorch"].ratios,
        "evaluations": {name: one.evaluations for name, one in found.items()},
        "times_s": {name: _summary(values) for name, values in times.items()},
        "ratios": {
            f"PyTorch over {name}": _summary(np.divide(times[their], times[name]))
            for name, their in theirs.items()
        },
    }


class Task(NamedTuple):
    """What both analyse.

    Attributes:
        params: pytree of arrays.
        stats: running statistics, or an empty dict.
        groups: of `params`.
        batches: frames and targets, each (B, T, ...).
        loss: `(params, batch) -> ()`.
    """

    params: Any
    stats: Any
    groups: Mapping[str, tuple[int, ...]]
    batches: list[tuple[jax.Array, jax.Array]]
    loss: Callable[[Any, Any], jax.Array]


def _task(model: Any, arguments: Arguments) -> Task:
    draw = np.random.default_rng(0)
    shape = (arguments.utterances, arguments.frames, *model.frame_shape)
    magnitudes = len(model.frame_shape) == 1

    def noise() -> jax.Array:
        drawn = draw.normal(size=shape).astype(np.float32)
        return jnp.asarray(abs(drawn) if magnitudes else drawn)

    frames = [noise() for _ in range(arguments.batches)]
    variables = jax.jit(model.init)(jax.random.key(0), frames[0][:, :1])
    params = jax.tree.map(lambda leaf: SCALE * leaf, variables["params"])
    stats = variables.get("batch_stats", {})
    if stats:

        @jax.jit
        def settle(stats: Any, frames: jax.Array) -> Any:
            variables = {"params": params, "batch_stats": stats}
            moved = model.apply(variables, frames, train=True, mutable=["batch_stats"])[1]
            # One step is `momentum` of the way.
            return jax.tree.map(
                lambda old, new: old + (new - old) / BatchNorm.momentum,
                stats,
                moved["batch_stats"],
            )

        stats = settle(stats, frames[0])

    def output(params: Any, frames: jax.Array) -> jax.Array:
        return model.apply({"params": params, "batch_stats": stats}, frames)[1]

    def loss(params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.square(output(params, batch[0]) - batch[1]).mean()

    own = [jax.jit(output)(params, one) for one in frames]
    targets = [one + one.std() * noise() / 10 for one in own]
    groups = unstructured(groups_by_rank(params))
    return Task(params, stats, groups, list(zip(frames, targets, strict=True)), loss)


def _compile(sweep: Any, task: Task) -> float:
    """Seconds that the first call of a sweep takes longer than the second."""
    magnitudes = group_magnitudes(task.params, task.groups)
    rows = np.eye(len(task.groups), dtype=np.float32)
    times = []
    for _ in range(2):
        started = time.perf_counter()
        sweep(task.params, magnitudes, rows, task.batches)
        times.append(time.perf_counter() - started)
    return round(times[0] - times[1], 2)


def _choose_alpha(curves: Mapping[str, Mapping[int, float]]) -> float:
    """The alpha of the module's docstring.

    Args:
        curves: path to ratio to increase, all ratios of the grid.
    """
    increases = np.array([[curve[ratio] for ratio in GRID] for curve in curves.values()])
    found = []
    values = np.unique(increases[increases > 0])
    for low, high in itertools.pairwise(values):
        above = increases > (low + high) / 2
        once = (above[:, :-1] <= above[:, 1:]).all()
        within = (~above).sum(1)
        # It stops at the first above, or at the end.
        evaluations = np.minimum(within + 1, len(GRID)).mean()
        if once and len(set(within)) > 2 and EVALUATIONS[0] <= evaluations <= EVALUATIONS[1]:
            found.append((high - low, (low + high) / 2))
    if not found:
        raise RuntimeError("no alpha at which all curves cross once, amid the grid")
    return float(max(found)[1])


def _check(alpha: float, whole: Sensitivity, found: Mapping[str, Sensitivity]) -> dict[str, float]:
    """Differences of losses and the distance from alpha; raises where the docstring is not so.

    Args:
        alpha: that all were found with.
        whole: our whole curves.
        found: by name.
    """
    loop = found["PyTorch"]
    differences = [
        abs(increase + loop.loss - whole.curves[path][ratio] - whole.loss)
        for path, curve in loop.curves.items()
        for ratio, increase in curve.items()
    ]
    largest = max(differences)
    margin = min(
        abs(increase - alpha) for curve in whole.curves.values() for increase in curve.values()
    )
    if not largest <= TOLERANCE * whole.loss:
        raise RuntimeError(f"PyTorch's loss differs by {largest:.1e} of {whole.loss:.1e}")
    if not margin > MARGIN * largest:
        raise RuntimeError(
            f"an increase is {margin:.1e} from alpha, losses differ by {largest:.1e}"
        )
    for name, one in found.items():
        if one.ratios != loop.ratios:
            raise RuntimeError(f"{name}: ratios {one.ratios}, PyTorch's are {loop.ratios}")
    return {
        "losses_compared": len(differences),
        "largest_difference_of_the_loss": float(f"{largest / whole.loss:.1e}"),
        "closest_to_alpha_of_the_loss": float(f"{margin / whole.loss:.1e}"),
    }


class PlainLoop:
    """Algorithm 1 in PyTorch, one evaluation at a time.

    Args:
        net: with the modules and parameters that this library's has, by the same names.
        task: what it analyses; weights and statistics are copied.
    """

    def __init__(self, net: nn.Module, task: Task) -> None:
        self.net = net.eval()
        variables = {**named_tensors(task.params), **named_tensors(task.stats)}
        self.weights = {}
        with torch.no_grad():
            for path, array in variables.items():
                *modules, name = path.split("/")
                module = net.get_submodule(".".join(modules))
                target = getattr(module, TORCH_NAMES[name])
                target.copy_(_as_torch(np.asarray(array), module))
                if path in task.groups:
                    self.weights[path] = target
        self.batches = [tuple(torch.tensor(np.array(one)) for one in b) for b in task.batches]
        self.threads = min(THREADS, key=self._seconds)
        torch.set_num_threads(self.threads)

    @torch.inference_mode()
    def evaluate_batch(self, index: int) -> float:
        """The loss of one batch."""
        frames, target = self.batches[index]
        return (self.net(frames) - target).square().mean().item()

    def evaluate(self) -> float:
        """The loss."""
        return float(np.mean([self.evaluate_batch(index) for index in range(len(self.batches))]))

    @torch.no_grad()
    def analyze(self, alpha: float) -> Sensitivity:
        """Algorithm 1; 0 % is not evaluated, its increase being 0."""
        base = self.evaluate()
        ratios, thresholds, curves = {}, {}, {}
        for path, weight in self.weights.items():
            before, magnitudes = weight.clone(), weight.abs()
            ordered = magnitudes[magnitudes > 0].sort().values
            ratios[path], thresholds[path], curves[path] = 0, 0.0, {0: 0.0}
            for ratio in GRID:
                count = len(ordered) * ratio // 100
                threshold = ordered[count - 1] if count else ordered.new_zeros(())
                weight.copy_(torch.where(magnitudes > threshold, before, 0))
                curves[path][ratio] = increase = self.evaluate() - base
                if increase > alpha:
                    break
                ratios[path], thresholds[path] = ratio, threshold.item()
            weight.copy_(before)
        return Sensitivity(ratios, thresholds, curves, base)

    def _seconds(self, threads: int) -> float:
        """Of one evaluation on so many threads, at best."""
        torch.set_num_threads(threads)
        times = []
        for _ in range(4):
            started = time.perf_counter()
            self.evaluate_batch(0)
            times.append(time.perf_counter() - started)
        return min(times)


def _as_torch(array: np.ndarray, module: nn.Module) -> torch.Tensor:
    """A kernel as PyTorch has it; a vector as it is."""
    if array.ndim < 4:
        return torch.tensor(array.T)
    axes = (2, 3, 0, 1) if isinstance(module, nn.ConvTranspose2d) else (3, 2, 0, 1)
    return torch.tensor(array.transpose(axes))


class TorchLSTM(nn.Module):
    """`LSTMMapping`."""

    def __init__(self, model: LSTMMapping) -> None:
        super().__init__()
        self.depth, width = len(model.hidden), model.bins
        for index, hidden in enumerate(model.hidden):
            self.add_module(f"lstm{index + 1}", nn.LSTM(width, hidden, batch_first=True))
            width = hidden
        self.fc = nn.Linear(width, model.bins)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> (B, T, F)."""
        for index in range(self.depth):
            x, _ = self.get_submodule(f"lstm{index + 1}")(x)
        return self.fc(x).relu()


class TorchGLU(nn.Module):
    """a * sigmoid(b) of two layers."""

    def __init__(self, kind: type[nn.Module], *sizes: int, **options: Any) -> None:
        super().__init__()
        self.linear, self.sigmoid = (
            kind(*sizes, TAPS, stride=(1, STRIDE), **options) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T, F) -> (B, D, T, F')."""
        return self.linear(x) * self.sigmoid(x).sigmoid()


class TorchGCRN(nn.Module):
    """`GCRN`."""

    def __init__(self, model: GCRN) -> None:
        super().__init__()
        channels, widths = model.channels, model.widths
        self.depth, self.groups = len(channels), model.groups
        for index, (before, width) in enumerate(zip((2, *channels), channels, strict=False)):
            self._add(f"encoder{index}", "conv", width, TorchGLU(nn.Conv2d, before, width))
            output = widths[index] - (STRIDE * (widths[index + 1] - 1) + TAPS[1])
            narrow = channels[index - 1] if index else 1
            for part in PARTS:
                glu = TorchGLU(nn.ConvTranspose2d, 2 * width, narrow, output_padding=(0, output))
                self._add(f"{part}{index}", "deconv", narrow, glu)
        features, part = model.lstm_features, model.lstm_features // model.groups
        for number in "12":
            groups = {
                f"group{i}": nn.LSTM(part, part, batch_first=True) for i in range(self.groups)
            }
            self.add_module(f"lstm{number}", nn.ModuleDict(groups))
            self.add_module(f"norm{number}", nn.LayerNorm(features))
        for part in PARTS:
            self.add_module(f"{part}_fc", nn.Linear(model.bins, model.bins))

    def _add(self, name: str, layer: str, width: int, glu: TorchGLU) -> None:
        self.add_module(name, nn.ModuleDict({layer: glu, "norm": nn.BatchNorm2d(width)}))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(B, T, F, 2) -> (B, T, F, 2)."""
        elu, x, encoded = nn.functional.elu, frames.permute(0, 3, 1, 2), []
        for index in range(self.depth):
            encoder = self.get_submodule(f"encoder{index}")
            x = elu(encoder["norm"](encoder["conv"](x)))
            encoded.append(x)
        batch, channels, length, width = x.shape
        h = x.transpose(1, 2).reshape(batch, length, -1)
        h = self.norm1(torch.stack(self._lstms("lstm1", h), dim=-1).flatten(-2))
        h = self.norm2(torch.cat(self._lstms("lstm2", h), dim=-1))
        h = h.reshape(batch, length, channels, width).transpose(1, 2)
        both = torch.cat([h, x], dim=1)
        return torch.stack([self._decode(part, both, encoded) for part in PARTS], dim=-1)

    def _lstms(self, name: str, h: torch.Tensor) -> list[torch.Tensor]:
        lstms = self.get_submodule(name).values()
        parts = h.chunk(self.groups, dim=-1)
        return [lstm(part)[0] for lstm, part in zip(lstms, parts, strict=True)]

    def _decode(self, part: str, x: torch.Tensor, encoded: list[torch.Tensor]) -> torch.Tensor:
        for index in range(self.depth - 1, -1, -1):
            decoder = self.get_submodule(f"{part}{index}")
            x = decoder["norm"](decoder["deconv"](x))
            x = nn.functional.elu(torch.cat([x, encoded[index - 1]], dim=1) if index else x)
        return self.get_submodule(f"{part}_fc")(x[:, 0])


def _time(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call in every round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        if name.startswith("one evaluation"):  # the others have run in the check
            call()
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return times


def _summary(values: Any) -> dict[str, Any]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).round(3).tolist()
    return {"median": median, "quartiles": [low, high]}


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
