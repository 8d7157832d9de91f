"""Scores of one network with one set of variables after the other: as it is compressed, say."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dynse.audio.stft import STFT
from dynse.data.bank import Corpus
from dynse.data.testsets import TestSet, render
from dynse.evaluation.metric_process import MetricPool
from dynse.evaluation.metrics import Utterance, score_utterances
from dynse.evaluation.nets import as_utterance, enhance_mixtures
from dynse.evaluation.scores import RunRecord
from dynse.evaluation.scoring import scored_record


@dataclasses.dataclass(frozen=True)
class VariantScores:
    """What all variants share.

    Attributes:
        model: the network.
        stft: its transform.
        corpus: of the mixtures.
        pool: processes for the metrics.
        records_dir: where records go; one that is there is not made again.
        rms: scale each mixture to this RMS before the network, and back after it; None does not.
        seed: of the training.
    """

    model: Any
    stft: STFT
    corpus: Corpus
    pool: MetricPool
    records_dir: Path
    rms: float | None = None
    seed: int = 0

    def means(
        self, variables: Any, test_set: TestSet, metrics: Sequence[str] = ("stoi", "pesq")
    ) -> dict[str, float]:
        """Metric to its mean over the mixtures; NaN where it could not be measured of one."""
        scores = score_utterances(
            self._enhanced(variables, test_set),
            metrics=metrics,
            pool=self.pool,
            total=len(test_set),
            description="validating",
        )
        return {
            metric: sum(score.values[metric] for score in scores) / len(scores)
            for metric in metrics
        }

    def record(
        self, name: str, variables: Any, test_set: TestSet, config: Mapping[str, Any]
    ) -> RunRecord:
        """Every utterance's scores with these variables.

        Args:
            name: of the record.
            variables: of the network.
            test_set: the mixtures.
            config: all that decides the scores, but for the corpus and the test set.
        """
        return self._record(name, self._enhanced(variables, test_set), test_set, config)

    def noisy_record(self, test_set: TestSet) -> RunRecord:
        """The scores of the mixtures as they are."""
        mixtures = (render(spec, self.corpus) for spec in test_set)
        items = (as_utterance(mixture, mixture.noisy) for mixture in mixtures)
        return self._record("noisy", items, test_set, {})

    def _enhanced(self, variables: Any, test_set: TestSet) -> Iterator[Utterance]:
        for one in enhance_mixtures(
            self.model, variables, self.corpus, test_set, stft=self.stft, rms=self.rms
        ):
            kept = {"kept": float(one.statistics.kept)} if one.gates else {}
            yield as_utterance(one.mixture, one.enhanced, kept)

    def _record(self, name, items, test_set, config):
        return scored_record(
            name,
            items,
            self.corpus,
            test_set,
            self.records_dir,
            self.pool,
            config=config,
            seed=self.seed,
        )
