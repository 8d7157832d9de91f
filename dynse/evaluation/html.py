"""The HTML of a report: one page, pictures and sound inside it, readable on a phone, offline.

Every text passes `html.escape`; pictures and sound are data URLs. A few lines of script let one
player sound at a time and keep the place when the listener changes from one track to the next.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from dynse.evaluation.sections import Figure, Report, Text
from dynse.evaluation.tables import Table


class Media(NamedTuple):
    """A track of an example.

    Attributes:
        name: "noisy", the net's, "clean".
        audio_name: of its file.
        audio: FLAC bytes.
        image_name: of its spectrogram's file.
        image: PNG bytes.
        seconds: how long it is.
    """

    name: str
    audio_name: str
    audio: bytes
    image_name: str
    image: bytes
    seconds: float


# Longer tables are folded away.
LONG_TABLE = 16

_STYLE = """
:root{color-scheme:light;--ink:#1b1f24;--soft:#5b6570;--line:#d9dee4;--bar:#0072b2}
*{box-sizing:border-box}
body{margin:0 auto;max-width:66rem;padding:1rem 1rem 4rem;color:var(--ink);background:#fff;
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0 1rem}
h2{font-size:1.25rem;margin:2.4rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.4rem 0 .4rem}
nav ul{columns:2 16rem;padding-left:1.1rem;margin:.5rem 0}
a{color:var(--bar)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--line);text-align:right;
white-space:nowrap}
th{border-bottom:2px solid var(--ink);vertical-align:bottom}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}
td small{display:block;color:var(--soft);font-size:.78rem;line-height:1.2}
summary{cursor:pointer;color:var(--bar)}
tbody tr:hover td{background:#f3f6f9}
.note{color:var(--soft);font-size:.85rem;margin:.35rem 0}
figure{margin:0}
figure img{max-width:100%;height:auto;display:block}
figcaption{color:var(--soft);font-size:.9rem;margin-top:.4rem}
.tracks{display:grid;gap:.9rem 1.2rem;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr))}
.track{min-width:0}
.name{font-weight:600;font-size:.92rem}
.view{position:relative;cursor:pointer;background:#000;height:9rem;border-radius:4px;
overflow:hidden}
.view img{width:100%;height:100%;display:block}
.view i{position:absolute;top:0;bottom:0;width:2px;left:0;background:#fff;opacity:.85;
pointer-events:none}
.view span{position:absolute;left:.35rem;color:#fff;font-size:.7rem;text-shadow:0 0 3px #000}
.view .high{top:.15rem}
.view .low{bottom:.15rem}
audio{width:100%;height:2.3rem;margin-top:.3rem}
dt{font-weight:600;margin-top:.6rem}
dd{margin:0 0 0 1rem}
@media(max-width:36rem){body{padding:.7rem}nav ul{columns:1}th,td{padding:.3rem .45rem}}
@media print{audio{display:none}}
"""

_SCRIPT = """
let last=null;
document.querySelectorAll('.track').forEach(track=>{
 const audio=track.querySelector('audio'),view=track.querySelector('.view'),
  line=view.querySelector('i'),group=track.parentNode;
 const move=()=>{line.style.left=100*audio.currentTime/(+audio.dataset.seconds)+'%';
  if(!audio.paused)requestAnimationFrame(move)};
 audio.addEventListener('play',()=>{
  if(last&&last.audio!==audio){const playing=!last.audio.paused;last.audio.pause();
   if(playing&&last.group===group)audio.currentTime=last.audio.currentTime}
  last={audio,group};move()});
 audio.addEventListener('seeked',move);audio.addEventListener('pause',move);
 view.addEventListener('click',event=>{const box=view.getBoundingClientRect();
  audio.currentTime=(event.clientX-box.left)/box.width*(+audio.dataset.seconds);
  if(last&&last.audio!==audio)last.audio.pause();audio.play()});
});
"""


def html_page(report: Report, names: Sequence[str], media: Mapping[int, list[list[Media]]]) -> str:
    """The page of a report.

    Args:
        report: its data.
        names: an anchor for each section.
        media: sound and pictures of each `Players` section, by its index: per example, per track.
    """
    items = [(name, section.title) for name, section in zip(names, report.sections, strict=True)]
    if report.words:
        items.append(("words", "Words"))
    links = "".join(f'<li><a href="#{escape(a)}">{escape(b)}</a></li>' for a, b in items)
    body = [f"<h1>{escape(report.title)}</h1>", _paragraphs(report.intro)]
    body.append(f"<nav><ul>{links}</ul></nav>")
    for index, (section, name) in enumerate(zip(report.sections, names, strict=True)):
        body.append(f'<h2 id="{escape(name)}">{escape(section.title)}</h2>')
        if isinstance(section, Text):
            body.append(_paragraphs(section.body))
        elif isinstance(section, Table):
            body.append(_table(section.header, section.rows, section.notes))
        elif isinstance(section, Figure):
            image = _data_url("image/png", section.png)
            body.append(
                f'<figure class="scroll"><img src="{image}" alt="{escape(section.title)}">'
                f"<figcaption>{escape(section.caption)}</figcaption></figure>"
            )
        else:
            body.append(_paragraphs(section.caption))
            high = f"{section.sample_rate / 2000:g} kHz"
            for example, tracks in zip(section.examples, media[index], strict=True):
                players = "".join(_player(track, high) for track in tracks)
                body.append(f'<h3>{escape(example.title)}</h3><div class="tracks">{players}</div>')
    if report.words:
        entries = "".join(
            f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>"
            for word, meaning in report.words.items()
        )
        body.append(f'<h2 id="words">Words</h2><dl>{entries}</dl>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + f"\n<script>{_SCRIPT}</script>\n</body></html>\n"
    )


def _paragraphs(text: str) -> str:
    parts = []
    for block in text.strip().split("\n\n"):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        if lines and all(line.startswith("- ") for line in lines):
            entries = "".join(f"<li>{escape(line[2:])}</li>" for line in lines)
            parts.append(f"<ul>{entries}</ul>")
        elif lines:
            parts.append(f"<p>{escape(' '.join(lines))}</p>")
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = "".join(
        "<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    below = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    table = (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody>'
        "</table></div>"
    )
    if len(rows) > LONG_TABLE:
        table = f"<details><summary>{len(rows)} rows</summary>{table}</details>"
    return table + below


def _cell(text: str) -> str:
    """The cell's text, an interval at its end small and below, so that tables fit a phone."""
    value, bracket, interval = text.partition(" [")
    if bracket and interval.endswith("]"):
        return f"{escape(value)}<small>[{escape(interval)}</small>"
    return escape(text)


def _player(track: Media, high: str) -> str:
    image = _data_url("image/png", track.image)
    sound = _data_url("audio/flac", track.audio)
    name = escape(track.name)
    return (
        f'<div class="track"><div class="name">{name}</div><div class="view">'
        f'<img src="{image}" alt="spectrogram, {name}"><span class="high">{escape(high)}</span>'
        f'<span class="low">0</span><i></i></div><audio controls preload="metadata" '
        f'data-seconds="{track.seconds:.4f}" src="{sound}"></audio></div>'
    )


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
