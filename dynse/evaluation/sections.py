"""What a report is made of: plain data, with text, tables, pictures and sound in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from dynse.evaluation.tables import Table

WORDS: Mapping[str, str] = {
    "active MACs": "The multiply-and-adds that were really done. A channel that a gate switched "
    "off costs none. Counted, per frame of 16 ms or per second of audio.",
    "dense": "The same network without gates: everything is computed in every frame.",
    "ESTOI, STOI": "Two estimates of how much of the speech can be understood, up to 1.",
    "gate": "A small switch beside each block of the network that says, frame by frame, which "
    "channels are worth computing.",
    "interval": "[low, high]: were the same test repeated with other mixtures of this kind, the "
    "mean would lie between these in 95 of 100 cases.",
    "kept": "The fraction of channels that the gates left on. 0.25 means that three of four were "
    "skipped.",
    "MAC": "One multiplication with its addition: the unit in which a network's work is counted.",
    "oracle": "A method that is told something no real device knows, here the noise's true mean "
    "spectrum: a yardstick, not a product.",
    "PESQ": "An estimate of how people would rate the sound, from 1 (bad) to 4.6 (excellent).",
    "SI-SDR": "How far the speech stands above everything that does not belong to it, in dB. "
    "3 dB more: half the disturbance. The gain is what was added to the noisy input's.",
    "SNR": "How far the speech stood above the noise before anything was done, in dB. At 0 dB "
    "both are equally loud; at -5 dB the noise is louder.",
}


@dataclasses.dataclass(frozen=True)
class Text:
    """Paragraphs: blank lines part them, lines that begin with "- " are a list."""

    title: str
    body: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        title: heading, and the name of its file.
        png: the picture's bytes.
        caption: what is to be seen.
    """

    title: str
    png: bytes
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Example:
    """One mixture to listen to.

    Attributes:
        title: e.g. "rain, 0 dB".
        tracks: by name, in the order to be shown (noisy, each net, clean): (N,) float.
        clean: name of the track that is the clean speech, or None.
    """

    title: str
    tracks: Mapping[str, np.ndarray]
    clean: str | None = "clean"

    def __post_init__(self) -> None:
        shapes = {name: np.shape(track) for name, track in self.tracks.items()}
        if not shapes or len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 1:
            raise ValueError(f"{self.title}: expected tracks (N,) of one length, got {shapes}")
        if self.clean is not None and self.clean not in self.tracks:
            raise ValueError(
                f"{self.title}: clean must be one of {', '.join(self.tracks)} or None; "
                f"got {self.clean!r}"
            )


@dataclasses.dataclass(frozen=True)
class Players:
    """Examples to listen to, each track beside its spectrogram.

    Every track is brought to the same level: -26 dB re full scale over the frames in which the
    clean speech is active, less where a peak would pass 0.9 of full scale.
    """

    title: str
    examples: Sequence[Example]
    caption: str = ""
    sample_rate: int = 16000


Section = Text | Table | Figure | Players


@dataclasses.dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        title: heading.
        intro: paragraphs as in `Text`.
        sections: in the order to be shown.
        words: what terms mean, in plain language, at the end.
    """

    title: str
    intro: str
    sections: Sequence[Section]
    words: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(WORDS))
