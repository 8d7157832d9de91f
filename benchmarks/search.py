"""How many genomes a second the search evaluates, and what traced bit widths are worth.

    python benchmarks/search.py                     # about two minutes on two quiet cores

Random genomes of the integer GRU classifier, 64 units and a dense layer at 8 bits, on a validation
split: spoken digits, or the embedded words. The float net below is trained for a few epochs. An
evaluation is the accuracy of one genome over the split, by

- ours: `dynse.search.batched`, a population in one program, for several chunks;
- recompiled: the same integer net with the genome a constant, one program a genome, compilation
  included: what a search costs without traced widths. The persistent compilation cache is off;
- NumPy and PyTorch, on one thread and on two, one genome at a time, from the same arrays,
  vectorised over sequences: the matmuls of all inputs before the loop over frames, matmuls in
  float32 and their rescaling in float64, where both are exact, all else in int32, functions as
  tables of centred codes. The input is quantised once for all genomes, the complement of z is a
  table too.

The output codes of all of them are compared bit for bit first. Rates are genomes per second,
medians and quartiles over interleaved rounds; each round draws genomes of its own, and the ratios
are medians of the rounds' own ratios. A short pause before each call lets the other library's
threads go to sleep. Writes benchmarks/results/search.json.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import tyro
from threadpoolctl import ThreadpoolController

from dynse.data.spoken_digits import spoken_digits
from dynse.data.synthetic_words import synthetic_words
from dynse.evaluation.scores import commit, machine
from dynse.quantization import (
    GRU_OPERATIONS,
    IntegerNet,
    apply_integer,
    init_state,
    quantize_input,
)
from dynse.quantization.genome import INPUT_BITS
from dynse.quantization.numerics import MIN_BITS
from dynse.search import batched
from dynse.training.bit_tasks import (
    HEAD_BITS,
    BitTask,
    classification_task,
    full_genome,
    integer_scores,
    quantize,
    train_float,
)
from dynse.training.loop import write_json
from dynse.training.memory import keep_freed_memory
from dynse.training.sequences import SequenceTraining

THREADS = (1, 2)  # of NumPy and PyTorch: matmuls this small may be faster on one
PAUSE_S = 0.05
SEARCH_EVALUATIONS = 64 * 60


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Time the evaluation of genomes."""

    corpus: pathlib.Path | None = None
    """Folder with digits/SPEAKER/*; the embedded words if not given."""
    cache_dir: pathlib.Path | None = None
    """Where decoded corpora are kept; ~/.cache/dynse if not given."""
    hidden: int = 64
    """Units of the GRU."""
    epochs: int = 5
    """That the float net is trained for."""
    population: int = 64
    """Genomes that ours evaluates in one call."""
    chunks: tuple[int, ...] = (1, 2, 4, 8)
    """Genomes that ours evaluates side by side."""
    alone: int = 8
    """Genomes a round for NumPy and PyTorch."""
    recompiled: int = 1
    """Genomes a round that are recompiled for."""
    checked: int = 4
    """Genomes whose codes are compared."""
    rounds: int = 9
    """Interleaved rounds."""
    out: pathlib.Path = pathlib.Path(__file__).parent / "results" / "search.json"
    """Where the figures go."""


