"""Training batches: crops of speech and noise mixed inside jit.

A batch is a pure function of its key, so a run is resumed from its step alone. The audio is one
int16 array, on the device or, where that is too large, on the host (`dynse.data.reader`); a crop is
drawn from a group (speaker or noise class, all groups equally often), at any sample of the group's
recordings laid end to end, and wraps around where the group is shorter than the crop. The mixture
is

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
from dynse.data.augmentation import Augmentation, augment
from dynse.data.bank import Bank
from dynse.data.pitch import HOP_LENGTH as PITCH_HOP
from dynse.data.pitch import Pitch

FRAMES = STFT(n_fft=512, win_length=512, hop_length=256)
# Quieter than this there is nothing to scale: `active_level_db` gives -120 for silence.
_NOTHING_DB = -100.0
# Larger banks stay on the host: 17 hours at 16 kHz. Speech and noise of this size leave half of an
# accelerator of 8 GB to the net, and int32 still counts their samples.
DEVICE_BYTES = 2 * 10**9


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
        augmentation: filters, rooms and missing bands, before the mixture; None for none.
    """

    batch_size: int = 16
    crop_s: float = 2.0
    snr_db: tuple[float, float] = (-5.0, 15.0)
    level_db: tuple[float, float] = (-35.0, -15.0)
    rms: float | None = None
    pairs: bool = False
    augmentation: Augmentation | None = None

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


@dataclasses.dataclass(frozen=True, eq=False)
class HostSource:
    """A `Bank` that stays where it is, in memory or memory-mapped. No pytree: jit refuses it.

    Attributes:
        samples: (N,) int16.
        starts: (G,) int64, first sample of each group.
        lengths: (G,) int32, samples of each group.
        f0_hz: as of a `Source`.
    """

    samples: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    f0_hz: np.ndarray | None = None


class Crops(NamedTuple):
    """Pieces of one source.

    Attributes:
        samples: (B, N) int16.
        f0_hz: (B, T) at the frames of the 512/256 STFT; None where not known.
    """

    samples: jax.Array
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


def load_source(bank: Bank, pitch: Pitch | None = None) -> Source | HostSource:
    """Put a bank on the device, or leave it on the host where it has more than `DEVICE_BYTES`.

    Args:
        bank: speech or noise.
        pitch: of the bank's recordings, to be drawn with them.

    Raises:
        ValueError: where a group has more samples than an int32 can count (37 hours at 16 kHz).
    """
    source = host_source(bank, pitch)
    return source if source.samples.nbytes > DEVICE_BYTES else device_source(source)


def host_source(bank: Bank, pitch: Pitch | None = None) -> HostSource:
    """Leave a bank on the host; as `load_source`."""
    spans = bank.group_spans()
    starts, stops = np.array(list(spans.values()), np.int64).T
    lengths = stops - starts
    if lengths.max() >= 2**31:
        raise ValueError(
            f"expected groups of fewer than 2^31 samples, got {lengths.max()} of "
            f"{list(spans)[lengths.argmax()]!r}: name smaller groups"
        )
    f0_hz = None if pitch is None else _flat_pitch(bank, pitch)
    return HostSource(bank.samples, starts, lengths.astype(np.int32), f0_hz)


def device_source(source: HostSource) -> Source:
    """Put a source of fewer than 2^31 samples on the device."""
    return Source(
        jnp.asarray(source.samples),
        jnp.asarray(source.starts.astype(np.int32)),
        jnp.asarray(source.lengths),
        None if source.f0_hz is None else jnp.asarray(source.f0_hz),
    )


def _flat_pitch(bank: Bank, pitch: Pitch) -> np.ndarray:
    """F0 at the middle of every 160 samples of the bank."""
    flat = np.zeros(-(-len(bank.samples) // PITCH_HOP), np.float32)
    middle = PITCH_HOP // 2
    # The first value whose middle lies in each recording; that of the last may lie behind its end.
    cuts = [*(-((middle - bank.offsets[:-1]) // PITCH_HOP)).tolist(), len(flat)]
    for name, offset, first, stop in zip(
        bank.names, bank.offsets[:-1].tolist(), cuts[:-1], cuts[1:], strict=True
    ):
        centres = np.arange(first, stop) * PITCH_HOP + middle
        flat[first:stop] = pitch.at(name, np.minimum(centres, len(bank.samples) - 1) - offset)
    return flat


def crop_keys(key: jax.Array, config: MixingConfig) -> tuple[jax.Array, jax.Array]:
    """The keys (B,) of the crops of speech, and of noise, of the batch that belongs to a key."""
    speech, noise, *_ = jax.random.split(key, 4)
    # Of pairs one key finds one place in both.
    keys = (speech, speech if config.pairs else noise)
    return tuple(jax.random.split(one, config.batch_size) for one in keys)


def draw_places(lengths: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where crops begin.

    Args:
        lengths: (G,) int32, samples of each group.
        keys: (B,), one a crop.

    Returns:
        The group (B,) and the sample within it (B,), int32.
    """

    def place(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        group_key, offset_key = jax.random.split(key)
        group = jax.random.randint(group_key, (), 0, lengths.shape[0])
        return group, jax.random.randint(offset_key, (), 0, lengths[group])

    return jax.vmap(place)(keys)


def draw_crops(source: Source, keys: jax.Array, samples: int) -> Crops:
    """The crops of so many samples that belong to keys (B,)."""
    group, offset = draw_places(source.lengths, keys)
    start, length = source.starts[group], source.lengths[group]

    def positions(ahead: jax.Array) -> jax.Array:
        return start[:, None] + (offset[:, None] + ahead) % length[:, None]

    crops = source.samples[positions(jnp.arange(samples, dtype=jnp.int32))]
    if source.f0_hz is None:
        return Crops(crops)
    return Crops(crops, source.f0_hz[positions(frame_centres(samples)) // PITCH_HOP])


def frame_centres(samples: int) -> np.ndarray:
    """Where in a crop of so many samples its F0 is told: (T,) int32."""
    return np.arange(FRAMES.frames(samples), dtype=np.int32) * FRAMES.hop_length


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


def mix_crops(speech: Crops, noise: Crops, key: jax.Array, config: MixingConfig) -> Batch:
    """The batch that belongs to a key, of the crops that do."""
    clean, added = (crops.samples.astype(jnp.float32) / 32768 for crops in (speech, noise))
    if config.augmentation is not None:
        clean, added = augment(jax.random.fold_in(key, 4), clean, added, config.augmentation)
    if config.pairs:
        noisy, snr_db = clean + added, active_level_db(clean) - active_level_db(added)
    else:
        keys = jax.random.split(key, 4)
        snr_db, level_db = (
            jax.random.uniform(one, (config.batch_size,), minval=low, maxval=high)
            for one, (low, high) in zip(keys[2:], (config.snr_db, config.level_db), strict=True)
        )
        noisy, clean = mix(clean, added, snr_db, level_db)
    if config.rms is not None:
        factor = rms_factor(noisy, config.rms)[:, None]
        noisy, clean = factor * noisy, factor * clean
    return Batch(noisy, clean, snr_db, speech.f0_hz)


def draw_batch(speech: Source, noise: Source, key: jax.Array, config: MixingConfig) -> Batch:
    """The batch that belongs to a key."""
    samples = config.crop_samples()
    crops = [
        draw_crops(source, keys, samples)
        for source, keys in zip((speech, noise), crop_keys(key, config), strict=True)
    ]
    return mix_crops(*crops, key, config)
