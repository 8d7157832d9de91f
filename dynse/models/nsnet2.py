"""nsNet2, a recurrent network that estimates a gain.

    h = relu(fc1 u)                       u: log power of the spectrum, standardised or not
    h = gru2(gru1(h))
    h = relu(fc3 relu(fc2 h))
    gain = sigmoid(fc4 h)                 to be multiplied with the noisy spectrum

Braun and Tashev, "Data augmentation and loss normalization for deep noise suppression",
arXiv 2008.06412. Two versions are known: the paper's (`NsNet2()`) with 257 bins and features
standardised by the training set, and the one published for inference (`public_nsnet2`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dynse.audio.features import log_power
from dynse.layers.conv import Pointwise, pointwise_cost
from dynse.layers.cost import LayerCost
from dynse.layers.gru import GRU, gru_cost
from dynse.models.network import Aux, Network

FEATURES = ("standardized", "floored")
# The paper does not say how small its eps is; this is the public version's floor.
EPS = 1e-12
# Ours: of a bin that hardly varied in training, so that it does not drown the others.
MIN_VAR = 1e-4

State = tuple[jax.Array, jax.Array]


class NsNet2(Network):
    """The network: magnitudes (B, T, bins) in, gain (B, T, bins) in 0 to 1 out. Causal.

    The statistics of the features are variables that training leaves as they are: `mean` and
    `var` (bins,) in the collection `batch_stats`, from `feature_statistics`.

    Attributes:
        bins: frequency bins F.
        first: width of fc1.
        hidden: width of both GRUs.
        wide: width of fc2 and fc3.
        features: "standardized", (log10(|X|^2 + eps) - mean) / sqrt(var), or "floored",
            log10(max(|X|^2, eps)).
        first_relu: a ReLU after fc1 (the paper); without, fc1 and the first GRU's input matrix
            are linear in a row.
        gain_floor_db: least gain, at inference alone (below it there is no gradient); None for
            none.
    """

    bins: int = 257
    first: int = 400
    hidden: int = 400
    wide: int = 600
    features: Literal["standardized", "floored"] = "standardized"
    first_relu: bool = True
    gain_floor_db: float | None = None

    def setup(self) -> None:
        self.setup_features()
        self.fc1 = Pointwise(self.first)
        self.gru1, self.gru2 = GRU(self.hidden), GRU(self.hidden)
        self.fc2, self.fc3 = Pointwise(self.wide), Pointwise(self.wide)
        self.fc4 = Pointwise(self.bins)

    @nn.nowrap
    def setup_features(self) -> None:
        """The part of `setup` that `log_features` needs.

        Raises:
            ValueError: on unknown features.
        """
        if self.features not in FEATURES:
            raise ValueError(
                f"features must be one of {', '.join(FEATURES)}; got {self.features!r}"
            )
        if self.features == "standardized":
            self.mean = self.variable("batch_stats", "mean", jnp.zeros, (self.bins,))
            self.var = self.variable("batch_stats", "var", jnp.ones, (self.bins,))

    def __call__(
        self,
        frames: jax.Array,
        state: State | None = None,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[State, jax.Array, Aux]:
        """Gains of a block of frames.

        Args:
            frames: magnitudes (B, T, bins), T >= 1.
            state: from `init_state` or the call before; None starts anew.
            train: leave the gain floor out.
            key: not used, nothing is drawn; the train step hands one to every network.

        Returns:
            The next state, the gain (B, T, bins) and `Aux`, empty.

        Raises:
            ValueError: on a wrong number of bins.
        """
        if state is None:
            state = self.init_state(frames.shape[0])
        h = self.fc1(self.log_features(frames))
        h = nn.relu(h) if self.first_relu else h
        state1, h = self.gru1(state[0], h)
        state2, h = self.gru2(state[1], h)
        h = nn.relu(self.fc3(nn.relu(self.fc2(h))))
        gain = nn.sigmoid(self.fc4(h))
        if not train:
            gain = floor_gain(gain, self.gain_floor_db)
        return (state1, state2), gain, Aux((), ())

    def log_features(self, frames: jax.Array) -> jax.Array:
        """What the first layer sees of magnitudes: u (B, T, bins).

        Raises:
            ValueError: on a wrong number of bins.
        """
        if frames.ndim != 3 or frames.shape[-1] != self.bins:
            raise ValueError(f"expected frames (B, T, {self.bins}), got {frames.shape}")
        if self.features == "standardized":
            return (_log_power(frames) - self.mean.value) * jax.lax.rsqrt(self.var.value)
        return log_power(frames, EPS)

    @nn.nowrap
    def init_state(self, batch_size: int) -> State:
        """State before the first frame: both GRUs' h (B, hidden), zeros."""
        return (jnp.zeros((batch_size, self.hidden)), jnp.zeros((batch_size, self.hidden)))

    @property
    def receptive_field_frames(self) -> None:
        """None: a recurrent network never forgets."""
        return None

    @nn.nowrap
    def cost(self) -> list[LayerCost]:
        """Costs of all layers, per frame."""
        return [
            pointwise_cost("fc1", self.bins, self.first),
            gru_cost("gru1", self.first, self.hidden),
            gru_cost("gru2", self.hidden, self.hidden),
            pointwise_cost("fc2", self.hidden, self.wide),
            pointwise_cost("fc3", self.wide, self.wide),
            pointwise_cost("fc4", self.wide, self.bins),
        ]


def public_nsnet2(**options: Any) -> NsNet2:
    """The version published for inference: 161 bins (n_fft 320, window 20 ms, hop 10 ms).

    Args:
        **options: attributes to set otherwise.
    """
    published = {"bins": 161, "features": "floored", "gain_floor_db": -80.0}
    return NsNet2(**{**published, **options})


def floor_gain(gain: jax.Array, floor_db: float | None) -> jax.Array:
    """No gain below a floor in dB; with None, the gain as it is."""
    return gain if floor_db is None else jnp.maximum(gain, 10 ** (floor_db / 20))


def _log_power(magnitudes: jax.Array) -> jax.Array:
    """log10(|X|^2 + eps), any shape."""
    return jnp.log10(jnp.square(magnitudes) + EPS)


def feature_statistics(batches: Iterable[jax.Array]) -> dict[str, jax.Array]:
    """Mean and variance of each bin's log power over training data, once before training.

    Args:
        batches: magnitudes (B, T, bins) of noisy training signals.

    Returns:
        The collection `batch_stats` of `NsNet2`: `mean` and `var`, each (bins,).

    Raises:
        ValueError: without a single frame.
    """
    count, total, squares = 0, 0.0, 0.0
    for magnitudes in batches:
        rows = np.asarray(_log_power(magnitudes), np.float64)
        rows = rows.reshape(-1, rows.shape[-1])
        count += len(rows)
        total += rows.sum(0)
        squares += np.square(rows).sum(0)
    if count == 0:
        raise ValueError("expected at least one frame of training data, got none")
    mean = total / count
    var = np.maximum(squares / count - np.square(mean), MIN_VAR)
    return {"mean": jnp.asarray(mean, jnp.float32), "var": jnp.asarray(var, jnp.float32)}
