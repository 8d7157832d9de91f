"""The threshold of a probe with two classes, chosen on validation rows.

Every threshold between two neighbouring outputs is tried. Balanced accuracy is the mean of the
shares of positives above and of negatives not above it; accuracy the share of all rows.
"""

from __future__ import annotations

import numpy as np


def choose_threshold(outputs: np.ndarray, labels: np.ndarray, *, balanced: bool = True) -> float:
    """The threshold of the highest (balanced) accuracy; of equally good ones the lowest.

    Args:
        outputs: (N,) or (N, 1) of a logistic probe.
        labels: (N,) bool, both values occur.
        balanced: maximise balanced accuracy; else accuracy.

    Returns:
        A float32 halfway between the two outputs that it separates; infinite where it is best to
        say the same of all rows. `probe.replace(threshold=...)` puts it into the probe.

    Raises:
        ValueError: the lengths differ or a class does not occur.
    """
    outputs = np.asarray(outputs, np.float32).reshape(-1)
    labels = np.asarray(labels, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if outputs.shape != labels.shape or not (positives and negatives):
        raise ValueError(
            f"expected outputs and labels of both classes, got {outputs.shape}, {labels.shape}, "
            f"{positives} positive and {negatives} negative"
        )
    order = np.argsort(outputs, kind="stable")
    rising = outputs[order]
    # Cut i: the i lowest outputs are called negative.
    missed = np.concatenate([[0], np.cumsum(labels[order])])
    rejected = np.concatenate([[0], np.cumsum(~labels[order])])
    weights = (1 / positives, 1 / negatives) if balanced else (1, 1)
    score = (positives - missed) * weights[0] + rejected * weights[1]
    edges = np.concatenate([[-np.inf], rising, [np.inf]]).astype(np.float32)
    score[edges[:-1] == edges[1:]] = -1  # equal outputs cannot be separated
    best = int(score.argmax())
    below, above = edges[best : best + 2]
    middle = below / 2 + above / 2
    # Of two neighbours in float32 the middle may be the upper one.
    return float(middle if middle < above else below)
