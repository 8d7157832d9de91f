import numpy as np
import pytest

from dynse.probes.verification import all_pairs, cosine_scores, equal_error_rate


def test_pairs_name_what_they_share():
    pairs = all_pairs(["ann", "ann", "ann", "bob"], ["a1", "a1", "a2", "b1"])
    named = list(zip(pairs.first, pairs.second, strict=True))
    assert named == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    np.testing.assert_array_equal(pairs.same_speaker, [1, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(pairs.same_recording, [1, 0, 0, 0, 0, 0])
    apart = pairs.where(~pairs.same_recording)
    assert len(apart.first) == 5
    assert apart.same_speaker.sum() == 2


def test_cosine_by_hand():
    rates = np.array([[1.5, 0.5], [1.0, 1.0], [0.5, 0.0], [0.5, 0.5]])
    pairs = all_pairs("abcd", "abcd")
    scores = cosine_scores(rates, pairs, np.array([0.5, 0.5]))
    np.testing.assert_allclose(scores, [np.sqrt(0.5), 0, 0, -np.sqrt(0.5), 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("targets", "impostors", "expected"),
    [
        ([3, 4], [1, 2], 0.0),
        ([1, 2], [3, 4], 1.0),
        ([1, 3, 4, 5], [0, 0, 0, 2], 0.25),
        # At 2 a third of the targets is rejected and half of the impostors accepted, at 3 a
        # third and none: the rejected stay, the accepted cross them.
        ([1, 3, 4], [0, 2], 1 / 3),
        # At 3 none of the targets is rejected and half accepted, just above half and none.
        ([3, 4], [1, 3], 0.25),
        ([1, 1], [1, 1], 0.5),
    ],
)
def test_equal_error_rates_by_hand(targets, impostors, expected):
    scores = np.array([*targets, *impostors], float)
    same = np.arange(len(scores)) < len(targets)
    assert equal_error_rate(scores, same) == pytest.approx(expected, abs=1e-12)
    shuffled = np.random.default_rng(0).permutation(len(scores))
    assert equal_error_rate(np.exp(scores)[shuffled], same[shuffled]) == pytest.approx(expected)


def test_equal_error_rate_of_two_normals():
    """Means d apart, variance 1: Phi(-d / 2)."""
    draw = np.random.default_rng(0)
    same = np.arange(40_000) < 20_000
    scores = draw.normal(size=40_000) + 2.0 * same
    assert equal_error_rate(scores, same) == pytest.approx(0.1587, abs=0.005)
    assert equal_error_rate(draw.permutation(scores), same) == pytest.approx(0.5, abs=0.01)


def test_voices_are_verified_by_their_rates():
    draw = np.random.default_rng(1)
    voices = np.repeat(draw.uniform(0.1, 0.9, (8, 60)), 6, axis=0)
    rates = (draw.random((180, 48, 60)) < voices).mean(0)
    speakers = np.repeat(np.arange(8), 6)
    pairs = all_pairs(list(speakers), list(range(48)))
    scores = cosine_scores(rates, pairs, rates.mean(0))
    assert equal_error_rate(scores, pairs.same_speaker) < 0.01
    of_nobody = all_pairs(list(draw.permutation(speakers)), list(range(48)))
    assert equal_error_rate(scores, of_nobody.same_speaker) == pytest.approx(0.5, abs=0.1)


def test_what_cannot_be_verified_is_named():
    with pytest.raises(ValueError, match="as many speakers as recordings, got 1 and 2"):
        all_pairs("a", "ab")
    with pytest.raises(ValueError, match="a recording with two"):
        all_pairs("ab", "xx")
    with pytest.raises(ValueError, match="2 targets and 0 impostors"):
        equal_error_rate(np.ones(2), np.ones(2, bool))
    with pytest.raises(ValueError, match="got NaN"):
        equal_error_rate(np.array([np.nan, 1]), np.array([True, False]))
