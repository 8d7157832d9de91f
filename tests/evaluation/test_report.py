import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from dynse.audio.activity import active_frames, frame_power
from dynse.evaluation.figures import training_curves
from dynse.evaluation.report import (
    Example,
    Figure,
    Players,
    Report,
    Table,
    Text,
    match_levels,
    write_report,
)

EVIL = "<script>alert(\"x\")</script> & 'quoted'"
PNG = training_curves({"a": {"loss": ([0, 1], [1.0, 0.5])}})


def tracks():
    draw = np.random.default_rng(0)
    burst = np.repeat([0.0, 1.0, 0.0, 1.0], 4000)
    clean = 0.01 * burst * draw.standard_normal(16000)
    return {
        "noisy": clean + 0.3 * draw.standard_normal(16000),
        "dense": 0.5 * clean,
        "clean": clean,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    report = Report(
        f"A title {EVIL}",
        f"Intro {EVIL}\n\nSecond paragraph",
        [
            Text("What was found", f"Before\n\n- one {EVIL}\n- two"),
            Table("Quality", ("net", EVIL), (("dense", EVIL),), (EVIL,)),
            Table("Quality", ("net",), (("second of its name",),)),
            Figure(f"Curves {EVIL}", PNG, EVIL),
            Players("Listen", [Example(EVIL, {EVIL: tracks()["noisy"], **tracks()})], EVIL),
        ],
        {**Report("", "", []).words, EVIL: EVIL},
    )
    directory = tmp_path_factory.mktemp("report") / "new"
    write_report(directory, report)
    return directory


class Page(HTMLParser):
    """Collects tags and checks that they close in order."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.links = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_well_formed_and_needs_nothing_else(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "link" not in page.found
    assert page.links
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not re.search(r"https?://|@import|url\(", text)
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert anchors == set(re.findall(r'<h2 id="([^"]+)"', text))
    assert len(anchors) == 6


def test_all_text_is_escaped(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert text.count("<script>") == 1
    assert text.count("&lt;script&gt;") >= 12
    assert EVIL not in text
    assert "<script" not in (folder / "report.md").read_text(encoding="utf-8")


def test_players_hold_sound_and_picture(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    sounds = re.findall(r'src="data:audio/flac;base64,([^"]+)"', text)
    assert len(sounds) == 4
    for sound in sounds:
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
        assert rate == 16000
        assert len(samples) == 16000
        assert np.abs(samples).max() <= 0.91
    assert text.count("data:image/png;base64,") == 5


def test_intervals_stand_small_and_long_tables_are_folded(tmp_path):
    rows = tuple((f"net {index}", "1.71 [1.66, <1.76>]") for index in range(20))
    tables = [Table("long", ("net", "PESQ"), rows), Table("short", ("net", "PESQ"), rows[:2])]
    text = write_report(tmp_path, Report("T", "", tables)).read_text(encoding="utf-8")
    Page(text)
    assert "<td>1.71<small>[1.66, &lt;1.76&gt;]</small></td>" in text
    assert text.count("<details><summary>20 rows</summary>") == 1


def test_words_are_explained(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    for word in ("kept", "active MACs", "SI-SDR"):
        assert f"<dt>{word}</dt>" in text


def test_markdown_links_to_files_that_exist(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    files = re.findall(r"\]\(([^)]+)\)", text)
    assert len(files) == 2 + 1 + 8
    assert len(set(files)) == len(files)
    for name in files:
        assert (folder / name).stat().st_size > 0
    assert "| dense | " in text
    assert not list(folder.rglob("*.part"))


def test_levels_are_matched_over_active_speech():
    matched = match_levels(tracks(), "clean")
    counted = active_frames(tracks()["clean"])
    levels = [10 * np.log10(frame_power(track)[counted].mean()) for track in matched.values()]
    assert np.ptp(levels) < 0.01
    assert max(np.abs(track).max() for track in matched.values()) <= 0.9001
    quiet = {"noisy": 0.001 * np.sin(np.arange(16000.0)), "off": np.zeros(16000)}
    matched = match_levels(quiet, None)
    assert 20 * np.log10(matched["noisy"].std()) == pytest.approx(-26, abs=0.5)
    assert not matched["off"].any()


def test_peaks_lower_all_tracks_alike():
    spiky = np.zeros(16000)
    spiky[::2000] = 1.0
    matched = match_levels({"spiky": spiky, "even": np.sin(np.arange(16000.0))}, None)
    assert np.abs(matched["spiky"]).max() == pytest.approx(0.9, abs=1e-3)
    powers = [float(np.mean(track**2)) for track in matched.values()]
    assert powers[0] == pytest.approx(powers[1], rel=0.01)


def test_examples_are_checked():
    with pytest.raises(ValueError, match="of one length"):
        Example("e", {"a": np.zeros(3), "b": np.zeros(4)}, clean=None)
    with pytest.raises(ValueError, match="clean must be one of a or None; got 'clean'"):
        Example("e", {"a": np.zeros(3)})
