"""Training batches: crops of speech and noise mixed inside jit.

A batch is a pure function of its key, so a run is resumed from its step alone. The audio lies on
the device as one int16 array; a crop is drawn from a group (speaker or noise class, all groups
equally often), at any sample of the group's recordings laid end to end, and wraps around where the
group is shorter than the crop. The mixture is

    noisy = s + n,  level(s) = level_db,  level(n) = level_db - snr_db,

each level an RMS over active frames (`dynse.audio.activity`), both drawn uniformly; on request
noisy is then scaled to an RMS of 1, and s by the same factor. Of given pairs, whose noise lies
under its speech, s and n are crops of one place, added as they are. Where the F0 of the speech is
known it comes along, at the centres of the frames of the 512/256 STFT.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynse.audio.activity import active_level_db
from dynse.audio.stft import STFT
from dynse.data.bank import Bank
from dynse.data.pitch import HOP_LENGTH as PITCH_HOP
from dynse.data.pitch import Pitch

FRAMES = STFT(n_fft=512, win_length=512, hop_length=256)
# Quieter than this there is nothing to scale: `active_level_db` gives -120 for silence.
_NOTHING_DB = -100.0


@dataclasses.dataclass(frozen=True)
class MixingConfig:
    """What a training batch looks like.

    Attributes:
        batch_size: mixtures in a batch.
        crop_s: seconds of each.
        snr_db: range of the SNR over active speech.
        level_db: range of the speech's active level, dB re full scale.
        rms: scale noisy to this RMS over the crop, and clean by the same factor; None does not.
        pairs: crops of speech and noise come from one place of given pairs (`Corpus.pairs`) and
            are added as they are: `snr_db` and `level_db` are not used.
    """

    batch_size: int = 16
    crop_s: float = 2.0
    snr_db: tuple[float, float] = (-5.0, 15.0)
    level_db: tuple[float, float] = (-35.0, -15.0)
    rms: float | None = None
    pairs: bool = False

    def crop_samples(self, sample_rate: int = 16000) -> int:
        """Samples of a crop."""
        return round(self.crop_s * sample_rate)


class Source(NamedTuple):
    """A `Bank` on the device.

    Attributes:
        samples: (N,) int16.
        starts: (G,) int32, first sample of each group.
        lengths: (G,) int32, samples of each group.
        f0_hz: (ceil(N / 160),) float32, value k for the samples [160 k, 160 k + 160), 0 where
            unvoiced; None where it is not known.
    """

    samples: jax.Array
    starts: jax.Array
    lengths: jax.Array
    f0_hz: jax.Array | None = None


class Batch(NamedTuple):
    """Mixtures.

    Attributes:
        noisy: (B, N) float32.
        clean: (B, N) float32.
        snr_db: (B,) drawn; of given pairs as measured over active frames.
        f0_hz: (B, T) of the speech at the frames of the 512/256 STFT; None where not known.
    """

    noisy: jax.Array
    clean: jax.Array
    snr_db: jax.Array
    f0_hz: jax.Array | None = None


def load_source(bank: Bank, pitch: Pitch | None = None) -> Source:
    """Put a bank on the device.

    Args:
        bank: speech or noise.
        pitch: of the bank's recordings, to be drawn with them.

    Raises:
        ValueError: where it has more samples than an int32 can address (37 hours at 16 kHz).
    """
    if len(bank.samples) >= 2**31:
        raise ValueError(f"expected fewer than 2^31 samples on the device, got {len(bank.samples)}")
    starts, stops = np.array(list(bank.group_spans().values()), np.int32).T
    f0_hz = None if pitch is None else jnp.asarray(_flat_pitch(bank, pitch))
    return Source(
        jnp.asarray(bank.samples), jnp.asarray(starts), jnp.asarray(stops - starts), f0_hz
    )


def _flat_pitch(bank: Bank, pitch: Pitch) -> np.ndarray:
    """F0 at the middle of every 160 samples of the bank."""
    flat = np.zeros(-(-len(bank.samples) // PITCH_HOP), np.float32)
    centres = np.minimum(np.arange(len(flat)) * PITCH_HOP + PITCH_HOP // 2, len(bank.samples) - 1)
    recording = np.searchsorted(bank.offsets, centres, side="right") - 1
    for index, name in enumerate(bank.names):
        inside = recording == index
        flat[inside] = pitch.at(name, centres[inside] - bank.offsets[index])
    return flat


def draw_crop(source: Source, key: jax.Array, samples: int) -> jax.Array:
    """One crop (samples,) float32 in -1 to 1."""
    at = _positions(source, key, jnp.arange(samples, dtype=jnp.int32))
    return source.samples[at].astype(jnp.float32) / 32768


def draw_f0(source: Source, key: jax.Array, samples: int) -> jax.Array:
    """F0 (T,) in Hz at the frames of the crop that `draw_crop` draws from this key."""
    centres = jnp.arange(FRAMES.frames(samples), dtype=jnp.int32) * FRAMES.hop_length
    return source.f0_hz[_positions(source, key, centres) // PITCH_HOP]


def _positions(source: Source, key: jax.Array, ahead: jax.Array) -> jax.Array:
    """Where the samples lie that are so far ahead of the start which belongs to a key."""
    group_key, offset_key = jax.random.split(key)
    group = jax.random.randint(group_key, (), 0, source.starts.shape[0])
    length = source.lengths[group]
    offset = jax.random.randint(offset_key, (), 0, length)
    return source.starts[group] + (offset + ahead) % length


def mix(
    speech: jax.Array, noise: jax.Array, snr_db: jax.Array, level_db: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Scale and add.

    Args:
        speech: (B, N).
        noise: (B, N).
        snr_db: (B,).
        level_db: (B,), the speech's level.

    Returns:
        noisy (B, N) and clean (B, N). A silent crop stays silent; its partner keeps its level.
    """

    def scale_to(signal: jax.Array, target_db: jax.Array) -> jax.Array:
        level = active_level_db(signal)
        gain = jnp.where(level > _NOTHING_DB, 10 ** ((target_db - level) / 20), 0)
        return signal * gain[:, None]

    clean = scale_to(speech, level_db)
    return clean + scale_to(noise, level_db - snr_db), clean


