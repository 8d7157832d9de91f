"""Hypervolume: how much of the objective space a set of points dominates (Zitzler, Thiele, 1998).

    HV = volume of the union over points a of the boxes [a_1, r_1] x ... x [a_M, r_M]

with the reference r worse than what counts. Exact for 2 objectives, by a sweep, and for 3, as a
sum of 2-objective areas over slices of the third. Host, float64.
"""

from __future__ import annotations

import numpy as np


def hypervolume(objectives: np.ndarray, reference: np.ndarray) -> float:
    """Dominated volume up to a reference point.

    Args:
        objectives: (N, M), minimised, M 2 or 3. Points that are not better than the reference in
            every objective, or hold a NaN, add nothing. Dominated ones may be among them.
        reference: (M,) finite.

    Returns:
        The volume, in the product of the objectives' units.

    Raises:
        ValueError: for other numbers of objectives.
    """
    points = np.asarray(objectives, np.float64)
    reference = np.asarray(reference, np.float64)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or reference.shape != points.shape[1:]:
        raise ValueError(
            "expected objectives (N, 2) or (N, 3) and a reference of as many values, got "
            f"{points.shape} and {reference.shape}"
        )
    if not np.isfinite(reference).all():
        raise ValueError(f"expected a finite reference, got {reference.tolist()}")
    points = points[(points < reference).all(1)]
    if points.shape[1] == 2:
        return _area(_staircase(points), reference)
    points = points[np.argsort(points[:, 2], kind="stable")]
    depths = np.diff(points[:, 2], append=reference[2])
    volume, steps = 0.0, np.empty((0, 2))
    for point, depth in zip(points, depths, strict=True):
        steps = _staircase(np.concatenate([steps, point[None, :2]]))
        volume += depth * _area(steps, reference[:2])
    return float(volume)


def _staircase(points: np.ndarray) -> np.ndarray:
    """The non-dominated of (N, 2) points, by rising first objective."""
    points = points[np.lexsort(points.T[::-1])]
    lowest = np.minimum.accumulate(points[:, 1])
    before = np.concatenate([[np.inf], lowest])[: len(points)]
    return points[points[:, 1] < before]


def _area(steps: np.ndarray, reference: np.ndarray) -> float:
    """Of a staircase that stays within the reference."""
    widths = np.diff(steps[:, 0], append=reference[0])
    return float((widths * (reference[1] - steps[:, 1])).sum())
