"""Scores by SNR, by source and in folds, of gates with a known meaning."""

import numpy as np
import pytest
from probes.planted import CLASSES, Planted, planted_mixture, planted_mixtures

from dynse.probes import conditions
from dynse.probes.conditions import score_by_snr, score_by_source, score_in_folds
from dynse.probes.tasks import F0, GENDER, SNR, VOICE, estimates, fit, gather_rows, noise_task

NOISE = noise_task(CLASSES)
UNHEARD = planted_mixtures(36, 54)


def probe_of(task):
    return fit(task, gather_rows(task, planted_mixtures(0, 36), "gates"), penalty=1e-3)


def test_by_snr_each_is_scored_alone():
    """The channel of the voice is wrong in a known share of the frames, which the SNR decides."""
    wrong, draw = {-5.0: 0.4, 5.0: 0.2, 15.0: 0.0}, np.random.default_rng(0)

    def damaged(one):
        gates, flip = one.gates.copy(), draw.random(len(one.gates)) < wrong[one.labels.snr_db]
        gates[:, Planted.VOICE] = one.labels.frames.voice ^ flip
        return one._replace(gates=gates)

    found = score_by_snr(VOICE, probe_of(VOICE), [damaged(one) for one in UNHEARD])
    assert list(found) == ["at -5 dB", "at 5 dB", "at 15 dB"]
    assert [one.mean for one in found.values()] == pytest.approx([0.6, 0.8, 1.0], abs=0.03)
    assert sum(one.count for one in found.values()) == 100 * len(UNHEARD)


def test_where_targets_are_constant_nothing_is_scored():
    assert score_by_snr(SNR, probe_of(SNR), UNHEARD) == {}
    assert score_by_snr(GENDER, probe_of(GENDER), [UNHEARD[0]]) == {}


@pytest.mark.parametrize("task", [NOISE, F0], ids=lambda task: task.name)
def test_folds_keep_sources_apart_or_only_mixtures(task, monkeypatch):
    sources = np.array([getattr(one.labels, task.drawn) for one in UNHEARD])
    fitted = []

    def spy(task, rows, **options):
        fitted.append(rows.groups)
        return original(task, rows, **options)

    original = conditions.fit
    monkeypatch.setattr(conditions, "fit", spy)
    found = score_in_folds(task, UNHEARD, penalty=1e-3)
    assert list(found) == ["sources apart", "sources shared"]
    apart, shared = fitted[:5], fitted[5:]
    held = [source for groups in apart for source in set(sources) - set(groups)]
    assert sorted(held) == sorted(set(sources))
    # Negative control: by mixture most sources are on both sides.
    assert len(shared) == 5
    missing = sum(len(set(sources) - set(groups)) for groups in shared)
    assert missing < len(set(sources)) / 2
    assert min(one.mean for one in found.values()) > 0.9


def test_what_a_voice_alone_tells_is_found_where_voices_are_shared():
    """The F0 of a speaker is a number of its own, which one channel of that speaker gives away."""
    own = dict(zip("abcdefgh", np.random.default_rng(1).uniform(6.5, 8, 8), strict=True))

    def mixture(n):
        speaker = "abcdefgh"[n % 8]
        one = planted_mixture(n)
        gates = np.random.default_rng(n).random(one.gates.shape) < 0.5
        gates[:, : len(own)] = False
        gates[:, n % 8] = True
        voiced = one.labels.frames.f0_hz > 0
        f0_hz = np.where(voiced, 2.0 ** own[speaker], 0).astype(np.float32)
        frames = one.labels.frames._replace(f0_hz=f0_hz)
        return one._replace(gates=gates, labels=one.labels._replace(speaker=speaker, frames=frames))

    found = score_in_folds(F0, [mixture(n) for n in range(48)], penalty=1e-3)
    assert found["sources shared"].mean > 0.99
    assert found["sources apart"].mean < 0.2


def test_with_fewer_sources_than_folds_there_are_none():
    few = [planted_mixture(n, source=f"source{n % 4}") for n in range(12)]
    assert score_in_folds(VOICE, few, penalty=1e-3) == {}


def test_a_source_is_one_trial():
    """Right in all mixtures of two sources, in half of the third's."""
    probe = probe_of(NOISE)
    test = [
        planted_mixture(500 + n, noise_class=CLASSES[n % 3], source=f"source{n % 3}")
        for n in range(12)
    ]
    wrong = {2: "rain", 8: "rain"}
    test = [
        one._replace(labels=one.labels._replace(noise_class=wrong.get(n, one.labels.noise_class)))
        for n, one in enumerate(test)
    ]
    rows = gather_rows(NOISE, test, "gates")
    right = estimates(probe, rows.features) == rows.targets
    np.testing.assert_array_equal(np.flatnonzero(~right), [2, 8])
    found = score_by_source(NOISE, probe, test)["accuracy by source"]
    assert found.count == 3
    assert found.mean == pytest.approx((1 + 1 + 0.5) / 3)
    # The ends are the p that lie 1.96 standard errors of p from the share.
    for end in (found.low, found.high):
        reach = 1.959964 * np.sqrt(end * (1 - end) / 3)
        assert abs(found.mean - end) == pytest.approx(reach, rel=1e-5)
