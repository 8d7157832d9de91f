"""Features of what a gated network decided, for predictors that read them.

    bits      b_t = the gates of frame t, all blocks one after the other
    average   a_t = (b_t + b_(t-1) + ... + b_(t-k+1)) / k,      b_t = 0 before the start
    rates     r   = mean of b_t over the frames of an utterance

Frames carry what changes fast (voice activity, F0, frame SNR), rates what stays (noise class,
speaker), averages what lies between. Miccini et al., arXiv 2602.10666, name the tasks and publish
no features; these, and the pooling rule of the gates themselves for the average, are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def frame_bits(gates: Sequence[Any]) -> Any:
    """All gates of each frame.

    Args:
        gates: over blocks (..., T, C_i) zeros and ones. NumPy arrays in, NumPy array out; JAX
            arrays in, JAX array out.

    Returns:
        (..., T, sum of C_i) bool, block after block.
    """
    return gates[0].__array_namespace__().concatenate(list(gates), axis=-1) > 0


def causal_average(features: np.ndarray, window: int) -> np.ndarray:
    """Mean over each frame and the `window` - 1 before it, always divided by `window`.

    In a stream the outputs of a probe are averaged instead (`dynse.probes.stream`): a linear
    predictor and a mean can be swapped, and there are fewer outputs than channels.

    Args:
        features: (T, S) of one utterance: bits, or any numbers a frame.
        window: frames k; 1 gives the features themselves.

    Returns:
        (T, S) float32.

    Raises:
        ValueError: the window is not positive.
    """
    if window < 1:
        raise ValueError(f"expected a window of at least 1 frame, got {window}")
    # Running sums of bits are exact in float64.
    sums = np.cumsum(features, axis=0, dtype=np.float64)
    sums[window:] -= sums[:-window].copy()
    return (sums / window).astype(np.float32)


def activation_rates(bits: np.ndarray) -> np.ndarray:
    """Fraction of an utterance's frames with the channel open: (T, S) -> (S,) float32.

    Raises:
        ValueError: there is no frame.
    """
    if not len(bits):
        raise ValueError("expected at least one frame, got none")
    return bits.mean(axis=0, dtype=np.float32)


def varying_channels(features: np.ndarray) -> np.ndarray:
    """Which channels are not constant on the training data; a constant one tells nothing.

    Args:
        features: (N, S).

    Returns:
        Their rising indices (at most S,) int32.
    """
    return np.flatnonzero(features.max(axis=0) != features.min(axis=0)).astype(np.int32)
