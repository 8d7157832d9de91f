"""The study of a network whose gates say what was planted in them, and of one that says nothing."""

import numpy as np
import pytest
from probes.planted import CLASSES, Planted, planted_mixture, planted_mixtures

from dynse.probes import study
from dynse.probes.study import Splits, can_study, study_task, verify_speakers
from dynse.probes.tasks import (
    F0,
    FRAME_SNR,
    GENDER,
    SNR,
    VOICE,
    first_score,
    gather_rows,
    noise_task,
)

NOISE = noise_task(CLASSES)
PLANTED = Splits(planted_mixtures(0, 36), planted_mixtures(36, 18), planted_mixtures(54, 36))


def coins(seed=0):
    """The same mixtures as heard by gates that say nothing."""
    draw = np.random.default_rng(seed)
    return PLANTED.map(lambda one: one._replace(gates=draw.random(one.gates.shape) < 0.5))


def without(task_labels):
    """All splits but for validation, of which these labels are changed."""
    return Splits(PLANTED.train, [task_labels(one) for one in PLANTED.valid], PLANTED.test)


@pytest.fixture(scope="module")
def results():
    return {
        task.name: study_task(task, PLANTED, coins(), seed=0, features=("log-mel",))
        for task in (VOICE, F0, SNR, NOISE)
    }


@pytest.mark.parametrize(
    ("name", "score", "least", "most_by_chance"),
    [
        ("voice activity", "balanced accuracy", 0.95, 0.55),
        ("F0", "R2", 0.999, 0.05),
        ("SNR", "R2", 0.85, 0.2),
        ("noise class", "accuracy", 0.97, 0.5),
    ],
)
def test_what_was_planted_is_found_and_nothing_else(results, name, score, least, most_by_chance):
    scores = results[name].scores
    two_classes = ["gates, threshold for accuracy"] if name == "voice activity" else []
    assert list(scores) == [
        "majority or mean", "gates", *two_classes, "log-mel", "random gates", "untrained gates",
    ]  # fmt: skip
    assert scores["gates"][score].mean > least
    for nothing in ("majority or mean", "log-mel", "random gates", "untrained gates"):
        assert scores[nothing][score].mean < most_by_chance
    for found in scores.values():
        assert found[score].low <= found[score].mean <= found[score].high


def test_a_threshold_for_accuracy_wins_accuracy_and_loses_balance():
    """Where nine frames in ten are voice and the channel that says so is often wrong."""
    draw = np.random.default_rng(0)

    def mostly_voice(one):
        voice = draw.random(len(one.gates)) < 0.9
        gates = draw.random(one.gates.shape) < 0.5
        gates[:, Planted.VOICE] = voice ^ (draw.random(len(voice)) < 0.3)
        frames = one.labels.frames._replace(voice=voice)
        return one._replace(gates=gates, labels=one.labels._replace(frames=frames))

    found = study_task(VOICE, PLANTED.map(mostly_voice), None, seed=0, features=()).scores
    balanced, plain = found["gates"], found["gates, threshold for accuracy"]
    assert plain["accuracy"].mean > balanced["accuracy"].mean + 0.1
    assert plain["balanced accuracy"].mean < balanced["balanced accuracy"].mean - 0.1


def test_the_constant_is_the_majority_or_the_mean(results):
    voice = np.concatenate([one.labels.frames.voice for one in PLANTED.test])
    found = results["voice activity"].scores["majority or mean"]
    assert found["accuracy"].mean == pytest.approx(voice.mean())
    assert found["balanced accuracy"].mean == 0.5
    train = np.mean([one.labels.snr_db for one in PLANTED.train])
    snr_db = np.array([one.labels.snr_db for one in PLANTED.test])
    assert results["SNR"].scores["majority or mean"]["mean error"].mean == pytest.approx(
        np.abs(snr_db - train).mean()
    )


def test_few_channels_are_enough_where_few_were_planted(results):
    assert results["voice activity"].enough == 1
    assert np.asarray(results["voice activity"].small.channels).tolist() == [Planted.VOICE]
    assert results["F0"].enough == 4  # three of the grid 1, 2, 4, ...
    assert set(Planted.F0) <= set(np.asarray(results["F0"].small.channels).tolist())
    assert results["noise class"].enough <= 4
    for result in results.values():
        counts = [count for count, _ in result.path]
        assert counts == [1, 2, 4, 8, 16, 23]  # all but the constant one
        assert result.enough in counts
        # One addition for each open channel and output.
        rates = np.mean([one.gates.mean(0) for one in PLANTED.test], axis=0)
        for probe, additions in zip((result.probe, result.small), result.additions, strict=True):
            expected = len(probe.bias) * rates[np.asarray(probe.channels)].sum()
            assert additions == pytest.approx(expected, rel=0.05)


def test_the_path_is_scored_on_test_rows_and_chosen_on_validation_rows(results):
    for task in (VOICE, F0):
        result = results[task.name]
        test = gather_rows(task, PLANTED.test, "gates")
        full = first_score(task, result.probe, test)
        assert result.path[-1][1] == pytest.approx(full, abs=1e-6)
        assert result.scores["gates"][task.scores[0]].mean == pytest.approx(full, abs=1e-6)
        scores = dict(result.path)
        assert scores[result.enough] == pytest.approx(
            first_score(task, result.small, test), abs=1e-9
        )


