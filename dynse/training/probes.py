"""Nets trained with probes in view: a linear head reads voice, F0 and SNR from each frame's gates.

    extra = other + weight (CE(voice) + (u - u*)^2 over voiced frames + (r - r*)^2) / 3
    voice, u, r = head(g_t),      u = (log2 F0 - 7.5) / 0.5,      r = SNR of the frame / 12 dB

The head learns beside the network, with an Adam of its own and a gradient that stops at what it
reads; the network's gradient passes through the head as it is, by the gates' surrogate. Further
than the paper (arXiv 2602.10666), whose gates know nothing of the probes that will read them. A net
whose gates do not learn, or that has none, can be trained with a head on its last hidden layer.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dynse.audio.activity import active_frames, frame_power
from dynse.data.labels import SNR_RANGE_DB
from dynse.data.mixing import Batch

F0_MIDDLE, F0_SPREAD = 7.5, 0.5  # of log2 of Hz: 181 Hz, and half an octave
SNR_SPREAD = 12.0
OUTPUTS = 3
READS = ("gates", "hidden", "both")


@dataclasses.dataclass(frozen=True)
class ProbeTraining:
    """How much the probes weigh.

    Attributes:
        weight: of their loss.
        learning_rate: of the head.
        reads: what they read, all "gates", the "hidden" layer before the last matrix, or "both".
    """

    weight: float = 0.05
    learning_rate: float = 3e-3
    reads: Literal["gates", "hidden", "both"] = "gates"

    def __post_init__(self) -> None:
        if not (self.weight > 0 and self.learning_rate > 0):
            raise ValueError(f"weight and learning_rate must be positive, got {self}")
        if self.reads not in READS:
            raise ValueError(f"reads must be one of {', '.join(READS)}; got {self.reads!r}")


class HeadState(NamedTuple):
    """The head, its optimiser, and the state of the other loss."""

    weights: jax.Array
    bias: jax.Array
    optimizer: Any
    other: Any


class FrameTargets(NamedTuple):
    """Of a batch, (B, T) each: voice bool, F0 and SNR scaled, and where there is an F0."""

    voice: jax.Array
    f0: jax.Array
    voiced: jax.Array
    snr: jax.Array


@dataclasses.dataclass(frozen=True)
class ProbeLoss:
    """The extra loss of a network that is to tell what it hears.

    Attributes:
        config: the probes'.
        channels: S of what is read.
        other: the extra loss of the gates.
    """

    config: ProbeTraining
    channels: int
    other: Any

    def init(self) -> HeadState:
        """A head of zeros: at first nothing is asked of the network."""
        head = jnp.zeros((self.channels, OUTPUTS)), jnp.zeros(OUTPUTS)
        return HeadState(*head, self._optimizer.init(head), self.other.init())

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.config.learning_rate)

    def forward_options(self, step: jax.Array) -> dict[str, Any]:
        """Those of the other loss."""
        return self.other.forward_options(step)

    def __call__(
        self, state: HeadState, aux: Any, batch: Batch, step: jax.Array
    ) -> tuple[jax.Array, HeadState, dict[str, jax.Array]]:
        """Loss (), next state and metrics: the other's and "probes".

        Raises:
            ValueError: the batch brings no F0, or frames are not those of the 512/256 STFT.
        """
        if batch.f0_hz is None:
            raise ValueError("expected batches with F0: load the speech with its pitch")
        total, other, metrics = self.other(state.other, aux, batch, step)
        gates = () if self.config.reads == "hidden" else aux.gates
        hidden = () if self.config.reads == "gates" else (aux.hidden,)
        read = jnp.concatenate([*gates, *hidden], -1)
        targets = frame_targets(batch)
        if read.shape[:2] != targets.voice.shape:
            raise ValueError(
                f"expected the {targets.voice.shape[1]} frames of the 512/256 STFT, got "
                f"{read.shape[1]}"
            )
        head = jax.tree.map(jax.lax.stop_gradient, (state.weights, state.bias))
        loss = head_loss(head, read, targets)
        gradient = jax.grad(head_loss)(head, jax.lax.stop_gradient(read), targets)
        updates, optimizer = self._optimizer.update(gradient, state.optimizer)
        weights, bias = optax.apply_updates(head, updates)
        total = total + self.config.weight * loss
        return total, HeadState(weights, bias, optimizer, other), {**metrics, "probes": loss}


def head_loss(
    head: tuple[jax.Array, jax.Array], read: jax.Array, targets: FrameTargets
) -> jax.Array:
    """Mean of the three losses, () .

    Args:
        head: weights (S, 3) and bias (3,).
        read: gates, or hidden activations, (B, T, S).
        targets: what is true.
    """
    weights, bias = head
    logit, f0, snr = jnp.moveaxis(read @ weights + bias, -1, 0)
    voice = optax.sigmoid_binary_cross_entropy(logit, targets.voice).mean()
    off = jnp.where(targets.voiced, jnp.square(f0 - targets.f0), 0)
    pitch = off.sum() / jnp.maximum(targets.voiced.sum(), 1)
    return (voice + pitch + jnp.square(snr - targets.snr).mean()) / OUTPUTS


def frame_targets(batch: Batch) -> FrameTargets:
    """What is true of every frame; F0 counts in frames with voice alone."""
    voice = active_frames(batch.clean)
    voiced = voice & (batch.f0_hz > 0)
    f0 = (jnp.log2(jnp.maximum(batch.f0_hz, 1.0)) - F0_MIDDLE) / F0_SPREAD
    clean, noise = (frame_power(part) for part in (batch.clean, batch.noisy - batch.clean))
    # Where nothing is heard of the noise the ratio is at its limit, and of both at the lower one.
    ratio = 10 * jnp.log10(jnp.maximum(clean, 1e-12) / jnp.maximum(noise, 1e-12))
    snr = jnp.clip(ratio, *SNR_RANGE_DB)
    return FrameTargets(voice.astype(jnp.float32), f0, voiced, snr / SNR_SPREAD)
