"""Every policy of a net with exits, at every level that it was settled for, ready to be run.

At the middle level each policy comes with each rule for the states of the stages that it skips as
well, and with whole states: what skipping costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dynse.audio.stft import STFT
from dynse.evaluation.exit_policies import Program, oracle_program, policy_program
from dynse.evaluation.exit_tables import HELD, NONE_SKIPPED, WHOLE_STATES
from dynse.exits import Budget, EarlyExit, Router, SkippedState, Threshold
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
    count = len(settled.levels)
    policies = {
        "budget": (Budget(), [{"mmac_per_s": level} for level in settled.levels]),
        "threshold": (Threshold(), [{"change": change} for change in settled.changes]),
        "router": (Router(model.policy_features, len(model.exits)), settled.routers),
    }
    for kind, (policy, controls) in policies.items():
        net = EarlyExit(model, policy)
        programs = {HELD: policy_program(net, stft)}
        if kind in skipping:
            for rule, skipped in RULES.items():
                program = policy_program(dataclasses.replace(net, skipped=skipped), stft)
                programs.setdefault(rule, program)
            programs[WHOLE_STATES] = policy_program(net, stft, whole_states=True)
        for index, level in enumerate(settled.levels):
            for rule, program in programs.items():
                if rule != HELD and index != count // 2:
                    continue
                suffix = "" if rule == HELD else f" {rule}"
                skipped = dataclasses.asdict(RULES.get(rule, SkippedState()))
                yield (
                    f"{kind} {level:.3g}{suffix}",
                    _choice(program, controls[index], kind, level, rule, skipped=skipped),
                )
    program = oracle_program(model, stft)
    for level, price in zip(settled.levels, settled.prices, strict=True):
        controls = {"price": price}
        yield (
            f"oracle {level:.3g}",
            _choice(program, controls, "oracle", level, NONE_SKIPPED),
        )


def _choice(
    program: Program, controls: Any, kind: str, level: float, states: str, **more: Any
) -> Choice:
    described = {"policy": kind, "level": level, "states": states, **more}
    own = variables_digest(controls) if kind == "router" else controls
    return Choice(program, controls, {**described, "controls": own})