def main(arguments: Arguments) -> dict[str, Any]:
    """Check, measure, print, write."""
    kept = keep_freed_memory()
    jax.config.update("jax_enable_compilation_cache", False)
    task = _task(arguments)
    params, history = train_float(
        task, arguments.hidden, SequenceTraining(epochs=arguments.epochs, input_noise=0.3), seed=0
    )
    net = quantize(task, params, method="minmax", weights="minmax")
    draw = np.random.default_rng(0)
    alone = {
        name: OneGenome(library, net, task.valid)
        for name, library in (("NumPy", NUMPY), ("PyTorch", TORCH))
    }
    compared = _check_equal(task, net, alone, _genomes(draw, arguments.checked))

    calls: dict[str, tuple[int, Callable[[np.ndarray], Any]]] = {
        f"ours, chunk {chunk}": (arguments.population, _ours(task, net, chunk))
        for chunk in arguments.chunks
    }
    calls["recompiled"] = (arguments.recompiled, _recompiled(task, net))
    calls |= {
        f"{name}, {threads} thread{'s' * (threads > 1)}": (
            arguments.alone,
            _on_threads(one.accuracies, threads),
        )
        for name, one in alone.items()
        for threads in THREADS
    }
    rates = _rates(calls, arguments.rounds, draw)

    medians = {name: float(np.median(values)) for name, values in rates.items()}
    ours = max((name for name in calls if name.startswith("ours")), key=medians.__getitem__)
    others = [name for name in calls if not name.startswith("ours")]
    faster = max((name for name in others if name != "recompiled"), key=medians.__getitem__)
    results = {name: _summary(values) for name, values in rates.items()}
    ratios = {f"{ours} over {other}": _summary(rates[ours] / rates[other]) for other in others}
    rows, frames, inputs = task.valid[0].shape
    content = {
        "machine": machine(),
        "commit": commit(),
        "memory_kept": kept,
        "torch": torch.__version__,
        "task": {"name": task.name, "rows": rows, "frames": frames, "inputs": inputs},
        "hidden": arguments.hidden,
        "float_net": {"epochs": arguments.epochs, "valid_loss": history[-1]["valid_loss"]},
        "genomes_a_round": {name: count for name, (count, _) in calls.items()},
        "rounds": arguments.rounds,
        "codes_compared": compared,
        "genomes_per_second": results,
        "ratios": ratios,
        "faster_one_at_a_time": faster,
        "seconds_of_64_x_60_genomes": round(SEARCH_EVALUATIONS / medians[ours], 1),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, content)
    for name, values in (results | ratios).items():
        print(f"{name:32s} {values}")
    print(f"64 x 60 genomes: {content['seconds_of_64_x_60_genomes']} s of evaluation")
    return content


def _task(arguments: Arguments) -> BitTask:
    if arguments.corpus is None:
        return classification_task(synthetic_words(cache_dir=arguments.cache_dir))
    digits = spoken_digits(arguments.corpus / "digits", cache_dir=arguments.cache_dir)
    return classification_task(digits)


def _genomes(draw: np.random.Generator, count: int) -> np.ndarray:
    return draw.integers(2, 9, (count, len(GRU_OPERATIONS))).astype(np.int32)


def _codes(genome: Any, net: IntegerNet, features: jax.Array) -> jax.Array:
    """Output codes (N, T, K)."""
    genome = full_genome(genome)
    state = init_state(net, genome, features.shape[0])
    return apply_integer(net, genome, state, quantize_input(net, features))[1]


def _ours(task: BitTask, net: IntegerNet, chunk: int) -> Callable[[np.ndarray], np.ndarray]:
    """Accuracies of a population, one program for all."""

    def evaluate_one(genome: jax.Array, net: IntegerNet, rows: Any) -> jax.Array:
        return integer_scores(task, net, genome, rows).mean()

    evaluate = batched(evaluate_one, chunk=chunk)
    return lambda genomes: np.asarray(evaluate(genomes, net, task.valid))


def _recompiled(task: BitTask, net: IntegerNet) -> Callable[[np.ndarray], np.ndarray]:
    """Accuracies of genomes, a program for each."""

    def accuracy(genome: np.ndarray) -> jax.Array:
        # A new function each time: JAX keeps programs by the function they were made from.
        run = jax.jit(lambda net, rows: integer_scores(task, net, genome, rows).mean())
        return run(net, task.valid)

    return lambda genomes: np.array([accuracy(genome) for genome in genomes])


def _on_threads(
    call: Callable[[np.ndarray], np.ndarray], threads: int
) -> Callable[[np.ndarray], np.ndarray]:
    """The same with so many threads for BLAS and PyTorch; XLA's are its own."""
    libraries = ThreadpoolController()

    def limited(genomes: np.ndarray) -> np.ndarray:
        torch.set_num_threads(threads)
        with libraries.limit(limits=threads):
            return call(genomes)

    return limited


class Library(NamedTuple):
    """What NumPy and PyTorch spell differently."""

    array: Callable[[np.ndarray], Any]
    cast: Callable[[Any, str], Any]
    half: Callable[[Any], Any]  # 1/2 with the sign of x
    pick: Callable[[Any, Any], Any]  # entries of a table (n,) at indices of any shape
    scope: Callable[[], contextlib.AbstractContextManager]


