"""Score a trained net with exits under every policy, and under a budget that keeps changing."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from dynse.data.bank import Corpus
from dynse.data.testsets import TestSet
from dynse.evaluation.exit_policies import (
    Decided,
    decide_mixtures,
    policy_values,
    switched_mixtures,
)
from dynse.evaluation.exit_tables import HELD, JUMP, JUMP_CHEAPEST, NONE_SKIPPED
from dynse.evaluation.metric_process import MetricPool
from dynse.evaluation.metrics import Utterance
from dynse.evaluation.nets import as_utterance
from dynse.evaluation.scores import RunRecord
from dynse.evaluation.scoring import scored_record
from dynse.exits import Budget, EarlyExit
from dynse.training.exit_choices import Choice, policy_choices
from dynse.training.exit_controls import settle_controls
from dynse.training.runs import RunConfig

CHANGING = {"policy": "changing budget", "level": 0.0, "states": HELD}


@dataclasses.dataclass(frozen=True)
class TrainedExits:
    """A trained net with exits.

    Attributes:
        model: the network.
        variables: its variables.
        lines: of metrics.
        run: how it was trained.
        layerwise: exit by exit, not all exits at once.
    """

    model: Any
    variables: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    run: RunConfig
    layerwise: bool

    @property
    def described(self) -> dict[str, Any]:
        """How it came about, as it stands in its records."""
        return dataclasses.asdict(self.run) | {"layerwise": self.layerwise}


def score_policies(
    name: str,
    net: TrainedExits,
    corpus: Corpus,
    test_set: TestSet,
    valid_set: TestSet,
    *,
    run_dir: pathlib.Path,
    pool: MetricPool,
    router_batches: int,
    skipping: Sequence[str],
    pictured: Collection[str],
) -> tuple[list[RunRecord], dict[str, list[Decided]]]:
    """Settle the policies' numbers, and score what comes out; records that are there are taken.

    Args:
        name: of the net.
        net: with at least three exits.
        corpus: of the mixtures and batches.
        test_set: the mixtures.
        valid_set: mixtures that the numbers are settled on.
        run_dir: where numbers and records go.
        pool: processes for the metrics.
        router_batches: training batches that the routers learn from.
        skipping: policies at which the rules for skipped states are compared.
        pictured: ids of the mixtures that are wanted as they came out.

    Returns:
        The records; and by policy, each at its middle level, the mixtures that were wanted.
    """
    settled = settle_controls(
        run_dir / f"controls-{name}.json",
        net.model,
        net.variables,
        net.run,
        corpus,
        valid_set,
        batches=router_batches,
    )
    stft = net.run.stft
    choices = dict(policy_choices(net.model, settled, stft=stft, skipping=skipping))
    middle = settled.levels[len(settled.levels) // 2]

    def decided(choice: Choice, only: Collection[str] | None = None) -> Iterator[Decided]:
        variables = {**net.variables, "exit_policy": choice.controls}
        return decide_mixtures(choice.program, variables, corpus, test_set, stft=stft, only=only)

    def outputs(choice: Choice) -> Iterator[Utterance]:
        for one in decided(choice):
            yield as_utterance(one.mixture, one.enhanced, policy_values(one, net.model.exits))

    def switched() -> Iterator[Utterance]:
        budget = EarlyExit(net.model, Budget())
        found = switched_mixtures(budget, net.variables, corpus, test_set, stft=stft)
        for one, jump, cheapest in found:
            jumps = {JUMP: jump, JUMP_CHEAPEST: cheapest}
            values = policy_values(one, net.model.exits) | jumps
            yield as_utterance(one.mixture, one.enhanced, values)

    def scored(policy: str, items: Iterator[Utterance], config: Mapping[str, Any]) -> RunRecord:
        return scored_record(
            f"{name}, {policy}",
            items,
            corpus,
            test_set,
            run_dir / "records",
            pool,
            config={**net.described, **config},
            seed=net.run.seed,
        )

    records = [scored(key, outputs(one), one.described) for key, one in choices.items()]
    records.append(scored("changing budget", switched(), CHANGING))
    pictures = {
        key: list(decided(choice, only=pictured))
        for key, choice in choices.items()
        if choice.described["level"] == middle
        and choice.described["states"] in (HELD, NONE_SKIPPED)
    }
    return records, pictures
