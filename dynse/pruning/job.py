"""The compression of one trained run: the functions that `compress` takes, and the record.

    train on with lambda1 / n(W) sum |w| + lambda2 / n(G) sum_g sqrt(p_g) ||g||_2      (iteration 0)
    prune each tensor as far as the net's loss on the validation set rises by alpha1 at most,
    fine-tune, again; cluster each net on the way, each tensor within a rise of alpha2

(Tan and Wang, IEEE/ACM TASLP 29, 2021, whose nets have the regulariser from the first step on; that
a trained net is trained on with it is ours, so that any net can be compressed.) This module alone
of its room trains and scores. Masks and regulariser are put around the run's optimiser. The rivals
are here too: no regulariser, one common threshold for all tensors, and dense nets that were trained
as long as a pruned one, as small as it and as large as before.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console

from dynse.data.bank import Corpus
from dynse.data.testsets import TestSet
from dynse.evaluation.compression_records import (
    CompressedNet,
    CompressionRecord,
    DenseRival,
    scores_by_snr,
)
from dynse.evaluation.scores import commit, machine
from dynse.evaluation.variants import VariantScores
from dynse.layers.cost import total_macs, total_params
from dynse.pruning.accounting import pruned_macs
from dynse.pruning.clustering import cluster
from dynse.pruning.groups import get_tensor, groups_by_rank, unstructured
from dynse.pruning.iterate import lambda_factor
from dynse.pruning.masks import masks_by_thresholds, with_masks
from dynse.pruning.pipeline import Stage, compress
from dynse.pruning.recipes import CompressionConfig
from dynse.pruning.regularizers import sparse_group_lasso, with_penalty
from dynse.pruning.runs import packed_metadata
from dynse.pruning.sensitivity import (
    Sensitivity,
    analyze_sensitivity,
    make_sweep,
    with_common_threshold,
)
from dynse.training.compression import finetuning, mean_loss, validation_batches, validation_loss
from dynse.training.loop import check_identity, write_json
from dynse.training.nets import NetConfig, net_of_size
from dynse.training.runs import RunConfig, train_run, variables_digest


class CompressionJob:
    """One compression of one trained net.

    Args:
        config: how.
        run: that the net was trained by.
        variables: the trained net.
        corpus: it was trained on.
        scoring: of its variants.
        valid_set: mixtures that the stop rule looks at.
        run_dir: holds the folder of this compression, called `name`.
        console: told of each stage.
    """

    def __init__(
        self,
        config: CompressionConfig,
        run: RunConfig,
        variables: Mapping[str, Any],
        corpus: Corpus,
        *,
        scoring: VariantScores,
        valid_set: TestSet,
        run_dir: pathlib.Path,
        console: Console,
    ) -> None:
        self.config, self.run, self.corpus = config, run, corpus
        self.scoring, self.valid_set = scoring, valid_set
        self.run_dir, self.console = run_dir, console
        self.variables = _without_empty(variables)
        self.net = run.net.kind
        self.name = config.name(self.net, run.seed)
        steps = max(1, round(config.finetune_share * run.loop.steps))
        self.finetuning = finetuning(run, steps, config.optimizer)
        groups = groups_by_rank(self.variables["params"])
        self.groups = unstructured(groups) if config.pipeline == "C1" else groups
        self.whole = {f"params/{path}": axes for path, axes in self.groups.items()}
        self.batches = validation_batches(run, corpus)
        # One function: what is compiled for it serves all iterations.
        self.loss = mean_loss(self._validation_loss(), self.batches)
        self.folder = run_dir / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        check_identity(self.folder, self.identity)
        self.valid_loss, self.lambdas, self.alphas = self._limits()

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the outcome, as JSON."""
        content = {
            "run": dataclasses.asdict(self.run),
            "finetuning": dataclasses.asdict(self.finetuning),
            "compression": dataclasses.asdict(self.config),
            "corpus": self.corpus.fingerprint,
            "valid_set": self.valid_set.sha256,
        }
        return json.loads(json.dumps(content))

    def stages(self) -> list[Stage]:
        """Train on with the regulariser, then prune and cluster; or go on where that stopped."""
        workers = os.cpu_count() or 1
        sweep = make_sweep(self._validation_loss(), workers=workers)

        def analyze(variables: Any) -> Sensitivity:
            found = analyze_sensitivity(
                sweep,
                variables,
                self.whole,
                self.batches,
                alpha=self.alphas[0],
                at_once=3 * workers,
                bisect=self.config.bisect,
            )
            if self.config.common_threshold:
                return with_common_threshold(variables, self.whole, found)
            return found

        nothing = masks_by_thresholds(self.variables, self.whole, {})
        found = []
        for stage in compress(
            self.folder,
            self._train_on(self.variables, nothing, 0),
            self.whole,
            analyze=analyze,
            finetune=self._train_on,
            score=self._valid_scores,
            cluster=lambda variables: cluster(
                self.loss, variables, self.whole, self.alphas[1], together=self.config.together
            ),
            rule=self.config.rule,
            before=self.variables,
            metadata=packed_metadata(self.run),
        ):
            found.append(stage)
            self.console.print(
                f"{self.name}, iteration {stage.state.iteration}: published rate "
                f"{stage.clustered_sizes.published_rate:.1f}, file "
                f"{stage.clustered_sizes.true_rate:.1f}"
            )
        return found

    def record(self, stages: Sequence[Stage], test_set: TestSet) -> CompressionRecord:
        """Every net on the way, scored."""
        sizes = {path: np.size(self._tensor(self.variables, path)) for path in self.groups}
        states = [stage.state for stage in stages]
        weights = [self._weights(state.params) for state in states]
        valid = [states[0].first_scores, *(state.scores for state in states)]
        layers = self.scoring.model.cost()
        trained = self.scoring.record(
            f"{self.net} seed{self.run.seed}",
            self.variables,
            test_set,
            _about(self.run, self.variables),
        )
        return CompressionRecord(
            net=self.net,
            pipeline=self.config.pipeline,
            seed=self.run.seed,
            regularized=self.config.regularized,
            common_threshold=self.config.common_threshold,
            noisy=scores_by_snr(self.scoring.noisy_record(test_set)),
            trained=scores_by_snr(trained),
            dense_bytes=stages[0].sizes.dense,
            dense_weights=sum(sizes.values()),
            dense_macs=total_macs(layers),
            nets=tuple(net for stage in stages for net in self._nets(stage, layers, test_set)),
            rivals=(),
            stopped=self.config.rule.reason(states[-1]),
            densities={
                path: tuple(one[path] / size for one in weights) for path, size in sizes.items()
            },
            ratios={
                path: tuple(state.sensitivity.ratios[f"params/{path}"] for state in states[1:])
                for path in self.groups
            },
            clusters={
                path: tuple(stage.clusters[f"params/{path}"] for stage in stages)
                for path in self.groups
            },
            evaluations=tuple(state.sensitivity.evaluations for state in states[1:]),
            falls=tuple(len(state.sensitivity.falls) for state in states[1:]),
            lambdas=self.lambdas,
            alphas=self.alphas,
            valid_loss=self.valid_loss,
            valid_scores={
                name: tuple(None if np.isnan(one[name]) else one[name] for one in valid)
                for name in valid[0]
            },
            config=self.identity,
            corpus=self.scoring.corpus.name,
            corpus_fingerprint=self.scoring.corpus.fingerprint,
            test_set=test_set.name,
            test_set_hash=test_set.sha256,
            machine=machine(),
            commit=commit(),
        )

    def rivals(self, record: CompressionRecord, test_set: TestSet) -> tuple[DenseRival, ...]:
        """Dense nets beside the best pruned one, trained for as many steps in all.

        One is as large as before. The other has narrower layers, and at most as many parameters as
        the pruned one has weights that are not zero and biases, or one unit a layer. Where no
        pruned net loses little, they are the last one's rivals.
        """
        pruned = record.best_pruned
        others = total_params(self.scoring.model.cost()) - record.dense_weights
        small = net_of_size(self.run.net, self.run.stft.bins, pruned.weights + others)
        return (
            self._rival(pruned, "as small", "small", small, test_set),
            self._rival(pruned, "as large as before", "large", self.run.net, test_set),
        )

    def _rival(
        self, pruned: CompressedNet, kind: str, suffix: str, net: NetConfig, test_set: TestSet
    ) -> DenseRival:
        loop = dataclasses.replace(self.run.loop, steps=pruned.steps)
        run = dataclasses.replace(self.run, net=net, loop=loop)
        name = f"{self.name}-{suffix}"
        model, variables, _ = train_run(
            self.run_dir / name, run, self.corpus, title=name, console=self.console
        )
        layers = model.cost()
        scoring = dataclasses.replace(self.scoring, model=model)
        scores = scoring.record(name, variables, test_set, _about(run, variables))
        return DenseRival(
            of=pruned.name,
            kind=kind,
            config=json.loads(json.dumps(dataclasses.asdict(net))),
            steps=pruned.steps,
            parameters=total_params(layers),
            macs=total_macs(layers),
            scores=scores_by_snr(scores),
        )

    def _validation_loss(self) -> Any:
        """Of the run, without a term in dB, of which a share says nothing."""
        return validation_loss(dataclasses.replace(self.run, waveform_weight=0.0))

    def _limits(self) -> tuple[float, tuple[float, float], tuple[float, float]]:
        """Validation loss before, lambdas, alphas; kept, as another machine rounds otherwise."""
        path = self.folder / "limits.json"
        if not path.exists():
            loss = float(jax.jit(self.loss)(self.variables))
            limits = self.config.limits(loss, self.variables["params"], self.groups)
            write_json(path, [loss, *limits])
        loss, lambdas, alphas = json.loads(path.read_text())
        return loss, tuple(lambdas), tuple(alphas)

    def _train_on(self, start: Any, masks: Any, iteration: int) -> Any:
        weights = tuple(lambda_factor(iteration) * value for value in self.lambdas)
        place = f"iteration-{iteration}/finetuning" if iteration else "regularised"

        def penalty(params: Any, weights: Any) -> jax.Array:
            return sparse_group_lasso(params, self.groups, *weights)

        _, variables, _ = train_run(
            self.folder / place,
            self.finetuning,
            self.corpus,
            variables=start,
            around=lambda optimizer: with_masks(
                with_penalty(optimizer, penalty, weights), masks["params"]
            ),
            told={"lambdas": weights, "pipeline": self.config.pipeline},
            phase=1 + iteration,
            title=f"{self.name}, iteration {iteration}",
            console=self.console,
        )
        return _without_empty(variables)

    def _nets(
        self, stage: Stage, layers: Sequence[Any], test_set: TestSet
    ) -> tuple[CompressedNet, CompressedNet]:
        """A stage's net, pruned and then clustered as well."""
        iteration = stage.state.iteration
        steps = self.run.loop.steps + (1 + iteration) * self.finetuning.loop.steps

        def net(kind: str, variables: Any, size: Any) -> CompressedNet:
            name = f"{self.name} {iteration} {kind}"
            file = stage.path.with_name(f"{kind}.packed")
            record = self.scoring.record(name, variables, test_set, _about(self.run, variables))
            kept = [one.values["kept"] for one in record.utterances if "kept" in one.values]
            return CompressedNet(
                iteration=iteration,
                clustered=kind == "clustered",
                weights=sum(self._weights(variables).values()),
                steps=steps,
                macs=pruned_macs(layers, variables["params"], self.groups),
                kept=float(np.mean(kept)) if kept else None,
                published_bytes=size.published,
                entropy_bytes=size.entropy,
                file_bytes=size.file,
                file=file.relative_to(self.run_dir).as_posix(),
                scores=scores_by_snr(record),
            )

        return (
            net("pruned", stage.state.params, stage.sizes),
            net("clustered", stage.clustered, stage.clustered_sizes),
        )

    def _valid_scores(self, variables: Any) -> dict[str, float]:
        return self.scoring.means(variables, self.valid_set)

    def _weights(self, variables: Any) -> dict[str, int]:
        """Of each tensor that may be pruned, how many are not zero."""
        return {path: int(np.count_nonzero(self._tensor(variables, path))) for path in self.groups}

    def _tensor(self, variables: Any, path: str) -> Any:
        return get_tensor(variables, f"params/{path}")


def _about(run: RunConfig, variables: Any) -> dict[str, Any]:
    """All that decides the scores of a net: how it is built and fed, and its variables."""
    return {"run": dataclasses.asdict(run), "variables": variables_digest(variables)}


def _without_empty(variables: Mapping[str, Any]) -> dict[str, Any]:
    """A net without running statistics has none in its files."""
    return {name: tree for name, tree in variables.items() if tree}
