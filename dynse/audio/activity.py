"""The one rule for active speech, shared by the loss, the mixing SNR and the labels.

A frame is active where its level lies within 30 dB of the 95th percentile of the levels of its
utterance's clean signal. Frames are those of the STFT: frame t covers the samples
[t * hop - (length - hop), t * hop + hop), zeros outside. NumPy arrays in, NumPy arrays out; JAX
arrays in, JAX arrays out, inside jit as well.
"""

from __future__ import annotations

from typing import Any

RANGE_DB = 30.0
PERCENTILE = 95.0
# Below this level (a 16-bit file's last bit is -96 dBFS) everything is silence, so that an
# all-zero file has no active frame.
SILENCE_DB = -90.0


def frame_power(signal: Any, frame_length: int = 512, hop_length: int = 256) -> Any:
    """Mean square of every frame: (..., N) -> (..., T).

    Raises:
        ValueError: where hop_length does not divide frame_length.
    """
    if frame_length % hop_length:
        raise ValueError(
            f"hop_length must divide frame_length, got {hop_length} and {frame_length}"
        )
    xp = signal.__array_namespace__()
    past = frame_length - hop_length
    length = signal.shape[-1]
    hops = -(-(length + past) // hop_length)
    widths = [(0, 0)] * (signal.ndim - 1) + [(0, hops * hop_length - length)]
    blocks = xp.pad(xp.square(signal), widths).reshape(*signal.shape[:-1], hops, hop_length)
    energy = blocks.sum(-1)
    overlaps = frame_length // hop_length
    padded = xp.pad(energy, [(0, 0)] * (signal.ndim - 1) + [(overlaps - 1, 0)])
    return sum(padded[..., k : k + hops] for k in range(overlaps)) / frame_length


def frame_levels_db(signal: Any, frame_length: int = 512, hop_length: int = 256) -> Any:
    """RMS level of every frame in dB re full scale: (..., N) -> (..., T), at least -120."""
    power = frame_power(signal, frame_length, hop_length)
    xp = power.__array_namespace__()
    return 10 * xp.log10(xp.maximum(power, 1e-12))


def active_frames(clean: Any, frame_length: int = 512, hop_length: int = 256) -> Any:
    """Which frames hold active speech: (..., N) -> bool (..., T)."""
    levels = frame_levels_db(clean, frame_length, hop_length)
    xp = levels.__array_namespace__()
    reference = xp.percentile(levels, PERCENTILE, axis=-1, keepdims=True)
    return (levels > reference - RANGE_DB) & (levels > SILENCE_DB)


def active_level_db(signal: Any, frame_length: int = 512, hop_length: int = 256) -> Any:
    """RMS level in dB over the active frames: (..., N) -> (...,); -120 where none is active."""
    power = frame_power(signal, frame_length, hop_length)
    active = active_frames(signal, frame_length, hop_length)
    xp = power.__array_namespace__()
    mean = (power * active).sum(-1) / xp.maximum(active.sum(-1), 1)
    return 10 * xp.log10(xp.maximum(mean, 1e-12))
