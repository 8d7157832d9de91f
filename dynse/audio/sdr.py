"""Scale-invariant signal-to-distortion ratio (Le Roux et al., ICASSP 2019)."""

from __future__ import annotations

from typing import Any


def si_sdr(estimate: Any, reference: Any) -> Any:
    """10 log10(|a s|^2 / |a s - x|^2) with a = <x, s> / |s|^2, means removed, in dB.

    NumPy arrays in, NumPy arrays out; JAX arrays in, JAX arrays out.

    Args:
        estimate: x (..., N).
        reference: s (..., N).

    Returns:
        (...,) in dB; NaN where either signal is silent, for which no ratio is defined.

    Raises:
        ValueError: where the shapes differ.
    """
    if estimate.shape != reference.shape:
        raise ValueError(f"shapes differ: estimate {estimate.shape}, reference {reference.shape}")
    xp = reference.__array_namespace__()
    estimate = estimate - estimate.mean(-1, keepdims=True)
    reference = reference - reference.mean(-1, keepdims=True)
    energy = xp.square(reference).sum(-1, keepdims=True)
    silent = (energy == 0) | (xp.square(estimate).sum(-1, keepdims=True) == 0)
    scale = (estimate * reference).sum(-1, keepdims=True) / xp.where(silent, 1, energy)
    target = scale * reference
    # The floor, 100 dB and more below any audible signal, keeps a perfect estimate finite.
    floor = 1e-20
    signal = xp.square(target).sum(-1) + floor
    distortion = xp.square(estimate - target).sum(-1) + floor
    ratio = 10 * xp.log10(signal / distortion)
    return xp.where(silent[..., 0], xp.nan, ratio)
