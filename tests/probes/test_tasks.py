"""Rows of a task, and what is chosen on which of them, on gates with known meaning."""

import numpy as np
import pytest
from probes.planted import CLASSES, Planted, planted_mixture, planted_mixtures

from dynse.evaluation.statistics import Interval
from dynse.probes.intervals import score_value
from dynse.probes.scores import median_error_cents
from dynse.probes.tasks import (
    F0,
    FRAME_SNR,
    GENDER,
    PENALTIES,
    SNR,
    VOICE,
    Rows,
    estimates,
    first_score,
    fit,
    fit_chosen,
    gather_rows,
    noise_task,
    score_estimates,
    with_threshold,
)

NOISE = noise_task(CLASSES)


def test_rows_of_frames_by_a_loop():
    mixtures = [planted_mixture(n, frames=30 + n, speaker=n) for n in range(3)]
    for task, stride in ((F0, 1), (F0, 4), (VOICE, 3), (FRAME_SNR, 5)):
        features, targets, groups = [], [], []
        for mixture in mixtures:
            labels = mixture.labels.frames
            for t in range(0, len(mixture.gates), stride):
                target = {
                    "F0": np.log2(labels.f0_hz[t]) if labels.f0_hz[t] else None,
                    "voice activity": labels.voice[t],
                    "frame SNR": labels.snr_db[t],
                }[task.name]
                if target is None:
                    continue
                features.append(mixture.gates[t])
                targets.append(target)
                of_voice = task is F0
                groups.append(mixture.labels.speaker if of_voice else mixture.labels.noise_source)
        rows = gather_rows(task, mixtures, "gates", stride=stride)
        np.testing.assert_array_equal(rows.features, features)
        np.testing.assert_allclose(rows.targets, targets, rtol=1e-6)
        np.testing.assert_array_equal(rows.groups, groups)
        assert rows.features.dtype == bool


def test_rows_of_mixtures_are_means_over_frames():
    mixtures = planted_mixtures(0, 6)
    rows = gather_rows(SNR, mixtures, "gates")
    np.testing.assert_allclose(rows.features, [one.gates.mean(0) for one in mixtures], rtol=1e-6)
    assert rows.targets.tolist() == [one.labels.snr_db for one in mixtures]
    rows = gather_rows(GENDER, mixtures, "log-mel")
    for row, one in zip(rows.features, mixtures, strict=True):
        bands = one.log_mel.astype(float)
        np.testing.assert_allclose(row, [*bands.mean(0), *bands.std(0)], rtol=1e-3, atol=1e-4)
    assert rows.targets.tolist() == [True] * 3 + [False] * 3
    assert rows.groups.tolist() == ["speaker0"] * 3 + ["speaker1"] * 3


def test_mixtures_without_the_class_are_left_out():
    mixtures = [*planted_mixtures(0, 3), planted_mixture(3, noise_class="siren")]
    rows = gather_rows(NOISE, mixtures, "gates")
    assert rows.targets.tolist() == [0, 1, 2]
    assert rows.groups.tolist() == ["drill0", "rain0", "wind0"]
    unknown = [one._replace(labels=one.labels._replace(gender=None)) for one in mixtures]
    assert len(gather_rows(GENDER, [*unknown, mixtures[0]], "gates").targets) == 1
    with pytest.raises(ValueError, match="no mixture has a label for the task 'gender'"):
        gather_rows(GENDER, unknown, "gates")
    silent = planted_mixture(0)
    silent.labels.frames.f0_hz[:] = 0
    with pytest.raises(ValueError, match="no mixture has a label for the task 'F0'"):
        gather_rows(F0, [silent], "gates")


def noisy_rates(seed, count, sure):
    """One channel that says a little about 40 mixtures and 60 that say nothing."""
    draw = np.random.default_rng(seed)
    targets = draw.normal(size=count)
    features = draw.normal(size=(count, 61))
    features[:, 0] = targets * sure + features[:, 0]
    return Rows(features.astype(np.float32), targets, np.arange(count))


def test_validation_rows_choose_the_penalty():
    train, valid = noisy_rates(0, 40, 1.0), noisy_rates(1, 200, 1.0)
    probe, penalty = fit_chosen(SNR, train, valid)
    scores = {
        tried: score_value(
            "R2", estimates(fit(SNR, train, penalty=tried), valid.features), valid.targets
        )
        for tried in PENALTIES["mixture"]
    }
    assert penalty == max(scores, key=scores.get)
    assert scores[penalty] > scores[PENALTIES["mixture"][0]] + 0.2
    assert first_score(SNR, probe, valid) == pytest.approx(scores[penalty], rel=1e-6)
    # Judged by the rows it was fitted on, the smallest penalty would win.
    assert fit_chosen(SNR, train, train)[1] == PENALTIES["mixture"][0]
    # Negative control: where the validation labels say nothing, the most cautious one does.
    shuffled = np.random.default_rng(2).permutation(valid.targets)
    assert fit_chosen(SNR, train, valid._replace(targets=shuffled))[1] == PENALTIES["mixture"][-1]


def test_validation_rows_choose_the_threshold():
    train, valid, test = (
        gather_rows(VOICE, planted_mixtures(first, 6), "gates") for first in (0, 6, 12)
    )
    probe, penalty = fit_chosen(VOICE, train, valid)
    assert penalty in PENALTIES["frame"]
    found = estimates(probe, test.features)
    assert found.dtype == bool
    assert score_value("balanced accuracy", found, test.targets) > 0.94
    # Negative control: told the opposite, no threshold is better than saying always the same.
    opposite = with_threshold(probe, valid._replace(targets=~valid.targets))
    assert np.isinf(opposite.threshold)
    assert score_value("balanced accuracy", estimates(opposite, test.features), test.targets) == 0.5
    # Several classes and numbers have none.
    classes = fit(NOISE, gather_rows(NOISE, planted_mixtures(0, 12), "gates"))
    assert with_threshold(classes, valid) is classes


def test_weights_of_the_voice_stand_in_its_channel():
    rows = gather_rows(VOICE, planted_mixtures(0, 6), "gates")
    probe = fit(VOICE, rows)
    strongest = np.abs(np.asarray(probe.weights)[:, 0]).argmax()
    assert np.asarray(probe.channels)[strongest] == Planted.VOICE
    assert Planted.CONSTANT not in np.asarray(probe.channels)


def test_scores_of_f0_are_of_octaves_and_cents():
    draw = np.random.default_rng(0)
    targets = draw.uniform(6.5, 8.5, 300)
    found = targets + 0.1 * draw.normal(size=300)
    rows = Rows(np.zeros((300, 1)), targets, np.arange(300) // 30)
    scores = score_estimates(F0, found, rows)
    assert scores["R2"].mean == pytest.approx(score_value("R2", found, targets))
    cents = median_error_cents(2**found, 2**targets)
    assert scores["median cents"].mean == pytest.approx(cents)
    assert cents == pytest.approx(1200 * 0.1 * 0.6745, rel=0.15)
    assert scores["median cents"].text(0) == f"{cents:.0f}"
    assert set(score_estimates(SNR, found, rows)) == {"R2", "mean error"}
    assert isinstance(scores["R2"], Interval)
