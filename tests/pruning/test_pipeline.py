"""Compression in a folder: the plain loops, and a folder that remembers where it stopped."""

import shutil

import jax
import numpy as np
import pytest
from pruning.reference import (
    GROUPS,
    algorithm2,
    make_batches,
    make_params,
    masked_descent,
    mean_square,
    validation_loss,
    wide,
)

from dynse.pruning import (
    StopRule,
    analyze_sensitivity,
    cluster,
    compress,
    load_packed,
    make_sweep,
    named_tensors,
    start_pruning,
)

PARAMS = make_params()
BATCHES = make_batches(PARAMS)
WHOLE = {f"params/{path}": axes for path, axes in GROUPS.items()}
STATISTICS = {"norm": {"mean": np.arange(100, dtype=np.float32)}}
VARIABLES = {"params": PARAMS, "batch_stats": STATISTICS}
ALPHA1, ALPHA2 = 0.02, 0.01
RULE = StopRule(iterations=2, least_pruned=0.0, largest_drop={})


def descend(params, masks, iteration):
    return masked_descent(params, masks, iteration, BATCHES[0])


def mean_loss(variables):
    return sum(mean_square(variables["params"], batch) for batch in BATCHES) / len(BATCHES)


@pytest.fixture(scope="module")
def sweep():
    return make_sweep(lambda variables, batch: mean_square(variables["params"], batch))


class Killed(Exception):
    pass


class Steps:
    """What `compress` is given; it counts its calls, and dies in the one it is told to."""

    def __init__(self, sweep, dies=None):
        self.sweep, self.dies, self.calls = sweep, dies, []

    def call(self, name):
        self.calls.append(name)
        if self.dies == (name, self.calls.count(name)):
            raise Killed

    def analyze(self, variables):
        self.call("analyze")
        return analyze_sensitivity(self.sweep, variables, WHOLE, BATCHES, alpha=ALPHA1)

    def finetune(self, variables, masks, iteration):
        self.call("finetune")
        own = named_tensors(masks["params"])
        return {**variables, "params": descend(variables["params"], own, iteration)}

    def score(self, variables):
        self.call("score")
        return {"fit": -validation_loss(wide(variables["params"]), BATCHES)}

    def cluster(self, variables):
        self.call("cluster")
        return cluster(mean_loss, variables, WHOLE, ALPHA2, max_clusters=64)

    def run(self, folder, rule=RULE):
        names = ("analyze", "finetune", "score", "cluster")
        functions = {name: getattr(self, name) for name in names}
        return list(
            compress(folder, VARIABLES, WHOLE, **functions, rule=rule, metadata={"net": "toy"})
        )


@pytest.fixture(scope="module")
def whole(sweep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, Steps(sweep).run(folder)


def assert_same(stages, expected):
    assert len(stages) == len(expected)
    for one, other in zip(stages, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.state.params, other.state.params)
        jax.tree.map(np.testing.assert_array_equal, one.clustered, other.clustered)
        assert one.state.scores == other.state.scores
        assert one.state.first_scores == other.state.first_scores
        assert one.state.pruned == other.state.pruned
        assert one.state.sensitivity == other.state.sensitivity
        assert (one.clusters, one.impacts) == (other.clusters, other.impacts)
        assert (one.sizes, one.clustered_sizes) == (other.sizes, other.clustered_sizes)


def test_the_plain_loops(whole):
    """Ratios and weights are those of NumPy's Algorithm 2; each net is clustered by itself."""
    history, expected = algorithm2(PARAMS, GROUPS, BATCHES, ALPHA1, descend, 2)
    stages = whole[1]
    assert [stage.state.iteration for stage in stages] == [0, 1, 2]
    for stage, ratios in zip(stages[1:], history, strict=True):
        assert stage.state.sensitivity.ratios == {f"params/{p}": r for p, r in ratios.items()}
    jax.tree.map(
        lambda own, other: np.testing.assert_allclose(own, other, atol=1e-5),
        stages[-1].state.params["params"],
        expected,
    )
    for stage in stages:
        for path in WHOLE:
            weights = named_tensors(stage.clustered)[path]
            assert len(np.unique(weights[weights != 0])) <= stage.clusters[path]
            zeros = named_tensors(stage.state.params)[path] == 0
            np.testing.assert_array_equal(weights == 0, zeros)
    assert stages[0].state.first_scores == stages[2].state.first_scores == stages[0].state.scores


def test_files_are_the_nets_and_sizes_those_of_the_parameters(whole):
    _, stages = whole
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(PARAMS))
    for stage in stages:
        loaded, metadata = load_packed(stage.path)
        jax.tree.map(np.testing.assert_array_equal, loaded, stage.clustered)
        assert metadata == {"net": "toy"}
        np.testing.assert_array_equal(loaded["batch_stats"]["norm"]["mean"], np.arange(100))
        assert stage.clustered_sizes.dense == 4 * count
        assert stage.clustered_sizes.file == stage.path.stat().st_size
        assert stage.clustered_sizes.published < stage.sizes.published
    assert stages[0].sizes.published == 4 * count  # without the 100 statistics
    assert stages[2].clustered_sizes.published < stages[0].clustered_sizes.published


