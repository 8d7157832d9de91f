"""Differences to a reference net taken apart: by seed, and by SNR and kind of noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynse.data.synthetic_noise import NONSTATIONARY_DB
from dynse.evaluation.scores import RunRecord
from dynse.evaluation.statistics import paired_difference
from dynse.evaluation.tables import (
    Table,
    by_net,
    metric_digits,
    metric_name,
    shared_seeds,
    table_notes,
    utterance_values,
)

KINDS = {"stationary": False, "non-stationary": True}  # does it move?


def seeds_table(records: Sequence[RunRecord], reference: str, metric: str) -> Table:
    """One row a net: its mean, and its mean paired difference to the reference, of each seed.

    The spread is the standard deviation over seeds, of the means and of the differences: what a
    training drawn anew would move, which intervals over utterances do not know of.

    Args:
        records: runs on one test set; those without a seed are left out.
        reference: net with the same seeds; a seed that it lacks has no difference.
        metric: key of the scores.

    Raises:
        ValueError: where two records are of one net and seed.
    """
    nets = by_net([record for record in records if record.seed is not None])
    for net, runs in nets.items():
        if len({run.seed for run in runs}) < len(runs):
            raise ValueError(f"two records of {net} are of one seed")
    seeds = sorted({run.seed for runs in nets.values() for run in runs})
    other = {run.seed: utterance_values([run], metric) for run in nets.get(reference, ())}
    digits, rows = metric_digits(metric), []
    for net, runs in nets.items():
        values = {run.seed: utterance_values([run], metric) for run in runs}
        means = {seed: float(np.nanmean(list(found.values()))) for seed, found in values.items()}
        apart = {
            seed: paired_difference(
                list(found.values()), [other[seed].get(name, np.nan) for name in found]
            ).mean
            for seed, found in values.items()
            if seed in other and net != reference
        }
        cells = [f"{means[seed]:.{digits + 1}f}" if seed in means else "-" for seed in seeds]
        cells += [_spread(means, digits + 1)]
        cells += [f"{apart[seed]:+.{digits + 1}f}" if seed in apart else "-" for seed in seeds]
        rows.append((net, *cells, _spread(apart, digits + 1)))
    name = metric_name(metric)
    header = ("net", *(f"seed {seed}" for seed in seeds), "spread")
    header += (*(f"to {reference}, seed {seed}" for seed in seeds), "spread of that")
    return Table(f"{name} by seed", header, tuple(rows), table_notes(records, [metric]))


def noise_table(records: Sequence[RunRecord], reference: str, metric: str) -> Table:
    """One row a net and kind of noise: mean paired differences to the reference by SNR.

    A mixture's noise counts as non-stationary by the measure and the limit that
    `dynse.data.synthetic_noise` has for classes. Records of one test set share what is known of its
    mixtures, so one that says it is enough.

    Raises:
        ValueError: where no record says how stationary the noise of a mixture is, or on a reference
            that is not among the nets.
    """
    nets, known = by_net(records), {}
    if reference not in nets:
        raise ValueError(f"reference must be one of {', '.join(nets)}; got {reference!r}")
    for record in records:
        for score in record.utterances:
            known.setdefault(score.id, {}).update(score.attributes)
    for name, attributes in known.items():
        if "nonstationarity_db" not in attributes:
            raise ValueError(f"no record says how stationary the noise of {name} is")
    snrs = sorted({attributes["snr_db"] for attributes in known.values()})
    digits, rows = metric_digits(metric) + 1, []
    for net, runs in nets.items():
        if net == reference:
            continue
        values, other = (
            utterance_values(side, metric) for side in shared_seeds(runs, nets[reference])
        )
        for kind, moves in KINDS.items():
            of_kind = [
                name
                for name in values
                if (known[name]["nonstationarity_db"] > NONSTATIONARY_DB) == moves
            ]
            cells = []
            for snr in (*snrs, None):
                chosen = [name for name in of_kind if snr in (None, known[name]["snr_db"])]
                interval = paired_difference(
                    [values[name] for name in chosen], [other[name] for name in chosen]
                )
                cells.append(interval.text(digits, signed=True))
            rows.append((net, kind, str(len(of_kind)), *cells))
    header = ("net", "noise", "mixtures", *(f"{snr:g} dB" for snr in snrs), "all")
    title = f"{metric_name(metric)}: difference to {reference} by noise and SNR"
    return Table(title, header, tuple(rows), table_notes(records, [metric]))


def _spread(values: dict[int, float], digits: int) -> str:
    if len(values) < 2:
        return "-"
    return f"{np.std(list(values.values()), ddof=1):.{digits}f}"
