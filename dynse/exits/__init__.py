"""Exits: several levels of quality and cost from one net, and policies that choose among them.

`heads` and `losses` build and train such a net, `policies` and `router` choose an exit per frame,
`early_exit` runs a net as a policy chooses, `macs` counts what that costs.
"""

from dynse.exits.early_exit import EarlyExit, EarlyExitState, SkippedState, Taken
from dynse.exits.heads import SPLITS, AllExits, ExitHead, split_widths, take_exit
from dynse.exits.losses import (
    exit_weights,
    joint_loss,
    layer_mask,
    phase_layers,
)
from dynse.exits.macs import ExitMacs
from dynse.exits.policies import Budget, ExitCosts, ExitPolicy, Fixed, Frame, Threshold
from dynse.exits.router import (
    Router,
    init_router,
    oracle_exits,
    paid_errors,
    router_loss,
    router_scores,
)

__all__ = [
    "SPLITS",
    "AllExits",
    "Budget",
    "EarlyExit",
    "EarlyExitState",
    "ExitCosts",
    "ExitHead",
    "ExitMacs",
    "ExitPolicy",
    "Fixed",
    "Frame",
    "Router",
    "SkippedState",
    "Taken",
    "Threshold",
    "exit_weights",
    "init_router",
    "joint_loss",
    "layer_mask",
    "oracle_exits",
    "paid_errors",
    "phase_layers",
    "router_loss",
    "router_scores",
    "split_widths",
    "take_exit",
]