DEATHS = [("score", 1), ("cluster", 1), ("analyze", 1), ("finetune", 2), ("cluster", 3)]


@pytest.mark.parametrize("dies", DEATHS, ids=lambda dies: f"{dies[0]}-{dies[1]}")
def test_killed_and_started_again(whole, sweep, tmp_path, dies):
    """It ends with the nets of a run never stopped, and does nothing twice but what was cut."""
    killed = Steps(sweep, dies)
    with pytest.raises(Killed):
        killed.run(tmp_path)
    again = Steps(sweep)
    assert_same(again.run(tmp_path), whole[1])
    once = {"analyze": 2, "finetune": 2, "score": 3, "cluster": 3}
    for name, count in once.items():
        cut = killed.calls.count(name) + again.calls.count(name) - count
        assert cut == (name == dies[0]), (name, killed.calls, again.calls)


def test_a_finished_folder_is_read(whole, sweep):
    folder, stages = whole
    idle = Steps(sweep)
    assert_same(idle.run(folder), stages)
    assert idle.calls == []


def test_an_iteration_without_its_last_file_is_done_again(whole, sweep, tmp_path):
    """A half-written step counts as none: its JSON file comes last."""
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    (folder / "iteration-2" / "pruned.json").unlink()
    (folder / "iteration-2" / "pruned.packed").write_bytes(b"half")
    (folder / "iteration-2" / "clustered.json").unlink()
    steps = Steps(sweep)
    assert_same(steps.run(folder), whole[1])
    # The analysis was done, and is not again.
    assert steps.calls == ["finetune", "score", "cluster"]


def test_a_damaged_net_is_named(whole, sweep, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    path = folder / "iteration-1" / "pruned.packed"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"iteration-1.pruned\.packed"):
        Steps(sweep).run(folder)


def test_the_rule_stops(whole, sweep, tmp_path):
    """No iteration: clustered alone. And scores are compared with those that are given."""
    assert len(Steps(sweep).run(tmp_path / "none", StopRule(0, 0.0, {}))) == 1
    steps = Steps(sweep)
    state = start_pruning(VARIABLES, WHOLE, steps.score)
    rule = StopRule(iterations=2, least_pruned=0.0, largest_drop={"fit": 0.1})
    functions = {name: getattr(steps, name) for name in ("analyze", "finetune", "score", "cluster")}
    better = dict(VARIABLES)
    fit = functions["score"]
    functions["score"] = lambda one: {"fit": state.scores["fit"] + 1} if one is better else fit(one)
    stages = list(
        compress(tmp_path / "drop", VARIABLES, WHOLE, **functions, rule=rule, before=better)
    )
    assert len(stages) == 1
    assert rule.reason(stages[0].state) == "scores"


def test_paths_outside_of_the_parameters_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"below 'params/', got fc1/kernel"):
        next(
            compress(
                tmp_path,
                VARIABLES,
                {"fc1/kernel": (1,)},
                analyze=None,
                finetune=None,
                score=None,
                cluster=None,
                rule=RULE,
            )
        )