@pytest.mark.parametrize("task", [SNR, F0], ids=lambda task: task.name)
def test_test_labels_change_scores_and_nothing_that_was_chosen(task):
    """Negative control for leaks: with the test labels of other mixtures all choices stay."""
    moved = [
        one._replace(labels=other.labels)
        for one, other in zip(PLANTED.test, PLANTED.test[1:] + PLANTED.test[:1], strict=True)
    ]
    before = study_task(task, PLANTED, coins(), seed=0, features=())
    after = study_task(
        task, Splits(PLANTED.train, PLANTED.valid, moved), coins(), seed=0, features=()
    )
    assert (before.penalty, before.enough) == (after.penalty, after.enough)
    for name in ("channels", "weights", "bias", "threshold"):
        for which in ("probe", "small"):
            found, expected = (getattr(getattr(r, which), name) for r in (before, after))
            np.testing.assert_array_equal(found, expected)
    assert before.scores["gates"]["R2"].mean > 0.85
    assert after.scores["gates"]["R2"].mean < 0


def test_gates_that_never_change_are_left_out():
    stuck = PLANTED.map(lambda one: one._replace(gates=np.ones_like(one.gates)))
    found = study_task(SNR, PLANTED, stuck, seed=0, features=("log-mel 18", "scores")).scores
    assert list(found) == ["majority or mean", "gates", "scores", "random gates"]


def test_whether_a_task_can_be_studied():
    for task in (VOICE, F0, FRAME_SNR, GENDER, SNR, NOISE):
        assert can_study(task, PLANTED)

    def labels(**changes):
        return without(lambda one: one._replace(labels=one.labels._replace(**changes)))

    def frames(**changes):
        return without(
            lambda one: one._replace(
                labels=one.labels._replace(
                    frames=one.labels.frames._replace(
                        **{name: np.full(100, value) for name, value in changes.items()}
                    )
                )
            )
        )

    assert not can_study(GENDER, labels(gender=None))
    assert not can_study(GENDER, labels(gender="F"))
    assert can_study(F0, labels(gender=None))
    assert not can_study(NOISE, labels(noise_class="rain"))
    assert not can_study(NOISE, labels(noise_class="siren"))
    assert not can_study(SNR, labels(snr_db=5.0))
    assert not can_study(VOICE, frames(voice=True))
    assert not can_study(F0, frames(f0_hz=0.0))
    assert not can_study(F0, frames(f0_hz=100.0))
    few = [one for one in PLANTED.train if one.labels.noise_class != "wind"]
    assert not can_study(NOISE, Splits(few, PLANTED.valid, PLANTED.test))


def test_conditions_of_every_task(results):
    """Within one SNR the SNR is constant; a trial by source is asked of classes alone."""
    at = {f"at {snr_db} dB" for snr_db in (-5, 5, 15)}
    folds = {"sources apart", "sources shared"}
    expected = {
        "voice activity": at | folds,
        "F0": at | folds,
        "SNR": folds,
        "noise class": folds | {"accuracy by source"},
    }
    assert {task: set(found.extra) for task, found in results.items()} == expected


def voices(count=8, mixtures=4):
    """Mixtures long enough for two segments, of speakers with rates of their own."""
    return [
        planted_mixture(
            speaker * mixtures + n, speaker=speaker, frames=2 * study.SEGMENT_FRAMES + 5
        )
        for speaker in range(count)
        for n in range(mixtures)
    ]


def test_planted_speakers_are_told_apart():
    test = voices()
    splits = Splits(PLANTED.train, PLANTED.valid, test)
    found = verify_speakers(splits)
    segments = [(one.labels.speaker, one.id) for one in test for _ in range(2)]
    pairs = [(a, b) for i, a in enumerate(segments) for b in segments[:i]]
    same = [(a, b) for a, b in pairs if a[0] == b[0]]
    assert found["all"][1] == len(same)
    assert found["other recording"][1] == sum(a[1] != b[1] for a, b in same)
    assert found["all"][0] < 0.15
    assert found["other recording"][0] < 0.15
    # Negative controls: log-mel, where nothing was planted; and the same rates under other names.
    assert verify_speakers(splits, "log-mel")["all"][0] == pytest.approx(0.5, abs=0.1)
    names = np.random.default_rng(0).permutation([one.labels.speaker for one in test])
    renamed = [
        one._replace(labels=one.labels._replace(speaker=name))
        for one, name in zip(test, names, strict=True)
    ]
    wrong = verify_speakers(Splits(PLANTED.train, PLANTED.valid, renamed))
    assert wrong["other recording"][0] == pytest.approx(0.5, abs=0.1)


def test_mixtures_with_one_recording_in_common_are_no_other_recording():
    """a, ab and b of one speaker: only a and b share nothing."""
    parts = [("a",), ("a", "b"), ("b",)]
    test = voices(count=2, mixtures=3)
    for speaker in range(2):
        for n, names in enumerate(parts):
            one = test[3 * speaker + n]
            own = tuple(f"{speaker}{name}" for name in names)
            labels = one.labels._replace(speech_recordings=own)
            test[3 * speaker + n] = one._replace(labels=labels)
    found = verify_speakers(Splits(PLANTED.train, PLANTED.valid, test))
    assert found["all"][1] == 2 * 15
    assert found["other recording"][1] == 2 * 4  # two segments of a with two of b


def test_one_speaker_or_no_segment_says_nothing():
    assert verify_speakers(PLANTED) == {}  # all shorter than 3 s
    alone = Splits(PLANTED.train, PLANTED.valid, voices(count=1))
    assert verify_speakers(alone) == {}
