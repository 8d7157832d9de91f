"""How good the genetic search is: NSGA-II beside pymoo's, at equal evaluations.

    python benchmarks/nsga2.py                      # about five minutes on two cores; needs pymoo

Median hypervolume of the final population over 11 seeds, population and evaluations the same, on

- ZDT1, ZDT2, ZDT3 (Zitzler, Deb, Thiele, 2000) with 30 genes of 0 ... 1023, divided by 1023;
  reference (1.1, 1.1);
- a knapsack: 0 to 7 copies of each of 40 things with two profits, both maximised, capacity half
  of the weight of all copies; what is too heavy pays more profit than its excess can bring.
  Objectives are the fractions of the profits not packed; reference (1, 1);
- bit widths: 17 genes of 2 ... 8, the real use: size against the logarithm of a sum of
  quantisation noises, both scaled to 0 ... 1; reference (1.1, 1.1).

pymoo's NSGA2 runs with four settings, its own removal of duplicates on and genes rounded:

- same operators: two-point crossover 0.9, polynomial mutation of one gene in G, with our eta;
- eta 20: the same with NSGA-II's eta;
- mutation 0.2: as before, but only a fifth of the offspring is mutated, as in published code;
- defaults: simulated binary crossover with eta 15, polynomial mutation with eta 20.

A ratio above 1 says that ours is better. Writes benchmarks/results/nsga2.json.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from dynse.atomic import write_whole
from dynse.evaluation.scores import commit, machine
from dynse.search import NSGA2, PolynomialMutation, TwoPointCrossover, hypervolume


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compare the search with pymoo's."""

    seeds: int = 11
    """Runs per problem and setting; medians are over these."""
    population: int = 64
    """Genomes per generation."""
    generations: int = 150
    """The first population included."""
    problems: tuple[str, ...] = ("zdt1", "zdt2", "zdt3", "knapsack", "bit widths")
    """Which of them."""
    out: pathlib.Path = pathlib.Path(__file__).parent / "results" / "nsga2.json"
    """Where the figures go."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Two objectives of integer genomes, minimised.

    Attributes:
        low, high: bounds of each gene.
        reference: of the hypervolume.
        objectives: `(genomes (N, G), np or jnp) -> (N, 2)`.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    reference: tuple[float, float]
    objectives: Callable[[Any, Any], Any]


def _zdt(number: int, genomes: Any, xp: Any) -> Any:
    x = genomes / 1023
    f1 = x[:, 0]
    g = 1 + 9 * x[:, 1:].mean(1)
    ratio = f1 / g
    shape = {
        1: 1 - xp.sqrt(ratio),
        2: 1 - ratio**2,
        3: 1 - xp.sqrt(ratio) - ratio * xp.sin(10 * np.pi * f1),
    }[number]
    return xp.stack([f1, g * shape], 1)


def _knapsack() -> Problem:
    draw = np.random.default_rng(0)
    items, copies = 40, 7
    profits = draw.integers(10, 100, (2, items)).astype(np.float32)
    weights = draw.integers(10, 100, items).astype(np.float32)
    capacity = copies * weights.sum() / 2
    total = copies * profits.sum(1)
    # Profit per weight of the best thing: taking one out is then never a loss.
    fine = (profits / weights).max(1)

    def objectives(genomes, xp):
        excess = xp.maximum((genomes * weights).sum(1) - capacity, 0)
        columns = [
            1 - ((genomes * profits[m]).sum(1) - fine[m] * excess) / total[m] for m in range(2)
        ]
        return xp.stack(columns, 1)

    return Problem((0,) * items, (copies,) * items, (1.0, 1.0), objectives)


def _bit_widths() -> Problem:
    draw = np.random.default_rng(1)
    sizes = np.exp(draw.uniform(0, 4, 17)).astype(np.float32)
    noises = np.exp(draw.uniform(0, 6, 17)).astype(np.float32)
    ends = np.log((noises[None] * 4.0 ** -np.array([[8], [2]])).sum(1))

    def objectives(genomes, xp):
        noise = xp.log((noises * 4.0 ** -xp.asarray(genomes, np.float32)).sum(1))
        size = (genomes * sizes).sum(1) / (8 * sizes.sum())
        return xp.stack([(noise - ends[0]) / (ends[1] - ends[0]), size], 1)

    return Problem((2,) * 17, (8,) * 17, (1.1, 1.1), objectives)


PROBLEMS = {
    **{
        f"zdt{number}": Problem(
            (0,) * 30, (1023,) * 30, (1.1, 1.1), functools.partial(_zdt, number)
        )
        for number in (1, 2, 3)
    },
    "knapsack": _knapsack(),
    "bit widths": _bit_widths(),
}
PYMOO = ("same operators", "eta 20", "mutation 0.2", "defaults")


def main(arguments: Arguments) -> dict[str, Any]:
    """Run, print, write."""
    volumes: dict[str, dict[str, list[float]]] = {}
    started = time.perf_counter()
    for name in arguments.problems:
        problem = PROBLEMS[name]
        found = {"ours": _ours(problem, arguments)}
        for setting in PYMOO:
            found[setting] = [
                _pymoo(problem, arguments, setting, seed) for seed in range(arguments.seeds)
            ]
        volumes[name] = {
            setting: [_volume(problem, genomes) for genomes in runs]
            for setting, runs in found.items()
        }
        print(f"{name}: done after {time.perf_counter() - started:.0f} s")
    content = {
        "machine": machine(),
        "commit": commit(),
        "seeds": arguments.seeds,
        "population": arguments.population,
        "generations": arguments.generations,
        "crossover": repr(TwoPointCrossover()),
        "mutation": repr(PolynomialMutation()),
        "evaluations": arguments.population * arguments.generations,
        "hypervolume": {name: _summary(runs) for name, runs in volumes.items()},
    }
    write_whole(arguments.out, json.dumps(content, indent=1) + "\n")
    _print(content["hypervolume"])
    return content


def _ours(problem: Problem, arguments: Arguments) -> np.ndarray:
    """Final populations (seeds, P, G)."""
    algorithm = NSGA2(problem.low, problem.high, population=arguments.population)

    @jax.jit
    def run(key, state):
        def generation(_, state):
            state, genomes = algorithm.ask(state)
            return algorithm.tell(state, genomes, problem.objectives(genomes, jnp))

        return jax.lax.fori_loop(0, arguments.generations, generation, state)

    keys = [jax.random.key(seed) for seed in range(arguments.seeds)]
    return np.stack([run(key, algorithm.init(key)).population for key in keys])


def _pymoo(problem: Problem, arguments: Arguments, setting: str, seed: int) -> np.ndarray:
    """Final population (P, G)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymoo.algorithms.moo.nsga2 import NSGA2 as PymooNSGA2
        from pymoo.core.problem import Problem as PymooProblem
        from pymoo.operators.crossover.pntx import TwoPointCrossover
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.optimize import minimize

    class Plain(PymooProblem):
        def _evaluate(self, x, out, *args, **kwargs):
            out["F"] = problem.objectives(x, np)

    def mutation(prob, eta):
        return PM(prob=prob, eta=eta, vtype=float, repair=RoundingRepair())

    two_point = TwoPointCrossover(prob=0.9)
    crossover, mutation = {
        "same operators": (two_point, mutation(1.0, PolynomialMutation().eta)),
        "eta 20": (two_point, mutation(1.0, 20)),
        "mutation 0.2": (two_point, mutation(0.2, 20)),
        "defaults": (
            SBX(eta=15, prob=0.9, vtype=float, repair=RoundingRepair()),
            mutation(0.9, 20),
        ),
    }[setting]
    plain = Plain(
        n_var=len(problem.low),
        n_obj=2,
        xl=np.array(problem.low),
        xu=np.array(problem.high),
        vtype=int,
    )
    algorithm = PymooNSGA2(
        pop_size=arguments.population,
        sampling=IntegerRandomSampling(),
        crossover=crossover,
        mutation=mutation,
        eliminate_duplicates=True,
    )
    result = minimize(plain, algorithm, ("n_gen", arguments.generations), seed=seed, verbose=False)
    evaluations = arguments.population * arguments.generations
    if result.algorithm.evaluator.n_eval != evaluations:
        raise RuntimeError(
            f"expected {evaluations} evaluations, pymoo did {result.algorithm.evaluator.n_eval}"
        )
    return result.pop.get("X").astype(int)


def _volume(problem: Problem, genomes: np.ndarray) -> float:
    """Of a population, evaluated in float64 whoever found it."""
    return hypervolume(problem.objectives(np.asarray(genomes), np), np.array(problem.reference))


def _summary(runs: dict[str, list[float]]) -> dict[str, Any]:
    ours = float(np.median(runs["ours"]))
    return {
        setting: {
            "median": float(np.median(values)),
            "quartiles": np.quantile(values, [0.25, 0.75]).tolist(),
            "ours_over_this": ours / float(np.median(values)),
            "values": values,
        }
        for setting, values in runs.items()
    }


def _print(table: dict[str, Any]) -> None:
    shown = Table(title="Median hypervolume (in brackets: ours over pymoo's)")
    for column in ("problem", "ours", *(f"pymoo, {setting}" for setting in PYMOO)):
        shown.add_column(column)
    for name, row in table.items():
        cells = [
            f"{row[setting]['median']:.4f} ({row[setting]['ours_over_this']:.4f})"
            for setting in PYMOO
        ]
        shown.add_row(name, f"{row['ours']['median']:.4f}", *cells)
    Console(width=120).print(shown)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
