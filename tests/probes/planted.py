"""Gates with known meaning."""

import numpy as np


def correlated_bits(rows, channels, seed=0, sources=4):
    """(rows, channels) bool that follow a few hidden sources, and the sources (rows, sources)."""
    draw = np.random.default_rng(seed)
    hidden = draw.normal(size=(rows, sources))
    mixed = hidden @ draw.normal(size=(sources, channels)) + draw.normal(size=(rows, channels))
    return mixed > draw.normal(size=channels), hidden
