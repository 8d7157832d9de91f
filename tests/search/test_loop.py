"""The loop: archive, resumption, refusals, progress."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

import dynse.atomic
from dynse.search.hypervolume import hypervolume
from dynse.search.loop import ARCHIVE, search
from dynse.search.nsga2 import NSGA2
from dynse.search.operators import PolynomialMutation
from dynse.search.sorting import pareto_front

ALGORITHM = NSGA2((2,) * 5, (8,) * 5, population=10)
GENERATIONS = 6


class Stopped(Exception):
    pass


def evaluate(genomes):
    genomes = np.asarray(genomes, np.float64)
    return np.stack([(4.0**-genomes).sum(1), genomes @ np.arange(1, 6)], 1)


def stopping_at(generation, function=evaluate):
    """Evaluates, until it is called for that generation of this process."""
    calls = []

    def stop(genomes):
        calls.append(None)
        if len(calls) > generation:
            raise Stopped
        return function(genomes)

    return stop


def run(algorithm=ALGORITHM, function=evaluate, **options):
    options = {"generations": GENERATIONS, "key": jax.random.key(3), **options}
    return search(algorithm, function, console=Console(quiet=True), **options)


def assert_equal(one, other):
    for name, left, right in zip(one._fields, one, other, strict=True):
        if name == "state":
            left = left._replace(key=jax.random.key_data(left.key))
            right = right._replace(key=jax.random.key_data(right.key))
        if name == "seconds":  # what a clock says is not the same twice
            left, right = left.shape, right.shape
        jax.tree.map(np.testing.assert_array_equal, left, right)


def test_the_result_is_the_archive_its_front_and_its_hypervolume():
    result = run(seeds=np.array([[8] * 5, [2] * 5]))
    assert result.genomes.shape == (GENERATIONS, 10, 5)
    assert result.genomes[0, :2].tolist() == [[8] * 5, [2] * 5]
    for genomes, objectives in zip(result.genomes, result.objectives, strict=True):
        np.testing.assert_array_equal(objectives, evaluate(genomes).astype(np.float32))
    front, objectives = pareto_front(
        result.genomes.reshape(-1, 5), result.objectives.reshape(-1, 2)
    )
    assert {tuple(row) for row in front} == {tuple(row) for row in result.front_genomes}
    np.testing.assert_array_equal(objectives, result.front_objectives)
    first = result.objectives[0].astype(np.float64)
    reference = first.max(0) + (first.max(0) - first.min(0)) / 10
    np.testing.assert_allclose(result.reference, reference)
    so_far = [
        hypervolume(result.objectives[: n + 1].reshape(-1, 2), reference)
        for n in range(GENERATIONS)
    ]
    np.testing.assert_allclose(result.hypervolume, so_far, rtol=1e-12)
    assert (np.diff(result.hypervolume) >= 0).all()
    assert int(result.state.generation) == GENERATIONS


@pytest.mark.parametrize("done", [0, 1, 4])
def test_resumed_after_an_interruption_it_is_bit_identical(tmp_path, done):
    whole = run()
    with pytest.raises(Stopped):
        run(function=stopping_at(done), run_dir=tmp_path)
    assert (tmp_path / ARCHIVE).exists() == (done > 0)
    # Only what is missing is evaluated.
    resumed = run(function=stopping_at(GENERATIONS - done), run_dir=tmp_path)
    assert_equal(whole, resumed)
    finished = run(function=stopping_at(0), run_dir=tmp_path)
    assert_equal(whole, finished)


def test_a_resumption_from_another_state_would_be_seen(tmp_path):
    whole = run()
    run(generations=3, run_dir=tmp_path)
    with np.load(tmp_path / ARCHIVE) as content:
        arrays = dict(content)
    arrays["state_key"] = arrays["state_key"] ^ 1
    np.savez(tmp_path / ARCHIVE, **arrays)
    with pytest.raises(AssertionError):
        assert_equal(whole, run(run_dir=tmp_path))


def test_more_generations_continue_the_same_search_and_fewer_are_refused(tmp_path):
    run(generations=3, run_dir=tmp_path)
    assert_equal(run(), run(run_dir=tmp_path))
    with pytest.raises(ValueError, match="holds 6 generations, more than the 2"):
        run(generations=2, run_dir=tmp_path)


@pytest.mark.parametrize(
    ("changed", "options"),
    [
        ("algorithm", {"algorithm": NSGA2((2,) * 5, (7,) * 5, population=10)}),
        (
            "algorithm",
            {
                "algorithm": NSGA2(
                    (2,) * 5, (8,) * 5, population=10, mutation=PolynomialMutation(0.5)
                )
            },
        ),
        ("key", {"key": jax.random.key(4)}),
        ("seeds", {"seeds": np.full((1, 5), 8)}),
        ("reference", {"reference": np.array([1.0, 200.0])}),
        ("identity", {"identity": {"task": "vowels"}}),
    ],
)
def test_an_archive_of_another_configuration_is_refused(tmp_path, changed, options):
    identity = {"identity": {"task": "digits"}}
    run(generations=1, run_dir=tmp_path, **identity)
    before = (tmp_path / ARCHIVE).read_bytes()
    with pytest.raises(ValueError, match=rf"another configuration \(different: {changed}\)"):
        run(generations=1, run_dir=tmp_path, **{**identity, **options})
    assert (tmp_path / ARCHIVE).read_bytes() == before
    run(generations=1, run_dir=tmp_path, **identity)


def test_a_failed_write_leaves_the_archive_before_it(tmp_path, monkeypatch):
    whole = run()
    fsync, calls = dynse.atomic.os.fsync, []

    def full_disk(descriptor):
        calls.append(None)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(dynse.atomic.os, "fsync", full_disk)
        with pytest.raises(OSError, match="cannot write"):
            run(run_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ARCHIVE]
    with np.load(tmp_path / ARCHIVE) as content:
        np.testing.assert_array_equal(content["genomes"], whole.genomes[:2])
    assert_equal(whole, run(run_dir=tmp_path))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b'{"a": 1}'])
def test_what_is_no_archive_is_refused_by_name(tmp_path, content):
    (tmp_path / ARCHIVE).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{ARCHIVE} is no archive"):
        run(run_dir=tmp_path)


def test_an_archive_cut_short_is_refused(tmp_path):
    run(generations=1, run_dir=tmp_path)
    data = (tmp_path / ARCHIVE).read_bytes()
    (tmp_path / ARCHIVE).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="is no archive"):
        run(run_dir=tmp_path)


def test_a_given_reference_is_kept_and_failures_are_worst():
    def failing(genomes):
        values = evaluate(genomes)
        values[np.asarray(genomes)[:, 0] % 2 == 0] = np.nan
        return values

    result = run(function=failing, reference=np.array([1.0, 200.0]))
    assert result.reference.tolist() == [1.0, 200.0]
    assert (result.front_genomes[:, 0] % 2 == 1).all()
    assert np.isfinite(result.front_objectives).all()
    assert (result.state.population[:, 0] % 2 == 1).mean() > 0.9


def test_a_search_in_which_everything_fails_says_so():
    with pytest.raises(ValueError, match="no genome of the first population"):
        run(function=lambda genomes: np.full((10, 2), np.nan))


def test_objectives_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"objectives of shape \(10, 2\), got \(10, 3\)"):
        run(function=lambda genomes: np.zeros((10, 3)))
    with pytest.raises(ValueError, match="generations"):
        run(generations=0)
    with pytest.raises(ValueError, match="2 or 3 objectives, got 4"):
        run(NSGA2((2,) * 5, (8,) * 5, objectives=4), function=stopping_at(0))


def test_progress_shows_generation_hypervolume_and_speed():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120, color_system=None)
    result = search(
        ALGORITHM, evaluate, generations=3, key=jax.random.key(0), console=console, title="bits"
    )
    shown = text.getvalue()
    assert "bits" in shown
    assert "3/3" in shown
    assert f"hypervolume {result.hypervolume[-1]:.6g}" in shown
    assert "genomes/s" in shown
