"""How a net is trained and compressed: what there is to choose, as published, and in short runs.

Tan and Wang, IEEE/ACM TASLP 29, 2021, publish lambda1, lambda2, alpha1 and alpha2 for each of their
four nets. Short runs are ours: limits as shares of the loss, bisection, code books on top of each
other, and a learning rate that falls to a tenth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from dynse.audio.stft import STFT
from dynse.data.mixing import MixingConfig
from dynse.pruning.groups import Groups
from dynse.pruning.iterate import StopRule
from dynse.pruning.regularizers import lambdas_by_share
from dynse.training.loop import LoopConfig
from dynse.training.nets import NetConfig
from dynse.training.runs import RunConfig
from dynse.training.step import AMSGradConfig, OptimizerConfig


@dataclasses.dataclass(frozen=True)
class CompressionConfig:
    """How a net is compressed.

    Attributes:
        pipeline: "C1", l1 and single weights, or "C2", sparse group lasso and whole groups.
        lambdas: (lambda1, lambda2); None: each term of the regulariser a tenth of the loss.
        alphas: (alpha1, alpha2), the largest increases of the validation loss by pruning and by
            clustering one tensor; absolute where lambdas are given, else what all tensors may add
            up to, as shares of the loss of the trained net (ours).
        rule: when pruning stops.
        together: cluster each tensor with the code books of those before it in place (ours).
        bisect: halve the grid of ratios in place of Algorithm 1's walk along it: a third of the
            evaluations, and the same ratio where the loss rises as more is pruned.
        regularized: train on and fine-tune with the regulariser.
        common_threshold: prune as many weights, but by one threshold for all tensors.
        finetune_share: steps after each pruning, in steps of the training before. The papers train
            30 epochs and 10.
        optimizer: of those. The papers' learning rate falls every two epochs.
    """

    pipeline: Literal["C1", "C2"] = "C1"
    lambdas: tuple[float, float] | None = None
    alphas: tuple[float, float] = (0.3, 0.03)
    rule: StopRule = StopRule()
    bisect: bool = False
    together: bool = False
    regularized: bool = True
    common_threshold: bool = False
    finetune_share: float = 1 / 3
    optimizer: AMSGradConfig = AMSGradConfig(decays=5)

    def name(self, net: str, seed: int) -> str:
        """Of folder and record."""
        rival = "" if self.regularized else "-plain"
        rival += "-common" if self.common_threshold else ""
        return f"{net}-{self.pipeline}{rival}-seed{seed}"

    def limits(
        self, loss: float, params: Any, groups: Groups
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """lambdas and alphas as they hold for a net.

        Args:
            loss: of the net on the validation set.
            params: of the net.
            groups: that are pruned.
        """
        lambdas, alphas = self.lambdas, self.alphas
        if lambdas is None:
            lambdas = lambdas_by_share(loss, params, groups)
            share = loss / len(groups)
            alphas = alphas[0] * share, alphas[1] * share
        if not self.regularized:
            return (0.0, 0.0), alphas
        # Single weights have no groups to be sparse in.
        return (lambdas[0], lambdas[1] if self.pipeline == "C2" else 0.0), alphas


# Their losses are of mixtures at an RMS of 1, on the STFT below. Of alpha1 of the TCNN, which is
# published twice, the journal's.
PUBLISHED: Mapping[str, CompressionConfig] = {
    "fdnn": CompressionConfig(lambdas=(0.1, 0.0005), alphas=(0.003, 0.0005)),
    "lstm": CompressionConfig(lambdas=(10, 0.005), alphas=(0.03, 0.01)),
    "tcnn": CompressionConfig(lambdas=(0.02, 0.02), alphas=(0.0002, 0.00005)),
    "gcrn": CompressionConfig(lambdas=(1, 0.05), alphas=(0.02, 0.005)),
}
PUBLISHED_OPTIMIZER = AMSGradConfig()
# Ours: at the published rate, which hardly falls, runs of minutes end far from where longer ones
# do; here it falls to a tenth, and in each fine-tuning again. Bisection in place of Algorithm 1's
# walk along the ratios.
SHORT_RUNS_OPTIMIZER = AMSGradConfig(3e-3, decay=0.86)
SHORT_RUNS = CompressionConfig(bisect=True, together=True, optimizer=SHORT_RUNS_OPTIMIZER)
# Ours too, as nothing normalises what the LSTM hears and says: at an RMS of 1 magnitudes are about
# 10, its first gates saturate and its last layer has far to go.
SHORT_RUNS_RMS = {"lstm": 0.1}
# Of C1 and of C2.
PUBLISHED_ITERATIONS = {"fdnn": (5, 3), "lstm": (5, 4), "tcnn": (3, 2), "gcrn": (5, 5)}


def training_runs(
    nets: Mapping[str, NetConfig],
    loop: LoopConfig,
    *,
    steps: Mapping[str, int] | None = None,
    rms: Mapping[str, float] | None = None,
    optimizer: AMSGradConfig = PUBLISHED_OPTIMIZER,
    valid_batches: int = 8,
    **mixing: Any,
) -> dict[str, RunConfig]:
    """How nets are trained: the papers' four as published, the others by their own recipes.

    Args:
        nets: by name.
        loop: of every net,
        steps: but for the steps of these.
        rms: of the mixtures, in place of the published 1.
        optimizer: of the papers' four.
        valid_batches: that the loss of Algorithms 1 and 3 is a mean of.
        mixing: of the batches.
    """
    published = RunConfig(
        stft=STFT(320, 320, 160, "hamming"),
        mixing=MixingConfig(**mixing, rms=1.0),
        optimizer=optimizer,
        loop=loop,
        valid_batches=valid_batches,
        loss="target",
    )
    own = RunConfig(
        mixing=MixingConfig(**mixing),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=20),
        loop=loop,
        valid_batches=valid_batches,
        waveform_weight=0.03,
    )

    def of(name: str, net: NetConfig) -> RunConfig:
        run = published if name in PUBLISHED else own
        level = (rms or {}).get(name, run.mixing.rms)
        return dataclasses.replace(
            run,
            net=net,
            mixing=dataclasses.replace(run.mixing, rms=level),
            loop=dataclasses.replace(loop, steps=(steps or {}).get(name, loop.steps)),
        )

    return {name: of(name, net) for name, net in nets.items()}
