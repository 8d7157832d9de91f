"""What probes read from gates, as PNG bytes: weights, score by channels, and a map.

All take plain arrays; a "task" is what a probe tells (voice activity, F0, ...). The map is t-SNE
(van der Maaten and Hinton, 2008). matplotlib and scikit-learn are imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dynse.evaluation.figures import MARKERS, NOISY, PALETTE, new_figure, png_bytes

if TYPE_CHECKING:
    pass

DIVERGING = "RdBu_r"
LINES = (":", "--", "-.", (0, (1, 3)), (0, (5, 4)))
MAP_ROWS = 2000
_PERPLEXITY = 30.0
_WIDTH = 9.0


def weight_figure(
    weights: Mapping[str, np.ndarray],
    channels_per_block: Sequence[int],
    *,
    output_names: Mapping[str, Sequence[str]] | None = None,
) -> bytes:
    """Weights of each probe, a row a block, a column a channel; white where it reads nothing.

    Red opens upwards: an open channel raises the output. One panel a task, or an output where a
    task has several, each with colours of its own.

    Args:
        weights: by task, (all channels,) or (all channels, K), 0 for channels not read.
        channels_per_block: channels of each block's gate.
        output_names: by task, names of its K outputs; their numbers by default.

    Returns:
        A PNG.

    Raises:
        ValueError: there is no task, or the channels are not those of the blocks.
    """
    total, panels = sum(channels_per_block), {}
    for task, values in weights.items():
        values = np.asarray(values, np.float64)
        if values.ndim not in (1, 2) or len(values) != total:
            raise ValueError(
                f"{task}: expected weights ({total},) or ({total}, K), got {values.shape}"
            )
        if values.ndim == 1 or values.shape[1] == 1:
            panels[task] = values.reshape(-1)
            continue
        names = (output_names or {}).get(task, range(values.shape[1]))
        for name, column in zip(names, values.T, strict=True):
            panels[f"{task}: {name}"] = column
    if not panels:
        raise ValueError("expected weights of at least one task, got none")
    columns = 1 if len(panels) <= 3 else 2
    rows = -(-len(panels) // columns)
    blocks, widest = len(channels_per_block), max(channels_per_block)
    height = 0.75 + 0.12 * blocks
    figure = new_figure(_WIDTH, height * rows + 0.2)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axis, (name, values) in zip(axes.flat, panels.items(), strict=False):
        picture = np.full((blocks, widest), np.nan)
        parts = np.split(values, np.cumsum(channels_per_block)[:-1])
        for row, part in zip(picture, parts, strict=True):
            row[: len(part)] = part
        reach = np.abs(values).max() or 1.0
        image = axis.imshow(
            picture,
            aspect="auto",
            interpolation="nearest",
            cmap=DIVERGING,
            vmin=-reach,
            vmax=reach,
            extent=(-0.5, widest - 0.5, blocks - 0.5, -0.5),
        )
        axis.set_facecolor("#DDDDDD")  # channels that a narrower block does not have
        axis.set_title(f"{name} ({np.count_nonzero(values)} channels)", size=10, loc="left")
        axis.set_yticks(range(0, blocks, 1 + blocks // 10))
        axis.tick_params(labelsize=8)
        bar = figure.colorbar(image, ax=axis, pad=0.01, fraction=0.05, aspect=10)
        bar.ax.tick_params(labelsize=8)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for column in axes.T:
        shown = [axis for axis in column if axis.figure is not None]
        shown[-1].tick_params(labelbottom=True)
    figure.supylabel("block", size=9)
    figure.supxlabel("channel within the block", size=9)
    return png_bytes(figure)


def score_figure(
    curves: Mapping[str, Sequence[tuple[int, float]]],
    *,
    enough: Mapping[str, int] | None = None,
    reference: Mapping[str, Mapping[str, float]] | None = None,
    scores: Mapping[str, str] | None = None,
) -> bytes:
    """Score against the number of channels that a probe reads, one panel a task.

    Args:
        curves: by task, (channels, score), rising in the channels.
        enough: by task, the channels that reach 99 % of what all bring: a ring.
        reference: by task, by name, what others reach: level lines.
        scores: by task, name of the score on the axis.

    Returns:
        A PNG.

    Raises:
        ValueError: there is no task, or the point of `enough` is not on its curve.
    """
    from matplotlib.patheffects import Normal, Stroke

    if not curves:
        raise ValueError("expected the curve of at least one task, got none")
    enough, reference, scores = enough or {}, reference or {}, scores or {}
    others = list(dict.fromkeys(name for lines in reference.values() for name in lines))
    columns = min(len(curves), 2 if len(curves) < 5 else 3)
    rows = -(-len(curves) // columns)
    figure = new_figure(max(_WIDTH, 3.3 * columns), 3.1 * rows + 0.5)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, (task, points) in zip(axes.flat, curves.items(), strict=False):
        counts, values = np.array(points, float).T
        axis.plot(
            counts, values, color=PALETTE[0], marker="o", markersize=4, linewidth=1.8, label="gates"
        )
        if task in enough:
            at = np.flatnonzero(counts == enough[task])
            if not len(at):
                raise ValueError(
                    f"{task}: enough must be one of {counts.astype(int).tolist()}, "
                    f"got {enough[task]}"
                )
            axis.plot(
                counts[at[0]],
                values[at[0]],
                color=PALETTE[1],
                marker="o",
                markersize=12,
                markerfacecolor="none",
                markeredgewidth=2,
                linestyle="none",
                label="99 % of the gain",
            )
            axis.annotate(
                f"{enough[task]}",
                (counts[at[0]], values[at[0]]),
                xytext=(0, -16),
                textcoords="offset points",
                ha="center",
                color=PALETTE[1],
                path_effects=[Stroke(linewidth=3, foreground="white"), Normal()],
            )
        for name, value in reference.get(task, {}).items():
            number = others.index(name)
            axis.axhline(
                value,
                color=(*PALETTE[2:4], *PALETTE[5:], NOISY)[number % 5],
                linestyle=LINES[number % len(LINES)],
                linewidth=1.6,
                label=name,
            )
        axis.set_xscale("log", base=2)
        ticks = counts[:: -(-len(counts) // 7)]
        axis.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
        axis.minorticks_off()
        axis.margins(y=0.12)
        axis.set_title(task, size=10)
        axis.set_xlabel("channels", size=9)
        axis.set_ylabel(scores.get(task, "score"), size=9)
    for axis in axes.flat[len(curves) :]:
        axis.remove()
    _shared_legend(figure)
    return png_bytes(figure)


def map_figure(
    vectors: np.ndarray, classes: Sequence[Any], *, title: str = "", seed: int = 0
) -> bytes:
    """A map on which similar vectors lie close together, coloured by class.

    t-SNE from the first two principal components, so that the large distances mean something and
    the same vectors give the same map. Axes have no unit.

    Args:
        vectors: (N, S), N of 5 to 2000: activation rates, or gates of frames.
        classes: (N,) names; up to 16 are told apart by colour and marker.
        title: above the map.
        seed: of t-SNE.

    Returns:
        A PNG.

    Raises:
        ValueError: the lengths differ, or there are too few or too many rows or classes.
        ImportError: scikit-learn is missing.
    """
    vectors, classes = np.asarray(vectors, np.float32), [str(name) for name in classes]
    if vectors.ndim != 2 or len(vectors) != len(classes):
        raise ValueError(f"expected (N, S) and N classes, got {vectors.shape} and {len(classes)}")
    if not 5 <= len(vectors) <= MAP_ROWS:
        raise ValueError(f"expected 5 to {MAP_ROWS} vectors, got {len(vectors)}")
    names = sorted(set(classes))
    if len(names) > 16:
        raise ValueError(f"expected at most 16 classes, got {len(names)}")
    places = _embed(vectors, seed)
    figure = new_figure(_WIDTH, 6.4)
    axis = figure.subplots()
    for index, name in enumerate(names):
        own = np.array([other == name for other in classes])
        # As many markers as colours: shifted by one each round, so that no pair occurs twice.
        marker = MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]
        axis.scatter(
            *places[own].T,
            s=34 if len(vectors) < 500 else 20,
            color=PALETTE[index % len(PALETTE)],
            marker=marker,
            edgecolor="white",
            linewidth=0.4,
            label=f"{name} ({own.sum()})",
        )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.set_title(title, size=12)
    figure.legend(
        loc="outside right upper", frameon=False, fontsize=10, markerscale=1.4, handletextpad=0.2
    )
    return png_bytes(figure)


def _embed(vectors: np.ndarray, seed: int) -> np.ndarray:
    """(N, S) -> (N, 2)."""
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError("the map needs scikit-learn, which comes with librosa") from error
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 4)
    # One thread: several wait for each other at every step, for long where the machine is busy.
    with threadpool_limits(1):
        return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(vectors)


def _shared_legend(figure: Any) -> None:
    handles = {
        label: handle
        for axis in figure.axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=3 if len(handles) > 5 else len(handles),
        frameon=False,
        fontsize=9,
    )
