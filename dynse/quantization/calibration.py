"""Calibration: the range of every activation tensor, from the float net run operation by operation.

    minmax       the smallest and largest value seen
    percentile   the quantiles at 0.1 % and 99.9 %
    mse          for each width, the range with the least squared quantisation error, among those
                 that come from shrinking either end of the range seen

minmax never saturates on the batches and gives outliers the most say; the narrower the width, the
more a tighter range pays. The last two work on histograms, which double their reach when a value
falls outside, so batches are seen once and none is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynse.quantization.genome import DenseLayer, GRULayer
from dynse.quantization.gru import (
    CALIBRATED,
    HIDDEN_LINEARS,
    INPUT_LINEARS,
    gru_cell,
    split_gates,
    swap_time,
)
from dynse.quantization.numerics import WIDTHS, affine_grid, round_half_away

METHODS = ("minmax", "percentile", "mse")
TAIL = 1e-3
BINS = 2048
_SHRINKS = np.geomspace(1, 0.1, 16)


def calibrate(
    layers: Sequence[GRULayer | DenseLayer],
    params: Mapping[str, Any],
    batches: Iterable[jax.typing.ArrayLike | tuple[jax.typing.ArrayLike, jax.typing.ArrayLike]],
    *,
    method: str = "minmax",
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Ranges of all tensors that `build` needs.

    Args:
        layers: tuple of layers.
        params: of each layer by its name.
        batches: iterable of x (B, T, D) float32, or of (x, valid) with valid (B, T): frames where
            it is false do not count. Every row starts at h = 0.
        method: "minmax", "percentile" or "mse".

    Returns:
        Dict from tensor name to (low, high), each (7,) float64, one for each width from 2 to 8
        (they differ with "mse" only); low <= 0 <= high.

    Raises:
        ValueError: unknown method, no valid frame, or values that are not finite.
    """
    if method not in METHODS:
        raise ValueError(f"expected one of {METHODS} as method, got {method!r}")
    statistics = {}
    for batch in batches:
        x, valid = batch if isinstance(batch, tuple) else (batch, None)
        recorded = _record(tuple(layers), params, jnp.asarray(x, jnp.float32))
        chosen = ... if valid is None else np.asarray(valid, bool)
        for name, values in recorded.items():
            values = np.asarray(values)[chosen].ravel()
            if not np.isfinite(values).all():
                raise ValueError(f"expected finite values, got some that are not in {name!r}")
            if values.size:
                before = statistics.get(name, Histogram())
                statistics[name] = before.add(values, count=method != "minmax")
    if not statistics:
        raise ValueError("expected at least one valid frame to calibrate with, got none")
    return {name: _range(histogram, method) for name, histogram in statistics.items()}


