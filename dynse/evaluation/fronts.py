"""Pictures of a search for bit widths: fronts, hypervolume over generations, bits per operation.

A point is a net: its size in kB and its score, higher is better. Scores drawn are those of the
test set, which no search has seen, so a front need not rise everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dynse.evaluation.figures import MARKERS, NOISY, PALETTE, new_figure, png_bytes


class Points(NamedTuple):
    """Nets of one kind, in the order of their size.

    Attributes:
        size_kb: (n,).
        score: (n,), higher is better.
        labels: (n,) texts at the points, or empty.
    """

    size_kb: np.ndarray
    score: np.ndarray
    labels: tuple[str, ...] = ()


def front_figure(
    tasks: Mapping[str, Mapping[str, Points]],
    *,
    scores: Mapping[str, str],
    floats: Mapping[str, float],
    chosen: Mapping[str, tuple[float, float]],
) -> bytes:
    """Score over size, one panel a task, one curve a kind of net.

    Args:
        tasks: by task, by kind of net ("mixed", "homogeneous", ...): its points.
        scores: by task: name of the score, for the axis.
        floats: by task: score of the float net, drawn as a dashed line.
        chosen: by task: size in kB and score of the net that was taken, drawn as a ring.

    Returns:
        A PNG.
    """
    columns = min(len(tasks), 3)
    rows = -(-len(tasks) // columns)
    figure = new_figure(4.6 * columns, 3.8 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in panels[len(tasks) :]:
        axis.set_visible(False)
    for axis, (task, kinds) in zip(panels, tasks.items(), strict=False):
        for index, (kind, points) in enumerate(kinds.items()):
            axis.plot(
                points.size_kb,
                points.score,
                color=PALETTE[index],
                marker=MARKERS[index],
                markersize=5,
                linewidth=1.4,
                label=kind,
            )
            for size, score, label in zip(*points[:2], points.labels, strict=False):
                axis.annotate(
                    label, (size, score), xytext=(4, -9), textcoords="offset points", fontsize=7
                )
        axis.axhline(floats[task], color=NOISY, linestyle="--", linewidth=1, label="float")
        if task in chosen:
            axis.plot(
                *([value] for value in chosen[task]),
                marker="o",
                markersize=13,
                markerfacecolor="none",
                markeredgecolor="black",
                linestyle="none",
                label="taken",
            )
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("weights and biases in kB")
        axis.set_ylabel(scores[task])
        axis.set_xlim(left=0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(len(labels), 3 * columns),
        frameon=False,
    )
    return png_bytes(figure)


def hypervolume_figure(curves: Mapping[str, Sequence[np.ndarray]]) -> bytes:
    """Hypervolume over generations, as a fraction of the last one's, one curve a task and seed.

    Args:
        curves: by task: one (generations,) a seed.

    Returns:
        A PNG.
    """
    figure = new_figure(6.4, 3.8)
    axis = figure.subplots()
    for index, (task, seeds) in enumerate(curves.items()):
        for number, curve in enumerate(seeds):
            curve = np.asarray(curve, float)
            axis.plot(
                np.arange(len(curve)),
                curve / max(curve[-1], np.finfo(float).tiny),
                color=PALETTE[index % len(PALETTE)],
                linewidth=1.4,
                alpha=1 if number == 0 else 0.45,
                label=task if number == 0 else None,
            )
    axis.set_xlabel("generation")
    axis.set_ylabel("hypervolume, last = 1")
    axis.legend(frameon=False, fontsize=9)
    return png_bytes(figure)


def bits_figure(
    fronts: Mapping[str, np.ndarray], operations: Sequence[str], *, low: int = 2, high: int = 8
) -> bytes:
    """Bits of every operation over the front, one panel a task.

    The nets of a front stand side by side in the order of a hierarchical clustering of their
    genomes (average linkage), so that those alike are neighbours; the rightmost column is their
    mean.

    Args:
        fronts: by task: (nets, operations) bit widths.
        operations: names of the operations.
        low: fewest bits.
        high: most bits.

    Returns:
        A PNG.
    """
    figure = new_figure(1.2 + 3.4 * len(fronts), 1.0 + 0.24 * len(operations))
    panels = figure.subplots(1, len(fronts), squeeze=False, sharey=True)[0]
    image = None
    for axis, (task, genomes) in zip(panels, fronts.items(), strict=True):
        genomes = np.asarray(genomes, float)
        ordered = genomes[cluster_order(genomes)]
        table = np.concatenate([ordered, np.full((1, genomes.shape[1]), np.nan)])
        table = np.concatenate([table, np.repeat(genomes.mean(0, keepdims=True), 2, axis=0)])
        image = axis.imshow(
            table.T, cmap="viridis", vmin=low, vmax=high, aspect="auto", interpolation="nearest"
        )
        axis.set_title(task, fontsize=10)
        axis.set_xlabel(f"{len(genomes)} nets, then their mean")
        axis.set_xticks([])
    panels[0].set_yticks(range(len(operations)), operations, fontsize=7)
    figure.colorbar(image, ax=panels, label="bits", ticks=range(low, high + 1))
    return png_bytes(figure)


def cluster_order(genomes: np.ndarray) -> np.ndarray:
    """Order (nets,) in which similar genomes (nets, genes) are neighbours."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    if len(genomes) < 3:
        return np.arange(len(genomes))
    return leaves_list(linkage(genomes, "average", optimal_ordering=True))