NUMPY = Library(
    array=np.ascontiguousarray,
    cast=lambda x, kind: x.astype(kind),
    half=lambda x: np.copysign(0.5, x),
    pick=lambda table, index: table.take(index, mode="clip"),  # faster than with a check
    scope=contextlib.nullcontext,
)
TORCH = Library(
    array=lambda x: torch.from_numpy(np.array(x)),
    cast=lambda x, kind: x.to(getattr(torch, kind)),
    half=lambda x: x.sign().mul_(0.5),
    pick=lambda table, index: table.index_select(0, index.view(-1)).view(index.shape),
    scope=torch.inference_mode,
)


class OneGenome:
    """The integer classifier at one genome at a time, in NumPy or PyTorch.

    Args:
        library: which of them.
        net: a GRU and a dense layer without activation, all matmuls exact in float32.
        rows: features (N, T, D), lengths (N,), labels (N,).
    """

    def __init__(self, library: Library, net: IntegerNet, rows: Any) -> None:
        self.library = library
        self.gru, self.dense = jax.tree.map(np.asarray, net.parts)
        if not all(part.exact for part in (*self.gru.linears.values(), self.dense.linear)):
            raise ValueError("expected matmuls that are exact in float32, got some that are not")
        centred = np.asarray(quantize_input(net, rows[0]) - net.input_grid.zero_point[-1])
        self.x = library.array(centred.swapaxes(0, 1).astype(np.float32))
        self.lengths, self.labels = (np.asarray(leaf) for leaf in rows[1:])

    def accuracies(self, genomes: np.ndarray) -> np.ndarray:
        """In %, (P,)."""
        last = np.arange(len(self.labels)), self.lengths - 1
        right = [self.codes(genome)[last].argmax(-1) == self.labels for genome in genomes]
        return 100 * np.mean(right, axis=1)

    def codes(self, genome: np.ndarray) -> np.ndarray:
        """Output codes (N, T, K)."""
        with self.library.scope():
            bits = dict(zip(GRU_OPERATIONS, genome.tolist(), strict=True))
            hs = self._recurrence(bits)
            low = -int(self.dense.grid.zero_point[HEAD_BITS - MIN_BITS])
            linear = self._linear(self.dense.linear, HEAD_BITS, bits["h"], low)
            return np.asarray(linear(hs) - low).swapaxes(0, 1)

    def _recurrence(self, bits: dict[str, int]) -> Any:
        """Centred codes of h of all frames, (T, N, H) float32."""
        gru, cast, pick = self.gru, self.library.cast, self.library.pick
        at = {name: width - MIN_BITS for name, width in bits.items()}
        low = {name: -int(gru.grids[name].zero_point[at[name]]) for name in bits}
        high = {name: low[name] + 2 ** bits[name] - 1 for name in bits}

        def linears(names: Sequence[str], input_bits: int) -> list[Callable[[Any], Any]]:
            return [
                self._linear(gru.linears[name], bits[name], input_bits, low[name]) for name in names
            ]

        def constants(arrays: Any, *names: str) -> list[int]:
            return [int(array[tuple(at[name] for name in names)]) for array in arrays]

        def rescaled(value: Any, shift: int, name: str) -> Any:
            value += (value >> 31) + (1 << (shift - 1))
            value >>= shift
            return value.clip(low[name], high[name])

        def add(name: str, name_a: str, name_b: str) -> Callable[[Any, Any], Any]:
            factor_a, factor_b, shift = constants(gru.sums[name], name_a, name_b, name)

            def call(a: Any, b: Any) -> Any:
                value = a * factor_a
                value += b * factor_b
                return rescaled(value, shift, name)

            return call

        def multiply(name: str, name_a: str, name_b: str) -> Callable[[Any, Any], Any]:
            factor, shift = constants(gru.products[name], name_a, name_b, name)

            def call(a: Any, b: Any) -> Any:
                value = a * b
                value *= factor
                return rescaled(value, shift, name)

            return call

        def function(name: str, of: str) -> Callable[[Any], Any]:
            codes = gru.tables[name][at[of], at[name]].astype(np.int32)
            table = self.library.array(codes + np.int32(low[name]))
            return lambda a: pick(table, a - low[of])

        factor, shift = constants(gru.complement, "z", "1-z")
        exact = (2 ** bits["z"] - 1 - np.arange(2 ** bits["z"])) * factor
        ones = np.minimum((exact + 2 ** (shift - 1)) >> shift, high["1-z"])
        complement = self.library.array(ones.astype(np.int32))

        r_pre, z_pre = add("r_pre", "W_ir", "W_hr"), add("z_pre", "W_iz", "W_hz")
        n_pre, h_sum = add("n_pre", "W_in", "r*hn"), add("h", "(1-z)*n", "z*h")
        sigmoid_r, sigmoid_z = function("r", "r_pre"), function("z", "z_pre")
        tanh = function("n", "n_pre")
        reset = multiply("r*hn", "r", "W_hn")
        new, kept = multiply("(1-z)*n", "1-z", "n"), multiply("z*h", "z", "h")
        of_x = [linear(self.x) for linear in linears(("W_ir", "W_iz", "W_in"), INPUT_BITS)]
        of_h = linears(("W_hr", "W_hz", "W_hn"), bits["h"])

        hs = cast(of_x[0], "float32")
        h = of_x[0][0] * 0
        for frame, (x_r, x_z, x_n) in enumerate(zip(*of_x, strict=True)):
            before = cast(h, "float32")
            h_r, h_z, h_n = (linear(before) for linear in of_h)
            r, z = sigmoid_r(r_pre(x_r, h_r)), sigmoid_z(z_pre(x_z, h_z))
            n = tanh(n_pre(x_n, reset(r, h_n)))
            h = h_sum(new(pick(complement, z), n), kept(z, h))
            hs[frame] = h
        return hs

    def _linear(self, linear: Any, bits: int, input_bits: int, low: int) -> Callable[[Any], Any]:
        """Centred codes (..., D) float32 to centred codes (..., K) int32."""
        at = bits - MIN_BITS, input_bits - MIN_BITS
        kernel = self.library.array(linear.kernel[at[0]].astype(np.float32))
        bias = self.library.array(linear.bias[at].astype(np.float64))
        # |accumulator| M < 2^46 and s <= 46: exact in float64, with 1/2 added too.
        scale = float(linear.multiplier[at]) * 2.0 ** -int(linear.shift[at])
        high = low + 2**bits - 1

        def call(x: Any) -> Any:
            value = self.library.cast(x @ kernel, "float64")
            value += bias
            value *= scale
            value += self.library.half(value)
            return self.library.cast(value.clip(low, high), "int32")  # truncates: half away

        return call


