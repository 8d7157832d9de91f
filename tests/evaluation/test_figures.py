import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dynse.evaluation.figures import (
    PALETTE,
    kept_against_snr,
    net_styles,
    quality_against_cost,
    training_curves,
)
from dynse.evaluation.spectrograms import gate_figure, level_spectrum, spectrogram_image
from dynse.evaluation.statistics import Interval, mean_interval

NETS = ["noisy", "oracle", "dense", "narrow", "gated"]


def picture(png):
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def has_colour(pixels, colour):
    wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return bool((np.abs(pixels - wanted).max(-1) <= 2).any())


def interval(mean):
    return Interval(mean, mean - 0.1, mean + 0.1, 10, 0)


def test_a_net_looks_the_same_whatever_is_drawn_beside_it():
    styles = net_styles(NETS)
    assert styles["oracle"].colour == PALETTE[0]
    assert len(set(styles.values())) == len(NETS)
    assert net_styles(["oracle", "noisy"])["noisy"] == styles["noisy"]


def test_gate_figure():
    draw = np.random.default_rng(0)
    noisy = draw.standard_normal(8000)
    gates = [draw.random((33, 128)) < share for share in (0.9, 0.2)]
    pixels = picture(gate_figure(noisy, 0.1 * noisy, gates, title="test"))
    assert pixels.shape[1] > 900
    assert pixels.shape[0] > 700
    assert has_colour(pixels, PALETTE[1])


def test_gate_figure_shows_open_white_and_closed_black():
    noisy = np.random.default_rng(0).standard_normal(8000)

    def dark(share):
        pixels = picture(gate_figure(noisy, noisy, [np.full((33, 16), share)]))
        return (pixels.max(-1) == 0).mean()

    assert dark(0.0) > dark(1.0) + 0.1


def test_gate_figure_refuses_gates_of_other_lengths():
    noisy = np.zeros(8000)
    with pytest.raises(ValueError, match=r"gate 1: expected \(33, channels\), got \(32, 4\)"):
        gate_figure(noisy, noisy, [np.ones((33, 4)), np.ones((32, 4))])
    with pytest.raises(ValueError, match="expected noisy and enhanced"):
        gate_figure(noisy, noisy[1:], [])


def test_curves_are_drawn_in_their_colours():
    styles = net_styles(NETS)
    kept = kept_against_snr(
        {"gated": {-5.0: interval(0.3), 5.0: interval(0.25)}}, target=0.25, styles=styles
    )
    assert has_colour(picture(kept), styles["gated"].colour)
    points = {
        "noisy": (0.0, {"pesq": interval(1.4)}),
        "dense": (41e6, {"pesq": interval(1.7), "si_sdr_improvement": interval(3.0)}),
        "gated": (29e6, {"pesq": interval(1.6), "si_sdr_improvement": mean_interval([np.nan])}),
    }
    pixels = picture(quality_against_cost(points, styles=styles))
    assert pixels.shape[1] > 1.5 * pixels.shape[0]
    for net in points:
        assert has_colour(pixels, styles[net].colour)
    assert not has_colour(pixels, styles["narrow"].colour)


def test_training_curves():
    steps = np.arange(100)
    values = np.exp(-steps / 30)
    values[50] = np.nan
    curves = {"dense": {"loss": (steps, values)}, "gated": {"kept": ([0, 1], [1.0, 0.5])}}
    pixels = picture(training_curves(curves, styles=net_styles(NETS)))
    assert pixels.shape[1] > pixels.shape[0]
    assert has_colour(pixels, net_styles(NETS)["dense"].colour)


def test_level_of_a_tone_stands_in_its_bin():
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 16000)
    levels = level_spectrum(tone)
    assert levels.shape == (33, 257)
    assert (levels[2:30].argmax(1) == 32).all()


def test_spectrogram_image_has_a_pixel_a_frame_and_bin():
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 16000)
    pixels = picture(spectrogram_image(tone))
    assert pixels.shape == (257, 33, 3)
    assert (pixels[:, 2:30].sum(-1).argmax(0) == 256 - 32).all()
    assert picture(spectrogram_image(np.zeros(8000), top_db=0.0)).max() < 10


def test_figures_load_no_pyplot_and_importing_them_no_matplotlib():
    code = (
        "import sys, dynse.evaluation.spectrograms, dynse.evaluation.report\n"
        "assert 'matplotlib' not in sys.modules\n"
        "dynse.evaluation.spectrograms.spectrogram_image(__import__('numpy').ones(999))\n"
        "dynse.evaluation.figures.training_curves({'a': {'loss': ([0, 1], [1, 0])}})\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
