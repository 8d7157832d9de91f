"""NSGA-II for integer genomes, as three pure functions: `init`, `ask`, `tell`.

    algorithm = NSGA2(low=(2,) * 17, high=(8,) * 17)
    state = algorithm.init(key, seeds)
    for _ in range(generations):
        state, genomes = algorithm.ask(state)
        state = algorithm.tell(state, genomes, evaluate(genomes))

`ask` lets tournaments choose parents, crosses and mutates them; `tell` keeps the best P of
parents and offspring together, by rank and then by crowding distance, so that nothing good is
ever lost (Deb, Pratap, Agarwal, Meyarivan, IEEE Trans. Evol. Comput. 6(2), 2002).

A genome that is there already is worth nothing new. Offspring are therefore drawn in surplus and
those that are no copies are taken first; a copy that is told gets the worst rank instead of being
removed. Both choices are ours and keep every shape static, so that each function is one program.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynse.search.operators import PolynomialMutation, TwoPointCrossover, tournament
from dynse.search.sorting import crowding_distance, duplicated, non_dominated_ranks

SURPLUS = 4  # candidates per offspring asked for
_LARGEST = 2**24  # genes up to here are exact in float32, in which mutation computes


class SearchState(NamedTuple):
    """State between generations: P members, G genes, M objectives."""

    population: jax.Array  # (P, G) int32
    objectives: jax.Array  # (P, M) float32; NaN before the first `tell`
    rank: jax.Array  # (P,) int32
    crowding: jax.Array  # (P,) float32
    key: jax.Array
    generation: jax.Array  # () int32: how often `tell` was called


@dataclasses.dataclass(frozen=True)
class NSGA2:
    """The algorithm and its settings.

    Attributes:
        low: smallest value of each gene.
        high: largest value of each gene, inclusive.
        objectives: how many there are.
        population: how many genomes a generation has.
        crossover: `(key, first, second) -> (first, second)`, all (N, G).
        mutation: `(key, genomes, low, high) -> genomes`; must keep to the bounds.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    _: dataclasses.KW_ONLY
    objectives: int = 2
    population: int = 64
    crossover: Callable[..., tuple[jax.Array, jax.Array]] = TwoPointCrossover()
    mutation: Callable[..., jax.Array] = PolynomialMutation()

    def __post_init__(self) -> None:
        # Also from lists and arrays: hashable, and equal however they were given.
        for name in ("low", "high"):
            given = np.asarray(getattr(self, name))
            if given.ndim != 1 or not len(given) or given.dtype.kind not in "iu":
                raise ValueError(f"{name} must be one integer per gene, got {given!r}")
            object.__setattr__(self, name, tuple(given.tolist()))
        if len(self.low) != len(self.high):
            raise ValueError(
                f"low and high must be of one length, got {len(self.low)} and {len(self.high)}"
            )
        for gene, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if not -_LARGEST < low <= high < _LARGEST:
                raise ValueError(
                    f"gene {gene}: expected -{_LARGEST} < low <= high < {_LARGEST}, got low {low} "
                    f"and high {high}"
                )
        if self.population < 2:
            raise ValueError(f"population must be at least 2, got {self.population}")
        if self.objectives < 1:
            raise ValueError(f"objectives must be at least 1, got {self.objectives}")

    def init(self, key: jax.Array, seeds: np.ndarray | None = None) -> SearchState:
        """State before the first generation.

        Args:
            key: decides the whole search.
            seeds: (S, G) integers, S <= P: stand first in the first population; the rest of it
                is uniform.

        Raises:
            ValueError: where the seeds do not fit the population or leave the bounds.
        """
        seeds = np.zeros((0, len(self.low)), np.int32) if seeds is None else np.asarray(seeds)
        self._check_seeds(seeds)
        return self._init(key, jnp.asarray(seeds, jnp.int32))

    @functools.partial(jax.jit, static_argnums=0)
    def _init(self, key, seeds):
        key, draw = jax.random.split(key)
        low, high = self._bounds()
        shape = self.population - len(seeds), len(low)
        uniform = jax.random.randint(draw, shape, low, high + 1, jnp.int32)
        return SearchState(
            population=jnp.concatenate([seeds, uniform]),
            objectives=jnp.full((self.population, self.objectives), jnp.nan, jnp.float32),
            rank=jnp.zeros(self.population, jnp.int32),
            crowding=jnp.zeros(self.population, jnp.float32),
            key=key,
            generation=jnp.int32(0),
        )

    @functools.partial(jax.jit, static_argnums=0)
    def ask(self, state: SearchState) -> tuple[SearchState, jax.Array]:
        """Genomes to evaluate next: the first population, later offspring.

        Returns:
            The state to tell with, and (P, G) int32.
        """
        key, select, cross, mutate = jax.random.split(state.key, 4)
        low, high = self._bounds()
        # A pair of parents gives a pair of candidates, a tournament takes two contestants.
        parents = state.population[tournament(select, state.rank, state.crowding, 2 * SURPLUS)]
        half = len(parents) // 2
        pairs = self.crossover(cross, parents[:half], parents[half:])
        candidates = self.mutation(mutate, jnp.stack(pairs, 1).reshape(2 * half, -1), low, high)
        known = duplicated(jnp.concatenate([state.population, candidates]))[self.population :]
        offspring = candidates[jnp.argsort(known, stable=True)[: self.population]]
        genomes = jnp.where(state.generation == 0, state.population, offspring)
        return state._replace(key=key), genomes

    @functools.partial(jax.jit, static_argnums=0)
    def tell(self, state: SearchState, genomes: jax.Array, objectives: jax.Array) -> SearchState:
        """The state after survival of the fittest among parents and offspring.

        Args:
            state: from `ask`.
            genomes: (P, G) that were evaluated.
            objectives: (P, M), minimised; a row with a NaN counts as worst.

        Raises:
            ValueError: for other shapes.
        """
        for name, given, width in (
            ("genomes", genomes, len(self.low)),
            ("objectives", objectives, self.objectives),
        ):
            if jnp.shape(given) != (self.population, width):
                raise ValueError(
                    f"expected {name} of shape {(self.population, width)}, got {jnp.shape(given)}"
                )
        # The new ones first: in the first generation the parents, not yet evaluated, are then
        # the copies.
        everyone = jnp.concatenate([jnp.asarray(genomes, jnp.int32), state.population])
        scores = jnp.concatenate([jnp.asarray(objectives, jnp.float32), state.objectives])
        judged = jnp.where(duplicated(everyone)[:, None], jnp.nan, scores)
        rank = non_dominated_ranks(judged)
        crowding = crowding_distance(judged, rank)
        survivors = jnp.lexsort((-crowding, rank))[: self.population]
        return SearchState(
            population=everyone[survivors],
            objectives=scores[survivors],
            rank=rank[survivors],
            crowding=crowding[survivors],
            key=state.key,
            generation=state.generation + 1,
        )

    def _bounds(self) -> tuple[jax.Array, jax.Array]:
        return jnp.array(self.low, jnp.int32), jnp.array(self.high, jnp.int32)

    def _check_seeds(self, seeds: np.ndarray) -> None:
        genes = len(self.low)
        if seeds.ndim != 2 or seeds.shape[1] != genes or len(seeds) > self.population:
            raise ValueError(
                f"expected seeds of shape (up to {self.population}, {genes}), got {seeds.shape}"
            )
        if seeds.dtype.kind not in "iu":
            raise ValueError(f"expected seeds of integers, got {seeds.dtype}")
        outside = ((seeds < self.low) | (seeds > self.high)).any(1)
        if outside.any():
            row = int(np.argmax(outside))
            raise ValueError(f"seed {row} leaves the bounds: {seeds[row].tolist()}")