def _check_equal(
    task: BitTask, net: IntegerNet, alone: Mapping[str, OneGenome], genomes: np.ndarray
) -> int:
    """Raises where a code differs; how many codes of each were compared."""
    features = task.valid[0]
    expected = np.asarray(batched(_codes, chunk=2)(genomes, net, features))
    for genome, codes in zip(genomes, expected, strict=True):
        constant = jax.jit(lambda features, genome=genome: _codes(genome, net, features))
        others = {"recompiled": np.asarray(constant(features))}
        others |= {name: one.codes(genome) for name, one in alone.items()}
        for name, other in others.items():
            differing = int((other != codes).sum())
            if differing or other.shape != codes.shape:
                raise RuntimeError(f"{name}: {differing} codes differ from ours at {genome}")
    return expected.size


def _rates(
    calls: Mapping[str, tuple[int, Callable[[np.ndarray], np.ndarray]]],
    rounds: int,
    draw: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Genomes per second of each, (rounds,). The accuracies of common genomes must be equal."""
    for count, call in calls.values():
        call(_genomes(draw, count))
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        genomes = _genomes(draw, max(count for count, _ in calls.values()))
        accuracies = {}
        for name, (count, call) in calls.items():
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            accuracies[name] = call(genomes[:count])
            rates[name].append(count / (time.perf_counter() - started))
        first = next(iter(accuracies.values()))
        for name, values in accuracies.items():
            # A mean in float32 here, in float64 there.
            if np.abs(values - first[: len(values)]).max() > 1e-3:
                raise RuntimeError(f"{name}: accuracies {values}, expected {first}")
    return {name: np.array(values) for name, values in rates.items()}


def _summary(values: np.ndarray) -> dict[str, Any]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).round(2).tolist()
    return {"median": median, "quartiles": [low, high]}


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
