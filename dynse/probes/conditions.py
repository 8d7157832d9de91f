"""What makes a task hard: noise, or voices and recordings that nobody has heard before.

    by source          of a class, the share that is right by source, with its Wilson interval
    at 5 dB, ...       the test score on the mixtures of each SNR alone
    sources apart      five folds of mixtures that the network was not fitted to; no source is
                       on both sides
    sources shared     the same mixtures in folds by mixture: the probe has been fitted on other
                       mixtures with the voices and recordings that it is scored on

A source is what a task's intervals draw by. Mixtures of one recording of noise, or of one voice,
are no independent trials, so sources are: each counts by the share of its mixtures that is right.
A share varies no more than a coin of that chance, so the Wilson interval is on the safe side. Both
kinds of folds fit on equally many mixtures, so that their difference is what new sources cost. In
frames every so many are fitted and scored, as `Task.stride` says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynse.evaluation.statistics import Interval
from dynse.probes.intervals import score_interval
from dynse.probes.linear import LinearProbe
from dynse.probes.rows import MixtureRows
from dynse.probes.scores import grouped_folds, wilson_interval
from dynse.probes.tasks import Rows, Task, estimates, fit, gather_rows, with_threshold

FOLDS = 5


def score_by_source(
    task: Task, probe: LinearProbe, mixtures: Sequence[MixtureRows]
) -> dict[str, Interval]:
    """Of classes of mixtures, {"accuracy by source": share of sources with its interval}."""
    rows = gather_rows(task, mixtures, "gates")
    right = estimates(probe, rows.features) == rows.targets
    _, source = np.unique(rows.groups, return_inverse=True)
    shares = np.bincount(source, weights=right) / np.bincount(source)
    return {"accuracy by source": wilson_interval(float(shares.sum()), len(shares))}


def score_by_snr(
    task: Task, probe: LinearProbe, mixtures: Sequence[MixtureRows]
) -> dict[str, Interval]:
    """The task's first score at each SNR where targets differ, lowest first: {"at -5 dB": ...}."""
    found = {}
    for snr_db in sorted({one.labels.snr_db for one in mixtures}):
        chosen = [one for one in mixtures if one.labels.snr_db == snr_db]
        rows = gather_rows(task, chosen, "gates")
        if (rows.targets == rows.targets[0]).all():
            continue
        found[f"at {snr_db:g} dB"] = score_interval(
            task.scores[0], estimates(probe, rows.features), rows.targets, rows.groups
        )
    return found


def score_in_folds(
    task: Task, mixtures: Sequence[MixtureRows], *, penalty: float
) -> dict[str, Interval]:
    """The task's first score of the gates in folds with "sources apart" and "sources shared".

    Nothing where there are fewer sources than folds.

    Args:
        task: what is asked.
        mixtures: that the network was not fitted to.
        penalty: of the fits.
    """
    stride = task.stride if task.level == "frame" else 1
    rows = gather_rows(task, mixtures, "gates", stride=stride)
    if len(np.unique(rows.groups)) < FOLDS:
        return {}
    mixture = gather_rows(task, mixtures, "gates", stride=stride, group=lambda one: one.id).groups
    # Only classes are dealt out evenly: of numbers each is a class of its own.
    labels = rows.targets.tolist() if task.kind == "logistic" else None
    found = {}
    for name, groups in (("sources apart", rows.groups), ("sources shared", mixture)):
        guess = np.empty(len(rows.targets), rows.targets.dtype)
        for kept, held in grouped_folds(groups.tolist(), labels, folds=FOLDS):
            fitted = Rows(*(part[kept] for part in rows))
            probe = with_threshold(fit(task, fitted, penalty=penalty), fitted)
            guess[held] = estimates(probe, rows.features[held])
        found[name] = score_interval(task.scores[0], guess, rows.targets, rows.groups)
    return found
