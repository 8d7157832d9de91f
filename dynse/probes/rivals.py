"""What else tells voice and F0: the WebRTC voice detector and a pitch tracker on the noisy signal.

Both get the noisy waveform, as the network does. The detector decides per 30 ms; each frame of the
512/256 STFT takes the decision at its centre, sample 256 t. The tracker is pYIN, which made the
labels from the clean signal (`dynse.data.pitch`).

Beside them stands each voice's own mean F0, which nobody is told: so much of the variance of F0 is
a matter of who speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dynse.audio.files import to_int16
from dynse.data.bank import Corpus
from dynse.data.labels import SHAPE, label_mixture
from dynse.data.pitch import HOP_LENGTH, Pitch, estimate_pitch
from dynse.data.testsets import SAMPLE_RATE, TestSet, render
from dynse.evaluation.statistics import Interval
from dynse.probes.tasks import F0, VOICE, Rows, score_estimates

Rivals = Mapping[str, Mapping[str, Mapping[str, Interval]]]  # task -> name -> score -> interval
MODES = range(4)
_BLOCK = 480  # 30 ms at 16 kHz


def webrtc_voice(noisy: np.ndarray, mode: int) -> np.ndarray:
    """Decisions of the WebRTC voice activity detector: (N,) at 16 kHz -> (T,) bool.

    Args:
        noisy: the signal.
        mode: 0, says voice easily, to 3.

    Raises:
        ModuleNotFoundError: the package webrtcvad-wheels is not installed.
    """
    import webrtcvad

    detector = webrtcvad.Vad(mode)
    samples = to_int16(np.pad(noisy, (0, -len(noisy) % _BLOCK)))
    blocks = [
        detector.is_speech(block.tobytes(), SAMPLE_RATE) for block in samples.reshape(-1, _BLOCK)
    ]
    return np.array(blocks)[_centres(len(noisy), _BLOCK, len(blocks))]


def tracked_f0(noisy: np.ndarray) -> np.ndarray:
    """pYIN's F0 in Hz of the noisy signal: (N,) -> (T,) float32, 0 where it finds none."""
    found = estimate_pitch(noisy)
    return found[_centres(len(noisy), HOP_LENGTH, len(found))]


def score_rivals(corpus: Corpus, test_set: TestSet, pitch: Pitch) -> Rivals:
    """All of them on the test mixtures; without the package of the detector the others.

    Args:
        corpus: holds the recordings.
        test_set: the mixtures.
        pitch: of the speech of their split.
    """
    labels = [label_mixture(spec, corpus, pitch) for spec in test_set]
    noisy = [render(spec, corpus).noisy for spec in test_set]
    frames = [len(one.frames.voice) for one in labels]
    groups = {
        task: np.repeat([getattr(one, task.drawn) for one in labels], frames)
        for task in (VOICE, F0)
    }
    voice = np.concatenate([one.frames.voice for one in labels])
    rows = Rows(voice, voice, groups[VOICE])
    of_voice: dict[str, Any] = {}
    try:
        for mode in MODES:
            said = np.concatenate([webrtc_voice(signal, mode) for signal in noisy])
            of_voice[f"WebRTC detector, mode {mode}"] = score_estimates(VOICE, said, rows)
    except ModuleNotFoundError:
        of_voice = {}
    f0_hz = np.concatenate([one.frames.f0_hz for one in labels])
    voiced = f0_hz > 0
    rows = Rows(f0_hz[voiced], np.log2(f0_hz[voiced]), groups[F0][voiced])
    tracked = np.concatenate([tracked_f0(signal) for signal in noisy])[voiced]
    # Where the tracker finds no pitch, the mean of what it finds elsewhere is its best guess.
    known = tracked > 0
    guess = np.log2(tracked[known]).mean() if known.any() else 0.0
    estimate = np.where(known, np.log2(np.where(known, tracked, 1.0)), guess)
    _, speaker = np.unique(rows.groups, return_inverse=True)
    means = np.bincount(speaker, rows.targets) / np.bincount(speaker)
    of_f0 = {
        "pYIN on the noisy signal": score_estimates(F0, estimate, rows),
        "the voice's own mean, told": score_estimates(F0, means[speaker], rows),
    }
    return {VOICE.name: of_voice, F0.name: of_f0}


def _centres(samples: int, block: int, blocks: int) -> np.ndarray:
    """Of each STFT frame the block that its centre lies in; the last one where it lies behind."""
    centres = np.arange(SHAPE.frames(samples)) * SHAPE.hop_length
    return np.minimum(centres // block, blocks - 1)
