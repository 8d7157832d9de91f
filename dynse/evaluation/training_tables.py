"""How trainings went: gradient norms and speed, from the lines of metrics that a run logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dynse.evaluation.scores import RunRecord
from dynse.evaluation.tables import Table, by_net


def training_summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of a run's lines, each logged after some steps, the last step and medians.

    Args:
        lines: with "step", "grad_norm" and "audio_s_per_s"; those of validations are left out.

    Returns:
        "steps"; "grad_norm", the median, and "grad_norm_max"; "audio_s_per_s", seconds of audio
        trained on in a second, the median. Empty where nothing was logged.
    """
    logged = [line for line in lines if "grad_norm" in line]
    if not logged:
        return {}
    norms = [line["grad_norm"] for line in logged]
    return {
        "steps": logged[-1]["step"],
        "grad_norm": float(np.median(norms)),
        "grad_norm_max": float(np.max(norms)),
        "audio_s_per_s": float(np.median([line["audio_s_per_s"] for line in logged])),
    }


def training_table(records: Sequence[RunRecord]) -> Table:
    """One row a net: means over its seeds of what `training_summary` found."""
    rows = []
    for net, runs in by_net(records).items():
        found = [run.extra["training"] for run in runs if run.extra.get("training")]
        if found:
            steps, norm, largest, speed = (
                float(np.mean([one[name] for one in found]))
                for name in ("steps", "grad_norm", "grad_norm_max", "audio_s_per_s")
            )
            seeds = str(len(found))
            rows.append(
                (net, seeds, f"{steps:.0f}", f"{norm:.2f}", f"{largest:.1f}", f"{speed:.0f}")
            )
    header = ("net", "seeds", "steps", "gradient norm", "largest", "s of audio a second")
    notes = ("Before clipping; medians over the logged steps. Speed is of the record's machine.",)
    return Table("Training", header, tuple(rows), notes)
