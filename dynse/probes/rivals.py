"""What else tells voice and F0: the WebRTC voice detector and a pitch tracker on the noisy signal.

Both get the noisy waveform, as the network does. The detector decides per 30 ms; each frame of the
512/256 STFT takes the decision at its centre, sample 256 t. The tracker is pYIN, which made the
labels from the clean signal (`dynse.data.pitch`).
"""

from __future__ import annotations

import numpy as np

from dynse.audio.files import to_int16
from dynse.data.labels import SHAPE
from dynse.data.pitch import HOP_LENGTH, estimate_pitch
from dynse.data.testsets import SAMPLE_RATE

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


def _centres(samples: int, block: int, blocks: int) -> np.ndarray:
    """Of each STFT frame the block that its centre lies in; the last one where it lies behind."""
    centres = np.arange(SHAPE.frames(samples)) * SHAPE.hop_length
    return np.minimum(centres // block, blocks - 1)
