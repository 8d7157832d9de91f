"""Selection, crossover and mutation of integer genomes.

Tournament: of two members of the population the one of lower rank wins, and of equal rank the
less crowded one (Deb et al., 2002).

Two-point crossover: the genes between two cuts are exchanged between two parents.

Polynomial mutation (Deb and Goyal, 1996; bounded as in Deb and Agrawal, 1999): a gene x in
[low, high] moves in either direction with equal odds, by

    span (1 - (u + (1 - u) (1 - room / span)^(eta + 1))^(1 / (eta + 1))),     u uniform in [0, 1)

where span = high - low and room is the way from x to the bound. It is made for real numbers. On
integers the choices are ours: the step is rounded up, and a gene that stands on a bound moves
away from it. Rounded to the nearest, a gene of 7 levels would stay where it is in 84 of 100
mutations at eta = 20. Ours is also the default eta = 3 (NSGA-II: 20): the larger steps find better
fronts on each problem of `benchmarks/nsga2.py`.

An operator is a frozen dataclass: hashable, so that it is a static part of a jitted program, and
its `repr` says all that it does.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class TwoPointCrossover:
    """Exchange one segment of genes.

    Attributes:
        probability: of a pair being crossed at all; 0.9 in NSGA-II.
    """

    probability: float = 0.9

    def __post_init__(self) -> None:
        _check_probability(self.probability)

    def __call__(
        self, key: jax.Array, first: jax.Array, second: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Cross pairs.

        The cuts are two of the G places before a gene, drawn without preference: with the
        genome seen as a ring, each gene is as likely to be cut off as any other.

        Args:
            key: of the draw.
            first, second: (N, G) parents.

        Returns:
            (N, G) and (N, G) children.
        """
        pairs, genes = first.shape
        which, where, how_far = jax.random.split(key, 3)
        crossed = jax.random.bernoulli(which, self.probability, (pairs, 1))
        one = jax.random.randint(where, (pairs, 1), 0, genes)
        # With a single gene both cuts coincide, and nothing is exchanged.
        other = (one + jax.random.randint(how_far, (pairs, 1), 1, genes)) % genes
        position = jnp.arange(genes)
        segment = (position >= jnp.minimum(one, other)) & (position < jnp.maximum(one, other))
        exchanged = crossed & segment
        return jnp.where(exchanged, second, first), jnp.where(exchanged, first, second)


@dataclasses.dataclass(frozen=True)
class PolynomialMutation:
    """Move some genes, mostly by little.

    Attributes:
        rate: probability of each gene to move; None: 1 / G, as in NSGA-II.
        eta: the larger, the smaller the steps.
    """

    rate: float | None = None
    eta: float = 3.0

    def __post_init__(self) -> None:
        if self.rate is not None:
            _check_probability(self.rate)
        if self.eta < 0:
            raise ValueError(f"eta must not be negative, got {self.eta}")

    def __call__(
        self, key: jax.Array, genomes: jax.Array, low: jax.Array, high: jax.Array
    ) -> jax.Array:
        """Mutate.

        Args:
            key: of the draw.
            genomes: (N, G) int32 within the bounds.
            low, high: (G,) int32, inclusive.

        Returns:
            (N, G) int32. A gene that moves changes by at least 1, and stays within its bounds.
        """
        rate = 1 / genomes.shape[1] if self.rate is None else self.rate
        which, direction, distance = jax.random.split(key, 3)
        moves = jax.random.bernoulli(which, rate, genomes.shape) & (low < high)
        up = jax.random.bernoulli(direction, 0.5, genomes.shape)
        up = jnp.where(genomes == low, True, jnp.where(genomes == high, False, up))
        room = jnp.where(up, high - genomes, genomes - low)
        span = jnp.maximum(high - low, 1)
        u = jax.random.uniform(distance, genomes.shape)
        power = self.eta + 1
        kept = (u + (1 - u) * (1 - room / span) ** power) ** (1 / power)
        step = jnp.clip(jnp.ceil(span * (1 - kept)).astype(jnp.int32), 1, room)
        return jnp.where(moves, genomes + jnp.where(up, step, -step), genomes)


def tournament(key: jax.Array, ranks: jax.Array, crowding: jax.Array, rounds: int) -> jax.Array:
    """Winners of binary tournaments.

    Everybody stands in as many tournaments: each round pairs off a permutation of the population.

    Args:
        key: of the draw.
        ranks: (P,) lower wins.
        crowding: (P,) larger wins between equal ranks.
        rounds: how many permutations; static, even where P is odd.

    Returns:
        (rounds * P // 2,) indices.
    """
    orders = jax.vmap(lambda key: jax.random.permutation(key, len(ranks)))(
        jax.random.split(key, rounds)
    )
    first, second = orders.reshape(-1, 2).T
    better_rank = ranks[second] < ranks[first]
    less_crowded = (ranks[second] == ranks[first]) & (crowding[second] > crowding[first])
    return jnp.where(better_rank | less_crowded, second, first)


def _check_probability(value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"expected a probability in 0 ... 1, got {value}")
