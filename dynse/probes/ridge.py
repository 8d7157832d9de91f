"""Ridge regression in closed form (Hoerl and Kennard, 1970).

On standardised features z and with the weights w_n of `moments` it minimises

    1/2 sum_n w_n |y_n - b - beta^T z_n|^2 + penalty / 2 |beta|^2
    beta = (gram + penalty I)^-1 cross

so a penalty means the same for rare and frequent channels and for any number of frames. The
product over the frames is JAX's, in float32 chunks; the one solve of S equations is NumPy's, in
float64, since channels may repeat each other.
"""

from __future__ import annotations

import numpy as np

from dynse.probes.features import varying_channels
from dynse.probes.linear import LinearProbe, make_probe
from dynse.probes.moments import gather_moments


def fit_ridge(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    penalty: float = 1e-3,
    channels: np.ndarray | None = None,
    window: int = 1,
) -> LinearProbe:
    """A probe that estimates numbers.

    Args:
        features: (N, all channels), averaged over `window` frames.
        targets: (N,) or (N, K), any unit.
        penalty: positive, relative to features of variance 1.
        channels: (S,) to read; None: those that vary.
        window: kept in the probe.

    Returns:
        The probe, with weights on the raw features.

    Raises:
        ValueError: the penalty is not positive, or the arrays do not fit or are not finite.
    """
    if not penalty > 0:
        raise ValueError(f"expected a positive penalty, got {penalty}")
    targets = np.asarray(targets)
    targets = targets[:, None] if targets.ndim == 1 else targets
    channels = varying_channels(features) if channels is None else np.asarray(channels)
    moments = gather_moments(features[:, channels], targets)
    beta = np.linalg.solve(moments.gram + penalty * np.eye(len(channels)), moments.cross)
    weights = beta * moments.inverse_std[:, None]
    bias = moments.target_mean - moments.mean @ weights
    return make_probe(channels, weights, bias, kind="ridge", window=window)
