"""What every network is: offline a step from the first state, causal, without delay.

    next state, output, aux = network(frames, state)       frames (B, T, ...), T >= 1

It has `init_state(batch_size)`, `receptive_field_frames` and `cost()` of its own. One that maps
anything but the magnitudes of a spectrum to a gain says so (`dynse.models.waveform`). All are
causal but a Conv-FSENet that was asked to see ahead, which takes whole signals alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax


class Aux(NamedTuple):
    """What a network tells beside its output; empty tuples without gates or exits.

    Attributes:
        gates: (B, T, C) of zeros and ones, one entry a block.
        scores: (B, T, C), before the step, one entry a block.
        exits: gain (B, T, F) of every exit that was computed, the output last.
        hidden: (B, T, width) before the last matrix, of a Conv-FSENet in training; else empty.
    """

    gates: tuple[jax.Array, ...]
    scores: tuple[jax.Array, ...]
    exits: tuple[jax.Array, ...] = ()
    hidden: jax.Array | tuple[()] = ()


class Network(nn.Module):
    """Base of the networks."""

    @nn.nowrap
    def step(self, variables: Any, state: Any, frames: jax.Array) -> tuple[Any, jax.Array, Any]:
        """One block of frames at inference: (state, frames) -> (next state, output, aux)."""
        return self.apply(variables, frames, state)

    @property
    def latency_frames(self) -> int:
        """Frames that the output lags behind the input: none."""
        return 0
