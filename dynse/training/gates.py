"""What pulls on the gates in training: the budget, and what keeps them alive.

    extra = w(t) [(kept - target)^2 + (kept in pauses - pause_target)^2]
            + a(t) batch shaping - b(t) mutual information

w rises over the ramp and is then a fixed weight (the paper) or a multiplier raised by dual ascent
until the kept fraction is within 0.02 of its target (ours). a and b fade out before the end, so
that the last part of the run serves the signal alone. The schedules are fractions of the run. The
budget of pauses is ours and off by default: what they save is there for speech.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from dynse.audio.activity import active_frames
from dynse.gating import budget_loss, init_dual, kept_fraction, update_dual
from dynse.gating.alive import batch_shaping_loss, mutual_information_loss
from dynse.gating.budget import BUDGETS


@dataclasses.dataclass(frozen=True)
class GateTraining:
    """How the gates are trained.

    Attributes:
        target: fraction of the channels to keep.
        budget: what is pulled to the target: "global", the mean over all blocks, frames and
            utterances of the batch, "per_block", or "per_utterance".
        anneal: fraction of the run over which targets fall from 1 (a dense net) to their values.
        pause_target: fraction to keep in frames without speech, of all of these in the batch
            together; None leaves them to the other budget.
        weight: first weight of the budget.
        dual_rate: gain of the dual ascent per step; 0 leaves the weight fixed (the paper).
        ramp: fraction of the run over which the weight rises from 0.
        mutual_information: weight of that term.
        batch_shaping: weight of that term, its prior Beta(target, 1 - target).
        fade: (begin, end) of the two terms' linear fading, fractions of the run.
        score_noise: scale of the logistic noise on the scores, fading likewise.
        soft: (begin, end): gates are soft, sigmoid(score), up to the first fraction of the run, and
            harden linearly up to the second; None: hard from the first step.
    """

    target: float = 0.25
    budget: Literal["global", "per_block", "per_utterance"] = "global"
    anneal: float = 0.0
    pause_target: float | None = None
    weight: float = 2.0
    dual_rate: float = 0.02
    ramp: float = 0.25
    mutual_information: float = 0.0
    batch_shaping: float = 0.0
    fade: tuple[float, float] = (0.5, 0.75)
    score_noise: float = 0.0
    soft: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.target <= 1:
            raise ValueError(f"target must lie in (0, 1], got {self.target}")
        if self.budget not in BUDGETS:
            raise ValueError(f"budget must be one of {', '.join(BUDGETS)}; got {self.budget!r}")
        if not 0 <= self.anneal <= 0.75:
            raise ValueError(
                "anneal must end before the last quarter of the run, of which the best state is "
                f"taken, got {self.anneal}"
            )
        if self.pause_target is not None and not 0 <= self.pause_target <= 1:
            raise ValueError(f"pause_target must lie in 0 to 1, got {self.pause_target}")
        for name, span in (("fade", self.fade), ("soft", self.soft)):
            if span is not None and not 0 <= span[0] < span[1] <= 1:
                raise ValueError(f"{name} must rise within 0 to 1, got {span}")


@dataclasses.dataclass(frozen=True)
class GateLoss:
    """The extra loss of a gated network over a run of `steps` steps."""

    config: GateTraining
    steps: int

    def init(self) -> Any:
        """The dual ascent's state."""
        return init_dual(self.config.weight)

    def forward_options(self, step: jax.Array) -> dict[str, Any]:
        """The scale of the noise on the scores, and how soft the gates are."""
        config, options = self.config, {}
        if config.score_noise:
            options["noise"] = config.score_noise * self._falling(config.fade, step)
        if config.soft is not None:
            options["softness"] = self._falling(config.soft, step)
        return options

    def _falling(self, span: tuple[float, float], step: jax.Array) -> jax.Array:
        begin, end = span
        return jnp.clip((end - step / self.steps) / (end - begin), 0, 1)

    def _annealed(self, target: float, step: jax.Array) -> jax.Array | float:
        if not self.config.anneal:
            return target
        done = jnp.minimum(step / (self.config.anneal * self.steps), 1)
        return 1 - (1 - target) * done

    def __call__(
        self, state: Any, aux: Any, batch: Any, step: jax.Array
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        """Loss (), next state and metrics "kept", "budget_weight" and, where pauses have a budget,
        "kept_in_pauses".

        Raises:
            ValueError: pauses have a budget and frames are not those of the 512/256 STFT.
        """
        config = self.config
        kept = jax.lax.stop_gradient(kept_fraction(aux.gates))
        ramp = jnp.minimum(step / max(config.ramp * self.steps, 1), 1)
        target = self._annealed(config.target, step)
        budget = budget_loss(aux.gates, target, by=config.budget)
        metrics = {"kept": kept, "budget_weight": ramp * state.weight}
        if config.pause_target is not None:
            pauses = ~active_frames(batch.clean)
            if pauses.shape != aux.gates[0].shape[:2]:
                raise ValueError(
                    f"expected the {pauses.shape[1]} frames of the 512/256 STFT, got "
                    f"{aux.gates[0].shape[1]}"
                )
            pause_target = self._annealed(config.pause_target, step)
            budget = budget + budget_loss(aux.gates, pause_target, valid=pauses)
            metrics["kept_in_pauses"] = jax.lax.stop_gradient(kept_fraction(aux.gates, pauses))
        total = ramp * state.weight * budget
        faded = self._falling(config.fade, step)
        if config.mutual_information:
            term = mutual_information_loss(aux.scores)
            total = total + config.mutual_information * faded * term
        if config.batch_shaping:
            term = batch_shaping_loss(aux.scores, alpha=config.target, beta=1 - config.target)
            total = total + config.batch_shaping * faded * term
        # The multiplier waits for the ramp: before that, a violation is no fault of the weight.
        rate = jnp.where(ramp < 1, 0.0, config.dual_rate)
        return total, update_dual(state, kept, target, rate), metrics
