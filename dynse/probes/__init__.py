"""Predictors that read what a gated network hears from the gates it computes anyway.

`features` of gates; a `linear` probe, fitted by `ridge` or `logistic` regression from the
`moments` of its features, with `thresholds` from validation rows and the `selection` of few
channels; `additions`, what it costs; `stream`, the probe inside a network's step; `verification`
of speakers; `scores`.

Miccini, Laroche, Piechowiak, Fafoutis, Pezzarossa: "From Diet to Free Lunch: Estimating Auxiliary
Signal Properties using Dynamic Pruning Masks in Speech Enhancement Networks", arXiv 2602.10666.
"""

from dynse.probes.additions import additions_per_frame, sum_of_open
from dynse.probes.features import (
    activation_rates,
    causal_average,
    frame_bits,
    varying_channels,
)
from dynse.probes.linear import LinearProbe, decide, make_probe, outputs, predict
from dynse.probes.logistic import fit_logistic
from dynse.probes.ridge import fit_ridge
from dynse.probes.scores import (
    grouped_folds,
    median_error_cents,
    wilson_interval,
)
from dynse.probes.selection import (
    channel_counts,
    enough,
    order_for_classes,
    order_for_targets,
    selection_path,
)
from dynse.probes.stream import (
    ProbedNet,
    add_probes,
    init_probe_state,
    probe_step,
    stack_probes,
)
from dynse.probes.thresholds import choose_threshold
from dynse.probes.verification import all_pairs, cosine_scores, equal_error_rate

__all__ = [
    "LinearProbe",
    "ProbedNet",
    "activation_rates",
    "add_probes",
    "additions_per_frame",
    "all_pairs",
    "causal_average",
    "channel_counts",
    "choose_threshold",
    "cosine_scores",
    "decide",
    "enough",
    "equal_error_rate",
    "fit_logistic",
    "fit_ridge",
    "frame_bits",
    "grouped_folds",
    "init_probe_state",
    "make_probe",
    "median_error_cents",
    "order_for_classes",
    "order_for_targets",
    "outputs",
    "predict",
    "probe_step",
    "selection_path",
    "stack_probes",
    "sum_of_open",
    "varying_channels",
    "wilson_interval",
]
