"""Build the tables of a finished experiment from its committed records.

    python experiments/make_tables.py --records experiments/results/mini

    python experiments/make_tables.py --records experiments/results/gru_bits

    python experiments/make_tables.py --records experiments/results/compression

    python experiments/make_tables.py --records experiments/results/early_exit

Prints Markdown: quality, paired differences to the dense net, by seed, by noise and SNR, cost, and
how alive the gates are; of nets with exits, every exit and policy beside static nets; of searches
for bit widths, the nets that were taken and the fronts; of probes, what was read from the gates; of
compressed nets, scores, sizes and tensors. Nothing is scored again.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import tyro

from dynse.evaluation.bit_records import is_bit_record, load_bit_record
from dynse.evaluation.bit_tables import front_table, taken_table, task_table
from dynse.evaluation.compression_records import is_compression_record, load_compression_record
from dynse.evaluation.compression_tables import compression_tables
from dynse.evaluation.cost import CostTotals, cost_table
from dynse.evaluation.exit_tables import exit_tables
from dynse.evaluation.gates import gate_table
from dynse.evaluation.scores import RunRecord, load_records
from dynse.evaluation.split_tables import noise_table, seeds_table
from dynse.evaluation.statistics import Interval
from dynse.evaluation.tables import Table, by_net, difference_table, quality_table, snr_table
from dynse.evaluation.training_tables import training_table
from dynse.probes.records import cost_table as probe_cost_table
from dynse.probes.records import (
    is_probe_record,
    load_probe_record,
    score_tables,
    verification_table,
)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Tables from records."""

    records: pathlib.Path
    """Folder of JSON records on one test set."""
    reference: str = "dense"
    """The net that the others are compared with."""


def tables(records: list[RunRecord], reference: str) -> list[Table]:
    """All tables that the records allow."""
    nets = by_net(records)
    costs = {
        net: CostTotals(**_mean([run.cost for run in runs]))
        for net, runs in nets.items()
        if runs[0].cost
    }
    gates = {
        net: {
            name: Interval(**mean)
            for name, mean in _mean([run.extra["gates"] for run in runs]).items()
        }
        for net, runs in nets.items()
        if all(run.extra.get("gates") for run in runs)
    }
    own = exit_tables(records)
    if own:
        references = [record for record in records if record.seed is None]
        return [quality_table(references, title="Without a net"), *own]
    found = [quality_table(records)]
    if reference in {record.net for record in records}:
        found.append(difference_table(records, reference))
        if len({record.seed for record in records} - {None}) > 1:
            found += [seeds_table(records, reference, metric) for metric in ("pesq", "si_sdr")]
        if any("nonstationarity_db" in one.attributes for r in records for one in r.utterances):
            found += [noise_table(records, reference, metric) for metric in ("pesq", "si_sdr")]
    found += [snr_table(records, "si_sdr_improvement"), snr_table(records, "pesq")]
    if costs:
        found.append(cost_table(costs, dense=reference if reference in costs else None))
    if gates:
        found.append(gate_table(gates, title="How alive the gates are, means over seeds"))
    trained = training_table(records)
    return [*found, trained] if trained.rows else found


def _mean(contents: Sequence[Any]) -> Any:
    """The mean of equal structures of numbers, number by number."""
    first = contents[0]
    if isinstance(first, dict):
        return {key: _mean([one[key] for one in contents]) for key in first}
    if isinstance(first, list):
        return tuple(_mean(values) for values in zip(*contents, strict=True))
    mean = sum(contents) / len(contents)
    return int(mean) if all(isinstance(one, int) for one in contents) else mean


def main(arguments: Arguments) -> str:
    """Print the tables; gives the text."""
    paths = sorted(arguments.records.glob("*.json"))
    if not paths:
        raise SystemExit(f"no records in {arguments.records}")
    if all(is_bit_record(path) for path in paths):
        searches = [load_bit_record(path) for path in paths]
        found = [task_table(searches), taken_table(searches), front_table(searches)]
    elif all(is_compression_record(path) for path in paths):
        found = compression_tables([load_compression_record(path) for path in paths])
    elif all(is_probe_record(path) for path in paths):
        probed = [load_probe_record(path) for path in paths]
        found = [*score_tables(probed), probe_cost_table(probed), verification_table(probed)]
    else:
        records = load_records(paths)
        order = {"noisy": 0, "oracle Wiener": 1, "oracle Wiener, bounded": 2, "dense": 3}
        records.sort(key=lambda record: (order.get(record.net, 4), record.net))
        found = tables(records, arguments.reference)
    text = "\n\n".join(f"### {table.title}\n\n{table.markdown()}" for table in found)
    print(text)
    return text


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
