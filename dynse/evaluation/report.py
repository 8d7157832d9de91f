"""Reports: report.md with its files, and one report.html that holds everything and works offline.

A report is plain data, sections of `Text`, `Table`, `Figure` and `Players`; nothing here trains,
loads or scores. All text is escaped; a report needs no network and no other file.

    write_report(folder, Report("DynCP", "What it is.", [quality_table(records), Players(...)]))
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dynse.atomic import write_whole
from dynse.audio.activity import active_frames, frame_power
from dynse.audio.files import write_audio
from dynse.evaluation.html import Media, html_page
from dynse.evaluation.sections import Example, Figure, Players, Report, Section, Text
from dynse.evaluation.spectrograms import level_spectrum, spectrogram_image
from dynse.evaluation.tables import Table, plain_markdown

__all__ = [
    "Example",
    "Figure",
    "Players",
    "Report",
    "Table",
    "Text",
    "match_levels",
    "write_report",
]

LEVEL_DB = -26.0
PEAK = 0.9


def write_report(directory: str | os.PathLike[str], report: Report) -> Path:
    """Writes report.html, report.md and the files that the latter shows.

    report.html holds everything; report.md links to figures/*.png, tables/*.csv and audio/*.flac
    beside it. Each file is written whole, the two reports last.

    Args:
        directory: is made where it is missing; files of the same names are replaced.
        report: what to write.

    Returns:
        The path of report.html.
    """
    directory = Path(directory)
    names = _file_names(report.sections)
    media: dict[int, list[list[Media]]] = {}
    for index, (section, name) in enumerate(zip(report.sections, names, strict=True)):
        if isinstance(section, Figure):
            write_whole(directory / "figures" / f"{name}.png", section.png)
        elif isinstance(section, Table):
            write_whole(directory / "tables" / f"{name}.csv", section.csv())
        elif isinstance(section, Players):
            media[index] = _write_players(directory, name, section)
    page = html_page(report, names, media)
    write_whole(directory / "report.md", _markdown(report, names, media))
    return write_whole(directory / "report.html", page)


def match_levels(tracks: Mapping[str, np.ndarray], clean: str | None) -> dict[str, np.ndarray]:
    """Tracks at the level that `Players` states; a silent track stays silent.

    Args:
        tracks: by name, (N,).
        clean: name of the track whose active frames count; None: all frames count.
    """
    arrays = {name: np.asarray(track, np.float32) for name, track in tracks.items()}
    first = next(iter(arrays.values()))
    counted = np.ones(frame_power(first).shape, bool)
    if clean is not None and active_frames(arrays[clean]).any():
        counted = active_frames(arrays[clean])
    matched = {}
    for name, track in arrays.items():
        power = float(frame_power(track)[counted].mean())
        gain = 10 ** (LEVEL_DB / 20) / np.sqrt(power) if power > 1e-12 else 0.0
        matched[name] = np.float32(gain) * track
    peak = max(float(np.abs(track).max()) for track in matched.values())
    # One factor for all, so that they remain equally loud.
    factor = np.float32(min(1.0, PEAK / peak) if peak > 0 else 1.0)
    return {name: factor * track for name, track in matched.items()}


def _write_players(directory: Path, name: str, section: Players) -> list[list[Media]]:
    examples = []
    for number, example in enumerate(section.examples, 1):
        tracks = match_levels(example.tracks, example.clean)
        top = max(float(level_spectrum(track).max()) for track in tracks.values())
        media = []
        for track, samples in tracks.items():
            stem = f"{name}-{number}-{_slug(track)}"
            flac = directory / "audio" / f"{stem}.flac"
            flac.parent.mkdir(parents=True, exist_ok=True)
            write_audio(flac, samples, section.sample_rate)
            png = write_whole(
                directory / "figures" / f"{stem}.png", spectrogram_image(samples, top_db=top)
            )
            seconds = len(samples) / section.sample_rate
            media.append(
                Media(track, flac.name, flac.read_bytes(), png.name, png.read_bytes(), seconds)
            )
        examples.append(media)
    return examples


def _markdown(report: Report, names: Sequence[str], media: Mapping[int, list[list[Media]]]) -> str:
    parts = [f"# {plain_markdown(report.title)}", _text(report.intro)]
    for index, (section, name) in enumerate(zip(report.sections, names, strict=True)):
        parts.append(f"## {plain_markdown(section.title)}")
        if isinstance(section, Text):
            parts.append(_text(section.body))
        elif isinstance(section, Table):
            parts += [section.markdown().rstrip(), f"[as CSV](tables/{name}.csv)"]
        elif isinstance(section, Figure):
            parts += [
                f"![{plain_markdown(section.title)}](figures/{name}.png)",
                _text(section.caption),
            ]
        else:
            parts.append(_text(section.caption))
            for example, tracks in zip(section.examples, media[index], strict=True):
                parts.append(f"### {plain_markdown(example.title)}")
                rows = tuple(
                    (
                        track.name,
                        f"[listen](audio/{track.audio_name})",
                        f"![spectrogram](figures/{track.image_name})",
                    )
                    for track in tracks
                )
                parts.append(Table("", ("track", "audio", "spectrogram"), rows).markdown().rstrip())
    if report.words:
        parts.append("## Words")
        parts += [
            "\n".join(
                f"- **{plain_markdown(word)}**: {plain_markdown(meaning)}"
                for word, meaning in report.words.items()
            )
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(text: str) -> str:
    return text.strip().replace("<", "&lt;")


def _file_names(sections: Sequence[Section]) -> list[str]:
    """A name for each section that no other has."""
    names: list[str] = []
    for section in sections:
        slug = name = _slug(section.title)
        number = 2
        while name in names:
            name, number = f"{slug}-{number}", number + 1
        names.append(name)
    return names


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
