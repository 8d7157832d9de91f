"""Gates that switch channels on and off per frame, for any JAX network.

`surrogates`, `step`, `gate`, `budget` are the method; `alive` holds losses against gates that
become constants, `controls` the gates that a trained gate must beat, `statistics` what gates do.
"""

from dynse.gating.budget import budget_loss, init_dual, kept_fraction, update_dual
from dynse.gating.gate import apply_gate, gate_macs, init_gate, init_gate_state
from dynse.gating.step import (
    hard_step,
    init_moving_average,
    moving_average,
)
from dynse.gating.surrogates import SURROGATES, identity

__all__ = [
    "SURROGATES",
    "apply_gate",
    "budget_loss",
    "gate_macs",
    "hard_step",
    "identity",
    "init_dual",
    "init_gate",
    "init_gate_state",
    "init_moving_average",
    "kept_fraction",
    "moving_average",
    "update_dual",
]
