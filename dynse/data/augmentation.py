"""Speech and noise made more various before they are mixed: filters, rooms, missing bands.

All three multiply a crop's spectrum, so one transform there and one back does them together:

    biquad   H(z) = (1 + r1 z^-1 + r2 z^-2) / (1 + r3 z^-1 + r4 z^-2),  r uniform in +-3/8:
             microphones and voices of other colour; speech and noise each have their own
             (Braun and Tashev, arXiv 2008.06412; as wide as Valin's, arXiv 1709.08243)
    room     h = delta + g w, w Gaussian with an envelope that falls by 60 dB in the reverberation
             time (Polack's statistical model), for the speech: what is to be heard is the voice in
             its room. Reverberation time, delay and direct-to-reverberant ratio are drawn.
    band     a band of both is silenced, of a width up to a share of the mel scale (the BandMask of
             Defossez et al., arXiv 2006.12847): no net can then rely on any band

Each crop gets each of them with a probability of its own. The crop is followed by zeros for as long
as the longest response lasts, so nothing wraps around; a biquad's poles lie within .83, and what
its response is after that long is below float32. Where the published texts are silent, ranges are
ours.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

COEFFICIENT = 3 / 8  # of a biquad, largest
RESPONSE_S = 0.5  # of a room; all of a short one, the first 50 dB or so of the longest
REVERBERATION_S = (0.1, 0.6)
DIRECT_DB = (0.0, 15.0)  # energy of the direct sound over that of the rest
DELAY_S = (0.002, 0.02)  # of the first reflection


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How often each is done.

    Attributes:
        biquad: probability, of speech and noise each.
        room: probability, of speech.
        band: probability, of a mixture.
        band_width: of the mel scale, at most.

    Raises:
        ValueError: on what is no probability or share.
    """

    biquad: float = 1.0
    room: float = 0.25
    band: float = 0.25
    band_width: float = 0.2

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {value}")


def augment(
    key: jax.Array,
    speech: jax.Array,
    noise: jax.Array,
    config: Augmentation,
    *,
    sample_rate: int = 16000,
) -> tuple[jax.Array, jax.Array]:
    """Crops of speech and noise, each filtered in its own way.

    Args:
        key: of what is drawn.
        speech: (B, N).
        noise: (B, N).
        config: how often each is done.
        sample_rate: in Hz.

    Returns:
        speech (B, N) and noise (B, N), at levels that the filters left.
    """
    count, samples = speech.shape
    length = _fast_length(samples + round(RESPONSE_S * sample_rate))
    keys = jax.random.split(key, 4)

    def responses(draw, key, share):
        """Of every crop, or 1 where it is not this one's turn: (B, length // 2 + 1)."""
        keys = jax.random.split(key, count + 1)
        drawn = jax.vmap(draw)(keys[1:])
        return jnp.where(jax.random.bernoulli(keys[0], share, (count, 1)), drawn, 1)

    biquad = functools.partial(biquad_response, length=length)
    room = functools.partial(room_response, length=length, sample_rate=sample_rate)
    band = functools.partial(
        band_response, length=length, sample_rate=sample_rate, widest=config.band_width
    )
    both = responses(band, keys[0], config.band)
    of_speech = responses(biquad, keys[1], config.biquad)
    of_speech *= responses(room, keys[2], config.room)
    of_noise = responses(biquad, keys[3], config.biquad)

    def filtered(signal, response):
        return jnp.fft.irfft(jnp.fft.rfft(signal, length) * response * both, length)[:, :samples]

    return filtered(speech, of_speech), filtered(noise, of_noise)


def biquad_response(key: jax.Array, length: int) -> jax.Array:
    """H at the bins of a transform: (length // 2 + 1,) complex64."""
    r1, r2, r3, r4 = jax.random.uniform(key, (4,), minval=-COEFFICIENT, maxval=COEFFICIENT)
    # In float64, as the phase grows with the bins.
    delay = np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length).astype(np.complex64)
    return (1 + r1 * delay + r2 * delay**2) / (1 + r3 * delay + r4 * delay**2)


def room_response(key: jax.Array, length: int, sample_rate: int) -> jax.Array:
    """A room's response at the bins of a transform: (length // 2 + 1,) complex64."""
    keys = jax.random.split(key, 4)
    time_s = jnp.arange(round(RESPONSE_S * sample_rate)) / sample_rate
    reverberation_s, direct_db, delay_s = (
        jax.random.uniform(one, minval=low, maxval=high)
        for one, (low, high) in zip(keys, (REVERBERATION_S, DIRECT_DB, DELAY_S), strict=False)
    )
    late = jax.random.normal(keys[3], time_s.shape) * 10 ** (-3 * time_s / reverberation_s)
    late = jnp.where(time_s < delay_s, 0, late)
    gain = 10 ** (-direct_db / 20) / jnp.sqrt(jnp.square(late).sum())
    return 1 + jnp.fft.rfft(gain * late, length)


def band_response(key: jax.Array, length: int, sample_rate: int, *, widest: float) -> jax.Array:
    """0 within a band and 1 elsewhere: (length // 2 + 1,), float32.

    Args:
        key: of the band's place and width.
        length: of the transform.
        sample_rate: in Hz.
        widest: the band's width, at most, as a share of the mel scale up to half the sample rate.
    """
    hz = np.arange(length // 2 + 1) * sample_rate / length
    mel = np.log1p(hz / 700).astype(np.float32)  # up to a factor, which the share takes out
    width, place = jax.random.uniform(key, (2,))
    width *= widest
    low = place * (1 - width)
    share = mel / mel[-1]
    return jnp.where((share >= low) & (share < low + width), 0.0, 1.0)


def _fast_length(samples: int) -> int:
    """A length of at least so many samples whose transform is fast: few small factors."""
    return min(odd << (-(-samples // odd) - 1).bit_length() for odd in (1, 3, 5, 9, 15))
