"""Static pruning of any net's parameters: sparse, and structured where whole groups vanish.

`groups` says what is pruned together, `regularizers` make it small, `masks` take it out and keep it
out while training, `sensitivity` is Algorithm 1 of Tan and Wang, `iterate` Algorithm 2 and
`clustering` Algorithm 3; `shrink` removes units that nothing is left of, `packed` is a file of what
is left, `accounting` says how large that is, and `pipeline` does all of it in a folder. None of
these trains or scores: that comes as functions, which `job` makes of a trained run. `recipes` has
what is published and what short runs take.
"""

from dynse.pruning.accounting import Sizes, pruned_macs, sizes
from dynse.pruning.clustering import Clustering, cluster
from dynse.pruning.groups import (
    get_tensor,
    groups_by_rank,
    named_tensors,
    set_tensors,
    unstructured,
)
from dynse.pruning.iterate import PruningState, StopRule, lambda_factor, prune, start_pruning
from dynse.pruning.masks import (
    apply_masks,
    count_nonzero,
    group_magnitudes,
    masks_by_thresholds,
    ratio_thresholds,
    with_masks,
)
from dynse.pruning.packed import load_packed, save_packed
from dynse.pruning.pipeline import Stage, compress
from dynse.pruning.regularizers import (
    group_penalty,
    l1_penalty,
    lambdas_by_share,
    sparse_group_lasso,
    with_penalty,
)
from dynse.pruning.sensitivity import (
    Sensitivity,
    analyze_sensitivity,
    make_sweep,
    with_common_threshold,
)
from dynse.pruning.shrink import Shrunk, shrink

__all__ = [
    "Clustering",
    "PruningState",
    "Sensitivity",
    "Shrunk",
    "Sizes",
    "Stage",
    "StopRule",
    "analyze_sensitivity",
    "apply_masks",
    "cluster",
    "compress",
    "count_nonzero",
    "get_tensor",
    "group_magnitudes",
    "group_penalty",
    "groups_by_rank",
    "l1_penalty",
    "lambda_factor",
    "lambdas_by_share",
    "load_packed",
    "make_sweep",
    "masks_by_thresholds",
    "named_tensors",
    "prune",
    "pruned_macs",
    "ratio_thresholds",
    "save_packed",
    "set_tensors",
    "shrink",
    "sizes",
    "sparse_group_lasso",
    "start_pruning",
    "unstructured",
    "with_common_threshold",
    "with_masks",
    "with_penalty",
]
