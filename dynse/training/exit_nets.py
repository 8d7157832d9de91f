"""Nets with exits by name, and each of their stages alone: what an experiment compares.

joint-SPLIT       all exits at once
growing-SPLIT     the same, the more weight the deeper the exit
layerwise-SPLIT   stage by stage, those before frozen
moving-SPLIT      stage by stage, those before moving on
alone-STAGE       a static net that ends behind this stage
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from dynse.evaluation.exit_tables import ALONE
from dynse.training.nets import EarlyExitNsNet2Config


@dataclasses.dataclass(frozen=True)
class ExitNet:
    """A net with exits, or one stage's alone.

    Attributes:
        config: the net.
        layerwise: trained exit by exit, not all exits at once.
    """

    config: EarlyExitNsNet2Config
    layerwise: bool = False


def exit_nets(
    joint: Sequence[str],
    layerwise: Sequence[str],
    moving: Sequence[str] = (),
    growing: Sequence[str] = (),
    **options: Any,
) -> dict[str, ExitNet]:
    """Nets with exits, with these splits, and each of their stages alone.

    Args:
        joint: splits of the nets trained all at once.
        layerwise: of those trained stage by stage.
        moving: of those whose earlier stages are not frozen.
        growing: of those trained all at once, the more weight the deeper the exit.
        **options: of every net: widths, exits.
    """
    plain = EarlyExitNsNet2Config(**options)
    found = {f"joint-{split}": ExitNet(dataclasses.replace(plain, split=split)) for split in joint}
    for split in growing:
        net = dataclasses.replace(plain, split=split, exit_weights="growing")
        found[f"growing-{split}"] = ExitNet(net)
    for split in layerwise:
        net = dataclasses.replace(plain, split=split)
        found[f"layerwise-{split}"] = ExitNet(net, layerwise=True)
    for split in moving:
        net = dataclasses.replace(plain, split=split, moving=True)
        found[f"moving-{split}"] = ExitNet(net, layerwise=True)
    for stage in plain.exits:
        found[f"{ALONE}-{stage}"] = ExitNet(dataclasses.replace(plain, exits=(stage,)))
    return found
