"""Pictures of what was read from a network's gates.

Score against the number of channels; the weights of every channel, block by block; a map of
mixtures by their rates; and under a spectrogram voice, F0, noise class and SNR, frame by frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from dynse.data.labels import SHAPE
from dynse.evaluation.probe_figures import map_figure, score_figure, weight_figure
from dynse.evaluation.probe_strip import strip_figure
from dynse.evaluation.sections import Figure, Section
from dynse.probes.features import activation_rates, causal_average
from dynse.probes.linear import decide, outputs
from dynse.probes.records import ProbeRecord
from dynse.probes.rows import MixtureRows
from dynse.probes.study import Splits, TaskResult
from dynse.probes.tasks import F0, FRAME_SNR, VOICE


def probe_pictures(
    record: ProbeRecord,
    results: Mapping[str, TaskResult],
    of_noise: Splits,
    examples: Sequence[MixtureRows],
    noisy: Sequence[np.ndarray],
    classes: Sequence[str],
    *,
    blocks: int,
) -> list[Section]:
    """The pictures of one network's report.

    Args:
        record: of the network.
        results: of the tasks, by name.
        of_noise: the mixtures over the noise classes.
        examples: mixtures to draw what was heard in.
        noisy: their signals, (N,) each.
        classes: of noise, in the order of the predictor's.
        blocks: of the network.
    """
    per_block = [gate.shape[-1] for gate in np.split(examples[0].gates, blocks, axis=1)]
    width = sum(per_block)
    weights = {}
    for task, result in results.items():
        full = np.zeros((width, result.probe.weights.shape[1]), np.float32)
        full[np.asarray(result.probe.channels)] = result.probe.weights
        weights[task] = np.abs(full).max(1) if full.shape[1] > 1 else full[:, 0]
    references = {
        task: {
            kind: next(iter(found.values())).mean
            for kind, found in by_kind.items()
            if kind in ("majority or mean", "log-mel", "log-mel 18")
        }
        for task, by_kind in record.scores.items()
    }
    rates = np.stack([activation_rates(one.gates) for one in of_noise.test])
    sections: list[Section] = [
        Figure(
            "Score against number of channels",
            score_figure(
                record.paths,
                enough=record.enough,
                reference=references,
                scores={task: next(iter(found["gates"])) for task, found in record.scores.items()},
            ),
            "The channels are chosen on training mixtures, one after the other.",
        ),
        Figure(
            "Weights of every channel",
            weight_figure(weights, per_block),
            "Of the noise class the largest absolute weight over the classes.",
        ),
        Figure(
            "Mixtures by the rates of their gates",
            map_figure(rates, np.array([one.labels.noise_class for one in of_noise.test])),
            "t-SNE of the test mixtures: what lies near has like gates.",
        ),
    ]
    for mixture, signal in zip(examples, noisy, strict=True):
        sections.append(
            Figure(
                f"Heard in {mixture.id}",
                _strip(mixture, signal, results, classes),
                f"{mixture.labels.noise_class} at {mixture.labels.snr_db:g} dB.",
            )
        )
    return sections


def _strip(
    mixture: MixtureRows,
    noisy: np.ndarray,
    results: Mapping[str, TaskResult],
    classes: Sequence[str],
) -> bytes:
    """What the probes say frame by frame, under the spectrogram."""
    told = {task: outputs(result.probe, mixture.gates) for task, result in results.items()}
    voice = np.asarray(decide(results[VOICE.name].probe, told[VOICE.name]))
    # The noise class was learnt from rates over a mixture: from the last second here.
    recent = causal_average(mixture.gates, 62)
    recent *= 62 / np.minimum(np.arange(1, len(recent) + 1), 62)[:, None]
    logits = np.asarray(outputs(results["noise class"].probe, recent))
    if logits.shape[1] == 1:  # of two classes the first has logit 0
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    labels = mixture.labels.frames
    f0_hz = 2.0 ** np.asarray(told[F0.name])[:, 0]
    return strip_figure(
        noisy,
        stft=SHAPE,
        voice_true=labels.voice,
        voice=voice,
        f0_true=labels.f0_hz,
        f0=np.where(voice, f0_hz, 0),
        snr_true=labels.snr_db,
        snr=np.asarray(told[FRAME_SNR.name])[:, 0],
        class_names=classes,
        class_scores=np.asarray(jax.nn.softmax(logits, axis=-1)),
        class_true=mixture.labels.noise_class if mixture.labels.noise_class in classes else None,
    )
