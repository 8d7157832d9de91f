"""Tables and the figure of compressed nets: scores, sizes, tensors, and what was reached."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynse.evaluation.compression_records import (
    LARGEST_LOSS,
    METRICS,
    CompressedNet,
    CompressionRecord,
    Scores,
    flat,
)
from dynse.evaluation.figures import MARKERS, PALETTE, new_figure, png_bytes
from dynse.evaluation.scores import machine
from dynse.evaluation.sections import Figure, Report, Text
from dynse.evaluation.statistics import mean_interval, paired_difference
from dynse.evaluation.tables import SYNTHETIC_PESQ, Table, metric_digits, metric_name


def compression_tables(records: Sequence[CompressionRecord]) -> list[Table]:
    """What was reached, and of each record its scores, sizes and tensors."""
    tables = [reached_table(records)]
    if any(record.rivals for record in records):
        tables.append(rival_table(records))
    for record in records:
        tables += [score_table(record), size_table(record), tensor_table(record)]
    return tables


def reached_table(records: Sequence[CompressionRecord]) -> Table:
    """One row a compression: the smallest net that loses little, and what was reached in all."""
    rows = []
    for record in records:
        best = record.best
        cells = ["-"] * 6
        if best is not None:
            losses = [
                record.difference(best, metric).text(metric_digits(metric) + 1, signed=True)
                for metric in METRICS
            ]
            cells = [best.name, *_rates(record, best), _share(best.macs, record.dense_macs)]
            cells += losses
        smallest = min(record.nets, key=lambda net: net.published_bytes)
        gains = [
            paired_difference(flat(record.trained, metric), flat(record.noisy, metric)).text(
                metric_digits(metric) + 1, signed=True
            )
            for metric in METRICS
        ]
        rows.append((record.title, *gains, *cells, _rates(record, smallest)[0]))
    gained = [f"{metric_name(metric)}, before against noisy" for metric in METRICS]
    differences = [f"{metric_name(metric)} against before" for metric in METRICS]
    header = ("net", *gained, "smallest that loses little", "rate, published", "rate, file",
              "MACs left", *differences, "highest rate of all")  # fmt: skip
    limits = " and ".join(f"{limit:g} of {metric_name(m)}" for m, limit in LARGEST_LOSS.items())
    note = (
        f"Loses little: at most {limits} in the mean over all mixtures, against the net before "
        "compression; the smallest is chosen on these mixtures. What the net before gains over the "
        "noisy input says what there was to lose. The nets after it were trained for longer (see "
        "their steps). Differences paired by mixture, with 95 % bootstrap intervals. The published "
        "rate counts no positions of the weights; the file's does, and can be loaded."
    )
    return Table("What compression reached", header, tuple(rows), (note,))


def rival_table(records: Sequence[CompressionRecord]) -> Table:
    """One row a rival: a pruned net, and a dense one that was trained as long."""
    rows = []
    for record in records:
        others = round(record.dense_bytes / 4) - record.dense_weights
        for rival in record.rivals:
            pruned = next(net for net in record.nets if net.name == rival.of)
            cells = []
            for metric in METRICS:
                difference = paired_difference(
                    flat(pruned.scores, metric), flat(rival.scores, metric)
                ).text(metric_digits(metric) + 1, signed=True)
                means = [_mean(one.scores, metric) for one in (pruned, rival)]
                cells += [*(f"{mean:.{metric_digits(metric)}f}" for mean in means), difference]
            sizes = f"{pruned.weights + others:,}", f"{rival.parameters:,}"
            about = record.title, rival.of, rival.kind, str(rival.steps)
            rows.append((*about, *sizes, *cells))
    header = ["net", "pruned net", "dense net", "steps of each", "parameters, pruned", "dense"]
    for metric in map(metric_name, METRICS):
        header += [f"{metric}, pruned", "dense", "difference"]
    note = (
        "Parameters: that are not zero, biases too; no positions are counted. Both nets were "
        "trained for as many steps in all, the dense one without a regulariser. Differences pruned "
        "minus dense, paired by mixture, with 95 % bootstrap intervals."
    )
    return Table("Pruned nets and dense ones", tuple(header), tuple(rows), (note,))


def score_table(record: CompressionRecord) -> Table:
    """One row a net: each metric at each SNR, in the mean over its mixtures."""
    snrs = list(record.trained[METRICS[0]])

    def row(name: str, scores: Scores) -> tuple[str, ...]:
        cells = []
        for metric in METRICS:
            for snr in snrs:
                interval = mean_interval([np.nan if v is None else v for v in scores[metric][snr]])
                digits = metric_digits(metric)
                cells.append(f"{interval.mean:.{digits}f}" if interval.count else "-")
        return name, *cells

    rows = [row("noisy", record.noisy), row("before compression", record.trained)]
    rows += [row(net.name, net.scores) for net in record.nets]
    header = ("net", *(f"{metric_name(m)} {snr} dB" for m in METRICS for snr in snrs))
    count = len(flat(record.trained, METRICS[0]))
    notes = [
        f"{record.corpus}, {record.test_set} ({record.test_set_hash[:12]}), {count} mixtures. Not "
        f"pruned: trained on with{'' if record.regularized else 'out'} the regulariser."
    ]
    seen = [
        f"{metric_name(metric)} "
        + ", ".join("-" if v is None else f"{v:.{metric_digits(metric)}f}" for v in values)
        for metric, values in record.valid_scores.items()
    ]
    notes.append(
        "What pruning is stopped by, means on the validation set before compression and after each "
        f"iteration, 0 first: {'; '.join(seen)}."
    )
    if record.corpus == "synthetic":
        notes.append(SYNTHETIC_PESQ)
    return Table(f"Scores of {record.title}", header, tuple(rows), tuple(notes))


def size_table(record: CompressionRecord) -> Table:
    """One row a net: weights, MACs and sizes left, and rates."""
    dense = f"{record.dense_bytes / 1000:,.1f}"
    steps = f"{record.config['run']['loop']['steps']:,}"
    rows = [("before compression", steps, "100 %", "100 %", dense, "1.0", dense, dense, "1.0")]
    for net in record.nets:
        published, true = _rates(record, net)
        rows.append(
            (
                net.name,
                f"{net.steps:,}",
                _share(net.weights, record.dense_weights),
                _share(net.macs, record.dense_macs),
                f"{net.published_bytes / 1000:,.1f}",
                published,
                f"{net.entropy_bytes / 1000:,.1f}",
                f"{net.file_bytes / 1000:,.1f}",
                true,
            )
        )
    kept = [f"{net.kept:.3f}" for net in record.nets if net.kept is not None]
    header = ("net", "steps", "weights left", "MACs left", "published kB", "rate, published",
              "entropy kB", "file kB", "rate, file")  # fmt: skip
    note = (
        "kB: 1000 bytes. MACs of weights that are not zero, counted and not timed. Published: no "
        "positions, biases at 32 bits; entropy: with positions, no header; file: as it is loaded."
        + (f" Channels kept by the gates, net by net: {', '.join(kept)}." if kept else "")
    )
    return Table(f"Sizes of {record.title}", header, tuple(rows), (note,))


def tensor_table(record: CompressionRecord) -> Table:
    """One row a tensor: percent pruned by each iteration, what is left, and its clusters."""
    rows = []
    for path, densities in record.densities.items():
        ratios = [f"{ratio}" for ratio in record.ratios.get(path, ())]
        left = f"{100 * densities[-1]:.1f} %"
        clusters = record.clusters[path]
        rows.append((path, " ".join(ratios) or "-", left, str(clusters[0]), str(clusters[-1])))
    header = ("tensor", "% pruned by iteration", "left", "clusters, not pruned", "clusters, last")
    note = (
        f"Percent of the groups that were left. alpha1 {record.alphas[0]:.3g}, alpha2 "
        f"{record.alphas[1]:.3g} at a validation loss of {record.valid_loss:.3g}; lambda1 "
        f"{record.lambdas[0]:.3g}, lambda2 {record.lambdas[1]:.3g}. Pruning stopped by "
        f"{record.stopped!r}. Tensors whose loss was seen to fall as more was pruned, by "
        f"iteration: {', '.join(map(str, record.falls)) or '-'}."
    )
    if record.config["compression"]["bisect"]:
        note += " Ratios by bisection, which may pass over where such a loss first crosses."
    return Table(f"Tensors of {record.title}", header, tuple(rows), (note,))


def rate_figure(records: Sequence[CompressionRecord]) -> bytes:
    """STOI and PESQ over the rate, one curve a compression and accounting; a PNG."""
    figure = new_figure(5.2 * len(METRICS), 4.4)
    panels = figure.subplots(1, len(METRICS), squeeze=False)[0]
    for axis, metric in zip(panels, METRICS, strict=True):
        for index, record in enumerate(records):
            colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
            before = _mean(record.trained, metric)
            axis.axhline(before, color=colour, linestyle=":", linewidth=1)
            axis.axhline(before - LARGEST_LOSS[metric], color=colour, linestyle=":", linewidth=0.5)
            for clustered, size, line, name in (
                (False, "published_bytes", "--", "pruned, published"),
                (True, "published_bytes", "-", "and clustered, published"),
                (True, "file_bytes", "-.", "and clustered, file"),
            ):
                nets = [net for net in record.nets if net.clustered == clustered]
                axis.plot(
                    [record.dense_bytes / getattr(net, size) for net in nets],
                    [_mean(net.scores, metric) for net in nets],
                    color=colour,
                    linestyle=line,
                    marker=marker,
                    markersize=5,
                    label=f"{record.title}: {name}",
                )
        axis.set_xscale("log")
        axis.set_xlabel("times smaller")
        axis.set_ylabel(f"{metric_name(metric)}, mean over all SNRs")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return png_bytes(figure)


def _mean(scores: Scores, metric: str) -> float:
    return mean_interval(flat(scores, metric)).mean


def _rates(record: CompressionRecord, net: CompressedNet) -> tuple[str, str]:
    sizes = net.published_bytes, net.file_bytes
    published, true = (f"{record.dense_bytes / size:.1f}" for size in sizes)
    return published, true


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %"


def compression_report(records: Sequence[CompressionRecord], *, preset: str) -> Report:
    """All tables and the figure."""
    first, *others = compression_tables(records)
    figure = Figure(
        "Quality against rate",
        rate_figure(records),
        "Dotted: the net before compression, and below it where a net has lost too much. Published "
        "rates count no positions of the weights.",
    )
    intro = f"Preset {preset}. Machine: {', '.join(f'{k} {v}' for k, v in machine().items())}."
    return Report("Compressed nets", intro, [Text("What is done", _WHAT), first, figure, *others])


_WHAT = (
    "- before compression: the net as it was trained, without a regulariser.\n"
    "- not pruned: trained on, with the regulariser if there is one.\n"
    "- iteration: every tensor pruned as far as the validation loss, the others as they were, "
    "stays within alpha1, then all fine-tuned. With one threshold as many weights go.\n"
    "- clustered: every tensor's weights replaced by a code book of as few values as keep the "
    "validation loss within alpha2.\n"
    "- C1 prunes single weights, C2 whole columns of matrices and kernels of convolutions."
)