class Histogram(NamedTuple):
    """What was seen of a tensor.

    Attributes:
        low, high: exact extremes, 0 included.
        counts: (BINS,) of values in equal bins from -reach to reach.
        reach: a power of two.
    """

    low: float = 0.0
    high: float = 0.0
    counts: np.ndarray = np.zeros(BINS)
    reach: float = 2.0**-40

    def add(self, values: np.ndarray, *, count: bool = True) -> Histogram:
        """With more values, (n,); without `count` the extremes alone."""
        low, high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        if not count:
            return self._replace(low=low, high=high)
        counts, reach = self.counts, self.reach
        while reach < max(-low, high):
            # Neighbouring bins merge into the middle half of the doubled reach.
            counts = np.pad(counts.reshape(-1, 2).sum(1), BINS // 4)
            reach *= 2
        counts = counts + np.histogram(values, BINS, (-reach, reach))[0]
        return Histogram(low, high, counts, reach)

    def quantile(self, fraction: float) -> float:
        """Smallest bin edge with at least this fraction below it."""
        edges = np.linspace(-self.reach, self.reach, BINS + 1)[1:]
        below = np.cumsum(self.counts)
        return edges[np.searchsorted(below, fraction * below[-1])]


def _range(histogram: Histogram, method: str) -> tuple[np.ndarray, np.ndarray]:
    """(low, high), each (W,)."""
    low, high = histogram.low, histogram.high
    if method == "percentile":
        # A bin may end beyond what was seen.
        low = max(low, min(histogram.quantile(TAIL), 0.0))
        high = min(high, max(histogram.quantile(1 - TAIL), 0.0))
    if method == "mse":
        best = np.array([_least_squares(histogram, bits) for bits in WIDTHS])
        return best[:, 0], best[:, 1]
    return np.full(len(WIDTHS), low), np.full(len(WIDTHS), high)


def _least_squares(histogram: Histogram, bits: int) -> tuple[float, float]:
    """(low, high) with the least squared error of the bins' centres at one width."""
    seen = np.flatnonzero(histogram.counts)
    centres = ((seen + 0.5) / BINS * 2 - 1) * histogram.reach
    low, high = (
        candidates.ravel()[:, None]
        for candidates in np.meshgrid(histogram.low * _SHRINKS, histogram.high * _SHRINKS)
    )
    scale, zero_point = affine_grid(low, high, bits)
    codes = np.clip(round_half_away(centres / scale) + zero_point, 0, 2**bits - 1)
    errors = np.square(scale * (codes - zero_point) - centres) @ histogram.counts[seen]
    best = errors.argmin()
    return low[best, 0], high[best, 0]


class _FloatArithmetic:
    """The cell's operations on real numbers; keeps the result of each."""

    def __init__(self, gates: Mapping[str, tuple[jax.Array, jax.Array]]) -> None:
        self.gates = gates
        self.results = {}

    def _linears(self, names: Sequence[str], x: jax.Array) -> list[jax.Array]:
        for name in names:
            kernel, bias = self.gates[name]
            self.results[name] = x @ kernel + bias
        return [self.results[name] for name in names]

    def input(self, x: jax.Array) -> list[jax.Array]:
        return self._linears(INPUT_LINEARS, x)

    def hidden(self, h: jax.Array) -> list[jax.Array]:
        return self._linears(HIDDEN_LINEARS, h)

    def add(self, name: str, a: jax.Array, b: jax.Array) -> jax.Array:
        self.results[name] = a + b
        return self.results[name]

    def multiply(self, name: str, a: jax.Array, b: jax.Array) -> jax.Array:
        self.results[name] = a * b
        return self.results[name]

    def activate(self, name: str, a: jax.Array) -> jax.Array:
        return jnp.tanh(a) if name == "n" else jax.nn.sigmoid(a)

    def complement(self, _name: str, a: jax.Array) -> jax.Array:
        return 1 - a


@functools.partial(jax.jit, static_argnums=0)
def _record(
    layers: tuple[GRULayer | DenseLayer, ...], params: Mapping[str, Any], x: jax.Array
) -> dict[str, jax.Array]:
    """All tensors of the float net by name, (B, T, ...)."""
    tensors = {"input": x}
    for layer in layers:
        own = params[layer.name]
        if isinstance(layer, GRULayer):
            results = _record_gru(split_gates(own), x)
            tensors |= {f"{layer.name}/{name}": results[name] for name in CALIBRATED}
            x = results["h"]
        else:
            x = x @ own["kernel"] + own["bias"]
            tensors[layer.name] = x
            if layer.activation != "none":
                x = getattr(jax.nn, layer.activation)(x)
    return tensors


def _record_gru(
    gates: Mapping[str, tuple[jax.Array, jax.Array]], x: jax.Array
) -> dict[str, jax.Array]:
    outer = _FloatArithmetic(gates)
    outer.input(swap_time(x))

    def step(h: jax.Array, inputs: Sequence[jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        inner = _FloatArithmetic(gates)
        h = gru_cell(inner, inputs, h)
        return h, inner.results

    hidden = gates["W_hn"][1].shape[0]
    inputs = [outer.results[name] for name in INPUT_LINEARS]
    _, results = jax.lax.scan(step, jnp.zeros((x.shape[0], hidden)), inputs)
    return swap_time({**outer.results, **results})
