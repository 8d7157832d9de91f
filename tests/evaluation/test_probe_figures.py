import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dynse.audio.stft import STFT
from dynse.evaluation import probe_figures
from dynse.evaluation.figures import PALETTE
from dynse.evaluation.probe_figures import map_figure, score_figure, weight_figure
from dynse.evaluation.probe_strip import PREDICTED, strip_figure

ORANGE = PREDICTED


def picture(png):
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def share(pixels, colour):
    """Of the pixels, how many have this colour."""
    wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return float((np.abs(pixels - wanted).max(-1) <= 2).mean())


def test_a_weight_stands_at_its_block_and_channel():
    """The largest weights are the only saturated pixels: red up, blue down, where they belong."""
    weights = np.zeros(40)
    weights[[3, 35]] = 1.0, -1.0  # block 0, channel 3 and block 3, channel 5
    pixels = picture(weight_figure({"voice": weights}, [10, 10, 10, 10]))
    plot = pixels[:, : int(0.9 * pixels.shape[1])]  # without the colour bar
    red = np.argwhere((plot[..., 0] > 90) & (plot[..., 1:].max(-1) < 40))
    blue = np.argwhere((plot[..., 2] > 90) & (plot[..., 0] < 20))
    cell = np.ptp(red, axis=0) + 1
    np.testing.assert_allclose((blue.mean(0) - red.mean(0)) / cell, [3, 2], atol=0.1)


def test_weights_of_several_outputs_have_a_panel_each():
    one = picture(weight_figure({"voice": np.ones(6)}, [4, 2]))
    several = {"noise": np.ones((6, 5)), "voice": np.ones((6, 1))}
    many = picture(weight_figure(several, [4, 2], output_names={"noise": list("abcde")}))
    assert many.shape[0] > 2 * one.shape[0]
    assert share(one, "#DDDDDD") > 0.05  # the two channels that the second block does not have
    assert share(picture(weight_figure({"voice": np.ones(6)}, [3, 3])), "#DDDDDD") < 0.01
    with pytest.raises(
        ValueError, match=r"noise: expected weights \(8,\) or \(8, K\), got \(6, 5\)"
    ):
        weight_figure(several, [4, 4])
    with pytest.raises(ValueError, match="at least one task, got none"):
        weight_figure({}, [4, 4])


def test_score_figure():
    curves = {task: [(1, 0.6), (2, 0.7), (4, 0.8), (6, 0.8)] for task in ("voice", "F0", "SNR")}
    pixels = picture(score_figure(curves))
    assert share(pixels, PALETTE[0]) > 0
    assert share(pixels, PALETTE[1]) == 0
    marked = score_figure(
        curves,
        enough={"voice": 4},
        reference={"voice": {"majority": 0.5}, "F0": {"majority": 0.1, "log-mel": 0.7}},
        scores={"F0": "R2"},
    )
    for colour in PALETTE[:4]:
        assert share(picture(marked), colour) > 0
    with pytest.raises(ValueError, match=r"voice: enough must be one of \[1, 2, 4, 6\], got 3"):
        score_figure(curves, enough={"voice": 3})
    with pytest.raises(ValueError, match="at least one task, got none"):
        score_figure({})


