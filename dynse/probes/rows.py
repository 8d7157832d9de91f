"""What probes read and what they are told: features and labels of every frame of mixtures.

Beside the gates g_t a mixture gives what else a predictor of the same form could read:

    scores         of the gates, before the step
    activations    what each gated block adds to its input; a gate at the output makes it 0
    log-mel        64 bands of the noisy input, in dB
    log-mel 18     of the frame and the 17 before it: 1152 numbers, as many as gates at the output
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynse.audio.features import magnitude
from dynse.audio.mel import band_power, mel_filterbank
from dynse.audio.stft import STFT
from dynse.data.bank import Corpus
from dynse.data.labels import SHAPE, MixtureLabels, label_mixture
from dynse.data.pitch import Pitch
from dynse.data.testsets import SAMPLE_RATE, TestSet, render
from dynse.probes.features import frame_bits

MEL_BANDS = 64
MEL_CONTEXT = 18
_FLOOR = 1e-8  # about the energy of the last bit of 16


class MixtureRows(NamedTuple):
    """One mixture of T frames.

    Attributes:
        id: of the mixture.
        gates: (T, S) bool.
        scores: (T, S) float16: half the memory, and a probe needs no more digits.
        activations: (T, S') float16.
        log_mel: (T, 64) float16.
        labels: what is true of it.
    """

    id: str
    gates: np.ndarray
    scores: np.ndarray
    activations: np.ndarray
    log_mel: np.ndarray
    labels: MixtureLabels

    def features(self, kind: str) -> np.ndarray:
        """(T, numbers a frame) of "gates", "scores", "activations", "log-mel" or "log-mel 18"."""
        if kind == "log-mel 18":
            return with_past(self.log_mel, MEL_CONTEXT)
        return getattr(self, kind.replace("-", "_"))


def mixture_rows(
    model: Any,
    variables: Mapping[str, Any],
    corpus: Corpus,
    test_set: TestSet,
    pitch: Pitch,
    *,
    stft: STFT,
    batch_size: int = 6,
) -> Iterator[MixtureRows]:
    """Run a gated Conv-FSENet over mixtures and keep what probes read.

    Args:
        model: the network.
        variables: its variables.
        corpus: holds the recordings.
        test_set: the mixtures, padded to the same whole second, so that few programs are
            compiled.
        pitch: of the speech of their split.
        stft: the network's transform, the 512/256 one that labels are made for.
        batch_size: mixtures at once.

    Raises:
        ValueError: the network has no gates, or another transform than the labels.
    """
    if getattr(model, "gate", None) is None:
        raise ValueError("expected a network with gates to probe, got one without")
    if stft != SHAPE:
        raise ValueError(f"expected the transform of the labels, {SHAPE}, got {stft}")
    specs = list(test_set)
    longest = SAMPLE_RATE * -(-max(spec.length for spec in specs) // SAMPLE_RATE)
    for start in range(0, len(specs), batch_size):
        batch = specs[start : start + batch_size]
        noisy = np.zeros((batch_size, longest), np.float32)
        for row, spec in zip(noisy, batch, strict=False):
            row[: spec.length] = render(spec, corpus).noisy
        found = [np.asarray(part) for part in _read(model, variables, noisy)]
        for row, spec in enumerate(batch):
            frames = SHAPE.frames(spec.length)
            parts = (part[row, :frames].copy() for part in found)
            yield MixtureRows(spec.id, *parts, label_mixture(spec, corpus, pitch))


def with_past(features: np.ndarray, frames: int) -> np.ndarray:
    """Each frame beside those before it: (T, S) -> (T, frames * S), the first one repeated."""
    before = np.repeat(features[:1], frames - 1, axis=0)
    padded = np.concatenate([before, features])
    return np.concatenate([padded[i : i + len(features)] for i in range(frames)], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _read(model: Any, variables: Any, noisy: jax.Array) -> tuple[jax.Array, ...]:
    """Gates, scores, activations and log-mel (B, T, ...) of signals (B, N)."""
    spectrum = magnitude(SHAPE.forward(noisy))
    (_, _, aux), captured = model.apply(
        variables, spectrum, capture_intermediates=_is_block_or_front, mutable=["intermediates"]
    )
    inside = {name: found["__call__"][0] for name, found in captured["intermediates"].items()}
    x, added = jax.nn.relu(inside["front"]), []
    for index in range(len(aux.gates)):
        y = inside[f"block{index}"][1]
        added.append(y - x)
        x = y
    filterbank = mel_filterbank(MEL_BANDS, SHAPE.n_fft, SAMPLE_RATE)
    mel = 10 * jnp.log10(jnp.maximum(band_power(jnp.square(spectrum), filterbank), _FLOOR))
    half = (jnp.concatenate(part, -1).astype(jnp.float16) for part in (aux.scores, added))
    return frame_bits(aux.gates), *half, mel.astype(jnp.float16)


def _is_block_or_front(module: Any, method: str) -> bool:
    name = module.name or ""  # the network itself has none
    return method == "__call__" and (name == "front" or name.startswith("block"))
