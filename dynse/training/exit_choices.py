"""Every policy of a net with exits, at every level that it was settled for, ready to be run.

A threshold comes only at the levels that it can reach: it never takes the first exit alone. At the
middle level policies come with each rule for the states of the stages that they skip as well, and
each rule with the same exits out of the whole net: what skipping costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dynse.audio.stft import STFT
from dynse.evaluation.cost import FRAMES_PER_S
from dynse.evaluation.exit_policies import Program, oracle_program, policy_program
from dynse.evaluation.exit_tables import HELD, NONE_SKIPPED, WHOLE_NET
from dynse.exits import Budget, EarlyExit, Router, SkippedState, Threshold
from dynse.layers.cost import total_macs
from dynse.training.exit_controls import ExitControls
from dynse.training.runs import variables_digest

# Rules for the states of skipped stages; factor and rate are ours.
RULES = {
    HELD: SkippedState(),
    "decayed": SkippedState(factor=0.9),
    "refreshed": SkippedState(every=8),
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """A policy at one level.

    Attributes:
        program: the net under it.
        controls: its traced numbers.
        described: kind, level and rule, as they stand in its record.
    """

    program: Program
    controls: Any
    described: Mapping[str, Any]


def policy_choices(
    model: Any, settled: ExitControls, *, stft: STFT, skipping: Sequence[str]
) -> Iterator[tuple[str, Choice]]:
    """Names and policies, one by one.

    Args:
        model: the net with exits.
        settled: levels, and the controls of each policy at each.
        stft: the net's transform.
        skipping: policies at which the rules for skipped states are compared.
    """
    budgets = [{"mmac_per_s": level} for level in settled.levels]
    changes = [{"change": change} for change in settled.changes]
    router = Router(model.policy_features, len(model.exits))
    policies = {
        "budget": (Budget(), budgets),
        "threshold": (Threshold(), changes),
        "router": (router, settled.routers),
        "budgeted threshold": (Budget(Threshold()), _demanded(budgets, changes)),
        "budgeted router": (Budget(router), _demanded(budgets, settled.routers)),
    }
    within_reach = 1e-6 * FRAMES_PER_S * total_macs(EarlyExit(model, Threshold()).exit_costs()[1])
    for kind, (policy, controls) in policies.items():
        net = EarlyExit(model, policy)
        programs = {HELD: policy_program(net, stft)}
        if kind in skipping:
            for rule, skipped in RULES.items():
                own = dataclasses.replace(net, skipped=skipped)
                programs.setdefault(rule, policy_program(own, stft))
                programs[rule + WHOLE_NET] = policy_program(own, stft, whole_states=True)
        for index, level in enumerate(settled.levels):
            if kind.endswith("threshold") and level <= within_reach:
                continue
            for states, program in programs.items():
                if states != HELD and index != len(settled.levels) // 2:
                    continue
                suffix = "" if states == HELD else f" {states}"
                skipped = dataclasses.asdict(RULES[states.removesuffix(WHOLE_NET)])
                yield (
                    f"{kind} {level:.3g}{suffix}",
                    _choice(program, controls[index], kind, level, states, skipped=skipped),
                )
    program = oracle_program(model, stft)
    for level, price in zip(settled.levels, settled.prices, strict=True):
        controls = {"price": price}
        yield (
            f"oracle {level:.3g}",
            _choice(program, controls, "oracle", level, NONE_SKIPPED),
        )


def _demanded(budgets: Sequence[Any], demands: Sequence[Any]) -> list[dict[str, Any]]:
    pairs = zip(budgets, demands, strict=True)
    return [{**budget, "demand": demand} for budget, demand in pairs]


def _choice(
    program: Program, controls: Any, kind: str, level: float, states: str, **more: Any
) -> Choice:
    described = {"policy": kind, "level": level, "states": states, **more}
    own = controls
    if kind.endswith("router"):
        own = variables_digest(jax.tree.map(np.asarray, controls))
    return Choice(program, controls, {**described, "controls": own})
