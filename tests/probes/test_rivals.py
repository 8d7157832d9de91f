"""The opponents: whose decision a frame takes, and that they work at all."""

import numpy as np
import pytest

from dynse.data.labels import SHAPE
from dynse.probes import rivals
from dynse.probes.rivals import MODES, tracked_f0, webrtc_voice


def sung(f0_hz, seconds=1.0):
    """A vowel: harmonics under three formants, loud."""
    time = np.arange(round(16000 * seconds)) / 16000
    hz = f0_hz * np.arange(1, int(4000 / f0_hz))
    loudness = sum(np.exp(-(((hz - f) / 120) ** 2)) for f in (700, 1200, 2600)) + 0.02
    tone = (loudness[:, None] * np.sin(2 * np.pi * hz[:, None] * time)).sum(0)
    return (0.5 * tone / np.abs(tone).max()).astype(np.float32)


def test_the_detector_hears_a_vowel_and_no_silence():
    pytest.importorskip("webrtcvad")
    for mode in MODES:
        assert not webrtc_voice(np.zeros(16000, np.float32), mode).any()
        # The first decisions are still about the silence before.
        assert webrtc_voice(sung(140), mode)[4:].mean() > 0.9


def test_each_frame_takes_the_decision_at_its_centre():
    webrtcvad = pytest.importorskip("webrtcvad")
    silence = np.zeros(8111, np.float32)
    signal = np.concatenate([silence, sung(140), silence])
    found = webrtc_voice(signal, 2)
    assert found.dtype == bool
    assert len(found) == SHAPE.frames(len(signal))
    detector, samples = webrtcvad.Vad(2), np.round(32768 * signal).astype("<i2")
    whole = np.append(samples, np.zeros(-len(samples) % 480, "<i2"))
    said = [
        detector.is_speech(whole[n : n + 480].tobytes(), 16000) for n in range(0, len(whole), 480)
    ]
    for t, decision in enumerate(found):
        assert decision == said[min(256 * t // 480, len(said) - 1)]
    assert found.any()
    assert not found[: 8111 // 256 - 1].any()


def test_each_frame_takes_the_pitch_at_its_centre(monkeypatch):
    monkeypatch.setattr(
        rivals, "estimate_pitch", lambda signal: np.arange(-(-len(signal) // 160), dtype=np.float32)
    )
    for length in (16000, 16001, 15999, 700, 1):
        found = tracked_f0(np.zeros(length, np.float32))
        last = -(-length // 160) - 1
        expected = [min(256 * t // 160, last) for t in range(SHAPE.frames(length))]
        np.testing.assert_array_equal(found, expected)


def test_the_tracker_finds_tones_in_light_noise():
    pytest.importorskip("librosa")
    noise = 0.002 * np.random.default_rng(0).normal(size=24000).astype(np.float32)
    found = tracked_f0(np.concatenate([sung(130, 0.75), sung(210, 0.75)]) + noise)
    assert len(found) == SHAPE.frames(24000)
    change = 12000 / 256
    for start, stop, f0_hz in ((4, change - 3, 130), (change + 3, 24000 / 256 - 4, 210)):
        inside = found[int(np.ceil(start)) : int(stop)]
        assert np.abs(1200 * np.log2(inside / f0_hz)).max() < 20