def rms_factor(noisy: Any, rms: float) -> Any:
    """What scales signals (..., N) to this RMS: (...,); of a silent one, `rms` itself."""
    xp = noisy.__array_namespace__()
    own = xp.sqrt(xp.square(noisy).mean(-1))
    return rms / xp.where(own > 0, own, 1)


def draw_batch(speech: Source, noise: Source, key: jax.Array, config: MixingConfig) -> Batch:
    """The batch that belongs to a key.

    Raises:
        ValueError: pairs are asked of sources that do not lie under each other.
    """
    keys = jax.random.split(key, 4)
    samples, count = config.crop_samples(), config.batch_size

    def crops(source: Source, crop_key: jax.Array, draw: Any = draw_crop) -> jax.Array:
        return jax.vmap(lambda k: draw(source, k, samples))(jax.random.split(crop_key, count))

    if config.pairs:
        if (speech.samples.shape, speech.starts.shape) != (noise.samples.shape, noise.starts.shape):
            raise ValueError(
                "pairs need noise as long as its speech, group by group: got "
                f"{noise.samples.shape} samples in {noise.starts.shape} groups for "
                f"{speech.samples.shape} in {speech.starts.shape}"
            )
        # One key finds one place in both.
        clean, added = crops(speech, keys[0]), crops(noise, keys[0])
        noisy, snr_db = clean + added, active_level_db(clean) - active_level_db(added)
    else:
        snr_low, snr_high = config.snr_db
        snr_db = jax.random.uniform(keys[2], (count,), minval=snr_low, maxval=snr_high)
        level_low, level_high = config.level_db
        level_db = jax.random.uniform(keys[3], (count,), minval=level_low, maxval=level_high)
        noisy, clean = mix(crops(speech, keys[0]), crops(noise, keys[1]), snr_db, level_db)
    if config.rms is not None:
        factor = rms_factor(noisy, config.rms)[:, None]
        noisy, clean = factor * noisy, factor * clean
    f0_hz = None if speech.f0_hz is None else crops(speech, keys[0], draw_f0)
    return Batch(noisy, clean, snr_db, f0_hz)
