"""Iterative pruning (Algorithm 2 of Tan and Wang, TASLP 2021).

Sensitivity of every tensor, prune each at its ratio, fine-tune the whole net, score; again until
next to nothing is pruned or the scores drop significantly. The weights of the regulariser shrink
by a factor of 0.9 an iteration.

What is analysed, fine-tuned and scored with are the caller's functions. The state after each
iteration is handed out, a plain tuple of arrays and numbers: saved, it is all that is needed to go
on from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from dynse.pruning.groups import Groups, named_tensors
from dynse.pruning.masks import apply_masks, count_nonzero, masks_by_thresholds
from dynse.pruning.sensitivity import Sensitivity

LAMBDA_DECAY = 0.9


class PruningState(NamedTuple):
    """A net after some iterations.

    Attributes:
        iteration: how many.
        params: the fine-tuned parameters, zero where the masks are False.
        masks: pytree like the parameters, None for tensors that are never pruned.
        scores: name to value, higher is better.
        first_scores: those before the first iteration.
        pruned: share of the weights non-zero before this iteration that it pruned; 0 before the
            first.
        sensitivity: what this iteration pruned by; None before the first. A record: going on does
            not need it.
    """

    iteration: int
    params: Any
    masks: Any
    scores: dict[str, float]
    first_scores: dict[str, float]
    pruned: float
    sensitivity: Sensitivity | None


@dataclasses.dataclass(frozen=True)
class StopRule:
    """When to stop. The paper gives its numbers of iterations and no thresholds: these are ours.

    Attributes:
        iterations: at most so many; the paper's nets took 2 to 5.
        least_pruned: "next to nothing" is less than this share of the weights still non-zero.
        largest_drop: name of a score to the drop, against the net before pruning, that is still
            accepted. Scores that are not named do not stop anything.
    """

    iterations: int = 5
    least_pruned: float = 0.02
    largest_drop: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"stoi": 0.02, "pesq": 0.1}
    )

    def reason(self, state: PruningState) -> str | None:
        """ "scores", "pruned" or "iterations", by which of them to stop; None: go on.

        After "scores" the net worth keeping is the one before.

        Raises:
            ValueError: where a score that the rule names is missing.
        """
        missing = sorted(self.largest_drop.keys() - state.scores.keys())
        if missing:
            raise ValueError(
                f"the stop rule needs scores {', '.join(missing)}, got {', '.join(state.scores)}"
            )
        drops = {name: state.first_scores[name] - state.scores[name] for name in self.largest_drop}
        # A score that is not a number has dropped.
        if not all(drops[name] <= limit for name, limit in self.largest_drop.items()):
            return "scores"
        if state.iteration and state.pruned < self.least_pruned:
            return "pruned"
        return "iterations" if state.iteration >= self.iterations else None


def lambda_factor(iteration: int) -> float:
    """What lambda1 and lambda2 are multiplied with while fine-tuning in this iteration, from 1.

    The training before is iteration 0; that the first fine-tuning shrinks already is our reading.
    """
    return LAMBDA_DECAY**iteration


def start_pruning(
    params: Any, groups: Groups, score: Callable[[Any], Mapping[str, float]]
) -> PruningState:
    """The state of a trained net before the first iteration.

    Args:
        params: pytree of arrays.
        groups: path to the axes within a group.
        score: `params -> name to value`, higher is better.
    """
    scores = _floats(score(params))
    masks = masks_by_thresholds(params, groups, {})
    return PruningState(0, params, masks, scores, scores, 0.0, None)


def prune(
    state: PruningState,
    groups: Groups,
    *,
    analyze: Callable[[Any], Sensitivity],
    finetune: Callable[[Any, Any, int], Any],
    score: Callable[[Any], Mapping[str, float]],
    rule: StopRule = StopRule(),
) -> Iterator[PruningState]:
    """Algorithm 2, from any state on.

    Args:
        state: from `start_pruning`, or one that was handed out before.
        groups: path to the axes within a group.
        analyze: `params -> Sensitivity`, Algorithm 1 with the caller's loss.
        finetune: `(params, masks, iteration) -> params`; must leave pruned weights at zero
            (`with_masks`). Iterations count from 1.
        score: `params -> name to value`, higher is better.
        rule: when to stop.

    Yields:
        The state after each iteration. The last one is where the rule stopped.

    Raises:
        ValueError: where fine-tuning moved a pruned weight.
    """
    while rule.reason(state) is None:
        iteration = state.iteration + 1
        sensitivity = analyze(state.params)
        masks = masks_by_thresholds(state.params, groups, sensitivity.thresholds)
        pruned = apply_masks(state.params, masks)
        before, after = count_nonzero(state.params, groups), count_nonzero(pruned, groups)
        params = finetune(pruned, masks, iteration)
        _check_masked(params, masks)
        state = PruningState(
            iteration=iteration,
            params=params,
            masks=masks,
            scores=_floats(score(params)),
            first_scores=state.first_scores,
            pruned=1 - after / max(before, 1),
            sensitivity=sensitivity,
        )
        yield state


def _floats(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items()}


def _check_masked(params: Any, masks: Any) -> None:
    tensors = named_tensors(params)
    for path, mask in named_tensors(masks).items():
        moved = int(jnp.count_nonzero(jnp.where(mask, 0, tensors[path])))
        if moved:
            raise ValueError(f"fine-tuning moved {moved} pruned weights of {path} away from zero")
