"""Sequence tasks: padding, standardisation, splits, the cache of clips, and row-wise digits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynse.data.bank import Skipped
from dynse.data.sequences import (
    SPLITS,
    Clip,
    cached_clips,
    fingerprint,
    frame_moments,
    make_task,
    row_digits,
)


def clips(seed=0, lengths=(3, 5, 2), width=4):
    """Clips in three splits, with labels 0 and 1."""
    rng = np.random.default_rng(seed)
    return {
        split: [
            Clip(
                rng.normal(3, 2, (length, width)).astype(np.float32),
                index % 2,
                f"group-{index}",
                f"{split}/{index}",
            )
            for index, length in enumerate(lengths)
        ]
        for split in SPLITS
    }


def task(parts, classes=("yes", "no")):
    return make_task("tiny", classes, parts)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 99))
def test_padding_and_standardisation_by_loops(lengths, seed):
    parts = clips(seed, lengths)
    made = task(parts)
    rows = [row for clip in parts["train"] for row in clip.frames.astype(float)]
    for d in range(4):
        column = [row[d] for row in rows]
        mean = sum(column) / len(column)
        std = (sum((x - mean) ** 2 for x in column) / len(column)) ** 0.5
        if len(column) == 1:
            std = 1.0
        for split in SPLITS:
            part = getattr(made, split)
            assert part.features.shape == (len(lengths), max(lengths), 4)
            for n, clip in enumerate(parts[split]):
                expected = (clip.frames[:, d] - mean) / std
                found = part.features[n, : len(expected), d]
                np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
                assert not part.features[n, len(expected) :].any()
    for split in SPLITS:
        part = getattr(made, split)
        assert part.features.dtype == np.float32
        assert part.lengths.dtype == part.labels.dtype == np.int32
        assert part.lengths.tolist() == lengths
        assert part.labels.tolist() == [clip.label for clip in parts[split]]
        assert part.groups.tolist() == [clip.group for clip in parts[split]]
        assert part.ids.tolist() == [clip.id for clip in parts[split]]


def test_the_training_split_alone_sets_mean_and_deviation():
    parts, other = clips(0), clips(0)
    other["test"] = [clip._replace(frames=clip.frames * 50) for clip in other["test"]]
    first, second = task(parts), task(other)
    np.testing.assert_array_equal(first.train.features, second.train.features)
    np.testing.assert_array_equal(first.mean, second.mean)
    assert np.abs(second.test.features).max() > 20
    other["train"] = [clip._replace(frames=clip.frames * 50) for clip in other["train"]]
    assert (task(other).mean != first.mean).all()


def test_a_feature_that_never_changes_becomes_zero():
    # 0.1 is no binary number: its mean over frames need not be exact
    frames = np.stack([np.full(7, 0.1, np.float32), np.arange(7, dtype=np.float32)], 1)
    mean, std = frame_moments([frames, frames[:3]])
    assert std[0] == 1
    np.testing.assert_allclose((frames - mean)[:, 0], 0, atol=1e-8)


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("valid", lambda part: [], "split 'valid' has no clip"),
        ("test", lambda part: [part[0]._replace(id="train/0")], "ids must be unique"),
        ("test", lambda part: [part[0]._replace(label=2)], "test/0: label 2 of 2 classes"),
        ("test", lambda part: [part[0]._replace(label=-1)], "test/0: label -1 of 2 classes"),
        ("train", lambda p: [p[0]._replace(frames=p[0].frames * np.nan)], "expected finite"),
        ("test", lambda p: [p[0]._replace(frames=p[0].frames[:, :3])], r"\(T, 4\), got \(3, 3\)"),
        ("test", lambda p: [p[0]._replace(frames=p[0].frames[:0])], r"\(T, 4\), got \(0, 4\)"),
    ],
)
def test_wrong_clips_are_refused(split, change, message):
    parts = clips()
    task(parts)
    parts[split] = change(parts[split])
    with pytest.raises(ValueError, match=message):
        task(parts)


def test_the_fingerprint_is_that_of_the_content():
    first = task(clips()).fingerprint
    assert len(first) == 64
    assert task(clips()).fingerprint == first
    one = clips()
    one["test"][1].frames[0, 0] += 1
    named = clips()
    named["valid"][0] = named["valid"][0]._replace(group="another")
    labelled = clips()
    labelled["valid"][0] = labelled["valid"][0]._replace(label=1)
    found = {task(parts).fingerprint for parts in (one, named, labelled)}
    found.add(task(clips(), ("yes", "never")).fingerprint)
    assert len(found | {first}) == 5
    # equal bytes in another shape or of another kind
    zeros = np.zeros((2, 3), np.float32)
    assert fingerprint(zeros) != fingerprint(zeros.reshape(3, 2))
    assert fingerprint(zeros) != fingerprint(zeros.view(np.int32))


def test_clips_are_made_once_and_read_back_as_they_were(tmp_path):
    path = tmp_path / "cache/clips.npz"
    parts, calls = clips()["train"], []
    left_out = [Skipped("a/b.wav", "is empty (0 bytes)")]

    def make():
        calls.append(1)
        return parts, left_out

    for _ in range(2):
        found, skipped = cached_clips(path, make)
        assert skipped == left_out
        for clip, expected in zip(found, parts, strict=True):
            np.testing.assert_array_equal(clip.frames, expected.frames)
            assert clip.frames.dtype == np.float32
            assert clip[1:] == expected[1:]
    assert len(calls) == 1
    assert [file.name for file in path.parent.iterdir()] == ["clips.npz"]


def test_a_damaged_cache_is_named(tmp_path):
    path = tmp_path / "clips.npz"
    cached_clips(path, lambda: (clips()["train"], []))
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"no archive at all"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"clips.npz is damaged .*delete it"):
            cached_clips(path, lambda: (clips()["train"], []))


def test_nothing_usable_is_not_cached(tmp_path):
    with pytest.raises(ValueError, match="no clip could be used: skipped 1 file: a is b"):
        cached_clips(tmp_path / "clips.npz", lambda: ([], [Skipped("a", "is b")]))
    assert list(tmp_path.iterdir()) == []


def test_row_digits_are_the_images_read_from_top_to_bottom():
    datasets = pytest.importorskip("sklearn.datasets")
    images = datasets.load_digits()
    made = row_digits()
    seen = []
    for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        part = getattr(made, split)
        assert part.features.shape[1:] == (8, 8)
        assert (part.lengths == 8).all()
        for label in range(10):
            whole = np.sum(images.target == label)
            assert np.sum(part.labels == label) == pytest.approx(share * whole, abs=1)
        for features, label, name in zip(part.features, part.labels, part.ids, strict=True):
            index = int(name.removeprefix("image-"))
            rows = features * made.std + made.mean
            np.testing.assert_allclose(rows, images.images[index], atol=1e-4)
            assert label == images.target[index]
            seen.append(index)
    assert sorted(seen) == list(range(1797))
    assert row_digits().fingerprint == made.fingerprint
    assert set(row_digits(1).test.ids) != set(made.test.ids)
