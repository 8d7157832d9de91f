"""Multi-objective search over integer genomes. Knows nothing of what is searched.

`nsga2` is the algorithm on top of `sorting` and `operators`, `evaluate` maps the evaluation of one
genome over a population, `loop` runs, records and resumes a search, `hypervolume` measures it.
"""

from dynse.search.evaluate import batched
from dynse.search.hypervolume import hypervolume
from dynse.search.loop import SearchResult, search
from dynse.search.nsga2 import NSGA2, SearchState
from dynse.search.operators import PolynomialMutation, TwoPointCrossover
from dynse.search.sorting import crowding_distance, non_dominated_ranks, pareto_front

__all__ = [
    "NSGA2",
    "PolynomialMutation",
    "SearchResult",
    "SearchState",
    "TwoPointCrossover",
    "batched",
    "crowding_distance",
    "hypervolume",
    "non_dominated_ranks",
    "pareto_front",
    "search",
]
