"""Gates with known meaning."""

import numpy as np

from dynse.data.labels import FrameLabels, MixtureLabels
from dynse.probes.rows import MixtureRows


def correlated_bits(rows, channels, seed=0, sources=4):
    """(rows, channels) bool that follow a few hidden sources, and the sources (rows, sources)."""
    draw = np.random.default_rng(seed)
    hidden = draw.normal(size=(rows, sources))
    mixed = hidden @ draw.normal(size=(sources, channels)) + draw.normal(size=(rows, channels))
    return mixed > draw.normal(size=channels), hidden


class Planted:
    """Channels of `planted_mixture`."""

    VOICE = 0
    F0 = (1, 2, 3)
    SNR_OF_FRAME = (4, 5)
    CLASSES = (6, 7, 8)
    SNR = 9
    GENDER = 10
    SPEAKER = slice(11, 19)
    CONSTANT = 19
    COUNT = 24


CLASSES = ("drill", "rain", "wind")


def planted_mixture(seed, *, speaker=0, noise_class="rain", source=None, frames=100, **changes):
    """A mixture whose gates say what is true of it, each property in channels of its own.

    The voice stands in one channel with an error in 2 % of the frames; log2 of F0 and the SNR of
    the frame are weighted sums of bits; the others are rates over the mixture.
    """
    draw = np.random.default_rng((seed, 7))
    gates = draw.random((frames, Planted.COUNT)) < 0.5
    gates[:, Planted.CONSTANT] = True
    voice = np.repeat(draw.random(-(-frames // 10)) < 0.6, 10)[:frames]
    voice[:10], voice[10:20] = True, False
    gates[:, Planted.VOICE] = voice ^ (draw.random(frames) < 0.02)
    octaves = 6.5 + gates[:, Planted.F0] @ [0.25, 0.5, 1.0]
    frame_snr = -10 + gates[:, Planted.SNR_OF_FRAME] @ [10.0, 20.0] + draw.normal(size=frames)
    snr_db = (-5.0, 5.0, 15.0)[seed % 3]
    gender = "FM"[speaker % 2]
    rates = [0.8 if name == noise_class else 0.2 for name in CLASSES]
    gates[:, Planted.CLASSES] = draw.random((frames, 3)) < rates
    gates[:, Planted.SNR] = draw.random(frames) < 0.1 + 0.04 * (snr_db + 5)
    gates[:, Planted.GENDER] = draw.random(frames) < (0.8 if gender == "F" else 0.2)
    own = np.random.default_rng((speaker, 8)).uniform(0.1, 0.9, 8)
    gates[:, Planted.SPEAKER] = draw.random((frames, 8)) < own
    labels = MixtureLabels(
        FrameLabels(
            voice,
            np.where(voice, 2.0**octaves, 0).astype(np.float32),
            frame_snr.astype(np.float32),
        ),
        noise_class=noise_class,
        noise_category=None,
        snr_db=snr_db,
        speaker=f"speaker{speaker}",
        gender=gender,
        noise_recording=f"{noise_class}{seed}",
        speech_recordings=(f"speech{seed}",),
        noise_source=f"{noise_class}{seed // 6}" if source is None else source,
    )
    return MixtureRows(
        id=f"mixture{seed}",
        gates=gates,
        scores=(gates - 0.5 + 0.1 * draw.normal(size=gates.shape)).astype(np.float16),
        activations=(gates * draw.normal(size=gates.shape)).astype(np.float16),
        log_mel=draw.normal(size=(frames, 4)).astype(np.float16),
        labels=labels._replace(**changes),
    )


def planted_mixtures(first, count, **options):
    """Mixtures of six speakers over three classes in turn; two of a class share their source."""
    return [
        planted_mixture(n, speaker=n // 3 % 6, noise_class=CLASSES[n % 3], **options)
        for n in range(first, first + count)
    ]
