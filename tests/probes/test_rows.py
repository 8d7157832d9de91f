"""What probes read of a tiny network on tones, against the network itself and NumPy."""

import contract
import jax
import numpy as np
import pytest
from data.tones import tones

from dynse.audio.features import magnitude
from dynse.audio.mel import mel_filterbank
from dynse.audio.stft import STFT
from dynse.data.drawing import make_test_set
from dynse.data.labels import SHAPE, label_mixture
from dynse.data.pitch import Pitch
from dynse.data.testsets import render
from dynse.models.conv_fsenet import ConvFSENet, GateConfig
from dynse.probes.features import varying_channels
from dynse.probes.rows import MEL_BANDS, MEL_CONTEXT, mixture_rows, with_past

CORPUS = tones()
MIXTURES = make_test_set(
    CORPUS, "test", name="rows", seed=0, snrs_db=(0, 5, 10), per_snr=1, min_s=1.0, max_s=2.0
)
SITES = {"output": 4, "inner": 6}  # gates of a block


def pitch():
    bank = CORPUS.speech["test"]
    return Pitch({name: np.full(1000, 140, np.float32) for name in bank.names}, 160)


def small_net(site):
    gate = GateConfig(site=site, hidden=2, window=2, normalize=True, bias=0.0)
    net = ConvFSENet(width=4, inner=6, stacks=1, blocks=2, gate=gate)
    shapes = jax.eval_shape(net.init, jax.random.key(0), np.ones((1, 1, net.bins)))
    return net, contract.random_like(shapes, 9)


@pytest.fixture(scope="module", params=SITES)
def heard(request):
    """The site, parameters, rows of three mixtures in batches of two, and each mixture alone:
    magnitudes, gain and aux without padding."""
    net, variables = small_net(request.param)
    rows = mixture_rows(net, variables, CORPUS, MIXTURES, pitch(), stft=SHAPE, batch_size=2)
    apply, alone = jax.jit(net.apply), []
    for spec in MIXTURES:
        spectrum = magnitude(SHAPE.forward(render(spec, CORPUS).noisy[None]))
        _, gain, aux = apply(variables, spectrum)
        alone.append((np.asarray(spectrum[0]), np.asarray(gain[0]), aux))
    return request.param, variables["params"], list(rows), alone


def test_gates_and_scores_are_those_of_the_mixture_alone(heard):
    site, _, found, alone = heard
    assert len({spec.length for spec in MIXTURES}) == 3
    for spec, row, (_, _, aux) in zip(MIXTURES, found, alone, strict=True):
        gates, scores = (np.concatenate(part, -1)[0] for part in (aux.gates, aux.scores))
        assert row.gates.dtype == bool
        assert row.gates.shape == (SHAPE.frames(spec.length), 2 * SITES[site])
        # Batches of other shapes are rounded otherwise: only where a score is nearly 0.
        sure = np.abs(scores) > 1e-4
        assert sure.mean() > 0.99
        np.testing.assert_array_equal(row.gates[sure], gates[sure] > 0)
        np.testing.assert_allclose(row.scores, scores, rtol=1e-3, atol=1e-3)
        assert len(varying_channels(row.gates)) >= 2
    # Negative control: the gates of one mixture are not those of another.
    shortest = min(len(row.gates) for row in found)
    assert (found[0].gates[:shortest] != found[1].gates[:shortest]).any()


def test_activations_are_what_the_blocks_add(heard):
    """The front's output with all activations is what the network's last matrix reads."""
    site, params, found, alone = heard
    for row, (spectrum, gain, _) in zip(found, alone, strict=True):
        assert row.activations.shape == (len(spectrum), 8)
        if site == "output":
            assert not row.activations[~row.gates].any()
            assert row.activations[row.gates].any()
        front = (spectrum + 1e-9) ** 0.3 @ params["front"]["kernel"] + params["front"]["bias"]
        stream = np.maximum(front, 0) + row.activations.astype(float).reshape(-1, 2, 4).sum(1)
        logits = stream @ params["back"]["kernel"] + params["back"]["bias"]
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), gain, atol=2e-3)
        without = np.maximum(front, 0) @ params["back"]["kernel"] + params["back"]["bias"]
        assert np.abs(1 / (1 + np.exp(-without)) - gain).max() > 0.02


def test_log_mel_by_numpy(heard):
    triangles = mel_filterbank(MEL_BANDS, 512, 16000).astype(float)
    for spec, row in zip(MIXTURES, heard[2], strict=True):
        noisy, count = render(spec, CORPUS).noisy, SHAPE.frames(spec.length)
        padded = np.zeros(256 * (count + 1))
        padded[256 : 256 + spec.length] = noisy
        window = np.sin(np.pi * np.arange(512) / 512) ** 2
        for t in range(0, count, 7):
            power = np.abs(np.fft.rfft(window * padded[256 * t : 256 * t + 512])) ** 2
            energy = [np.average(power, weights=triangle) for triangle in triangles]
            expected = 10 * np.log10(np.maximum(energy, 1e-8))
            # Half a step of float16 between 64 and 128.
            np.testing.assert_allclose(row.log_mel[t], expected, atol=0.04)


def test_rows_and_labels_belong_together(heard):
    for spec, row in zip(MIXTURES, heard[2], strict=True):
        assert row.id == spec.id
        expected = label_mixture(spec, CORPUS, pitch())
        assert row.labels[1:] == expected[1:]
        for found, label in zip(row.labels.frames, expected.frames, strict=True):
            np.testing.assert_array_equal(found, label)
        for kind in ("gates", "scores", "activations", "log-mel", "log-mel 18"):
            assert len(row.features(kind)) == len(row.labels.frames.voice)
        assert row.features("log-mel 18").shape[1] == 18 * MEL_BANDS
        np.testing.assert_array_equal(row.features("log-mel"), row.log_mel)
        with pytest.raises(AttributeError):
            row.features("mel")


def test_the_past_by_a_loop():
    features = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float16)
    found = with_past(features, 4)
    assert found.dtype == np.float16
    for t in range(7):
        past = [features[max(t - 3 + i, 0)] for i in range(4)]
        np.testing.assert_array_equal(found[t], np.concatenate(past))
    assert with_past(features, MEL_CONTEXT).shape == (7, 54)
    np.testing.assert_array_equal(with_past(features, 1), features)


def test_what_cannot_be_probed_is_refused():
    def first(net, stft):
        next(mixture_rows(net, {}, CORPUS, MIXTURES, pitch(), stft=stft))

    with pytest.raises(ValueError, match="network with gates to probe, got one without"):
        first(ConvFSENet(width=4, inner=6), SHAPE)
    with pytest.raises(ValueError, match=r"transform of the labels.* got STFT\(.*hop_length=128"):
        first(small_net("output")[0], STFT(hop_length=128))