def clusters(per_class, classes, channels=24):
    """Bits with a rate of their own in each class, and the classes."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    rates = draw.choice([0.05, 0.95], (classes, channels))[labels]
    return draw.random(rates.shape) < rates, labels


def test_a_map_keeps_classes_together_and_is_the_same_again():
    vectors, labels = clusters(30, 3)
    places = probe_figures._embed(vectors.astype(np.float32), 0)
    np.testing.assert_array_equal(places, probe_figures._embed(vectors.astype(np.float32), 0))
    distances = np.square(places[:, None] - places[None]).sum(-1)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(1)] == labels).mean() > 0.95
    # Negative control: with channels shuffled in each row nothing holds the classes together.
    mixed = np.random.default_rng(1).permuted(vectors, axis=0).astype(np.float32)
    distances = np.square((places := probe_figures._embed(mixed, 0))[:, None] - places).sum(-1)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(1)] == labels).mean() < 0.6


def test_map_figure_tells_sixteen_classes_apart():
    vectors, labels = clusters(3, 16)
    names = [f"class {label}" for label in labels]
    pixels = picture(map_figure(vectors, names, title="map"))
    for colour in PALETTE:
        assert share(pixels, colour) > 0
    with pytest.raises(ValueError, match="at most 16 classes, got 48"):
        map_figure(vectors, range(48))
    with pytest.raises(ValueError, match=r"expected \(N, S\) and N classes, got \(48, 24\) and 3"):
        map_figure(vectors, labels[:3])
    with pytest.raises(ValueError, match="expected 5 to 2000 vectors, got 2001"):
        map_figure(np.zeros((2001, 2)), np.zeros(2001))


def test_a_map_without_scikit_learn_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ImportError, match="scikit-learn, which comes with librosa"):
        map_figure(*clusters(3, 2))


def tracks(samples=8000):
    frames = STFT().frames(samples)
    draw = np.random.default_rng(0)
    voice = np.arange(frames) % 20 < 12
    f0 = 150 + 30 * np.sin(np.arange(frames) / 8)
    scores = draw.random((frames, 3))
    return {
        "voice_true": voice,
        "voice": ~voice,
        "f0_true": f0 * voice,
        "f0": 1.1 * f0,
        "snr_true": np.where(voice, 5.0, -20.0),
        "snr": draw.normal(size=frames),
        "class_names": ("rain", "street", "wind"),
        "class_scores": scores / scores.sum(1, keepdims=True),
        "class_true": "rain",
    }


@pytest.fixture(scope="module")
def noisy():
    return np.random.default_rng(0).standard_normal(8000)


def test_strips_are_drawn_for_what_was_predicted(noisy):
    full = picture(strip_figure(noisy, **tracks(), title="rain, 0 dB"))
    assert full.shape[1] > 900
    assert share(full, ORANGE) > 0.005
    heights = [full.shape[0]]
    for left_out in ("class_scores", "snr", "f0", "voice"):
        given = {**tracks(), left_out: None}
        heights.append(picture(strip_figure(noisy, **given)).shape[0])
    assert max(heights[1:]) < heights[0]
    without = picture(strip_figure(noisy))
    assert share(without, ORANGE) < 1e-4
    assert without.shape[0] < min(heights)


def test_predictions_stand_without_a_truth(noisy):
    given = {name: value for name, value in tracks().items() if not name.endswith("_true")}
    assert share(picture(strip_figure(noisy, **given)), ORANGE) > 0.005
    unvoiced = {"f0": given["f0"], "f0_true": np.zeros_like(given["f0"])}
    assert picture(strip_figure(noisy, **unvoiced)).shape[1] > 900


def test_f0_is_shown_where_there_is_voice(noisy):
    """Orange in the F0 strip grows with the voiced frames; what is unvoiced is not drawn."""
    f0 = np.full(STFT().frames(8000), 140.0)
    voiced = np.arange(len(f0)) < 6
    few = picture(strip_figure(noisy, f0=f0, f0_true=f0 * voiced))
    all_of_it = picture(strip_figure(noisy, f0=f0, f0_true=f0))
    assert share(few, ORANGE) < 0.8 * share(all_of_it, ORANGE)


def test_tracks_of_other_lengths_are_refused(noisy):
    with pytest.raises(ValueError, match=r"voice: expected \(33,\), got \(32,\)"):
        strip_figure(noisy, voice=np.ones(32))
    with pytest.raises(ValueError, match=r"class_scores: expected \(33, 2\), got \(33, 3\)"):
        strip_figure(noisy, class_names=("a", "b"), class_scores=np.ones((33, 3)))


def test_importing_loads_no_matplotlib_no_scikit_learn_and_no_probes():
    code = (
        "import sys, dynse.evaluation.probe_figures, dynse.evaluation.probe_strip\n"
        "for name in ('matplotlib', 'sklearn', 'dynse.probes'):\n"
        "    assert name not in sys.modules, name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
