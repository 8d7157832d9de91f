import pickle

import jax
import jax.numpy as jnp
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
    PruningState,
    StopRule,
    analyze_sensitivity,
    lambda_factor,
    make_sweep,
    named_tensors,
    prune,
    start_pruning,
    unstructured,
)

PARAMS = make_params()
BATCHES = make_batches(PARAMS)
KINDS = {"structured": GROUPS, "unstructured": unstructured(GROUPS)}
ALPHA = 0.02
# As long as the iterations last, nothing else stops.
ENDLESS = StopRule(iterations=3, least_pruned=0.0, largest_drop={})


def descend(params, masks, iteration):
    """On the first batch; masks by path, or a pytree."""
    masks = masks if "fc1/kernel" in masks else named_tensors(masks)
    return masked_descent(params, masks, iteration, BATCHES[0])


def score(params):
    return {"fit": -validation_loss(wide(params), BATCHES)}


@pytest.fixture(scope="module")
def sweep():
    return make_sweep(mean_square)


def run(sweep, state, groups, *, finetune=descend, rule=ENDLESS, alpha=ALPHA, score=score):
    return prune(
        state,
        groups,
        analyze=lambda params: analyze_sensitivity(sweep, params, groups, BATCHES, alpha=alpha),
        finetune=finetune,
        score=score,
        rule=rule,
    )


def assert_same(state, expected):
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_loop(sweep, kind):
    groups = KINDS[kind]
    history, expected = algorithm2(PARAMS, groups, BATCHES, ALPHA, descend, 3)
    states = list(run(sweep, start_pruning(PARAMS, groups, score), groups))
    assert [state.sensitivity.ratios for state in states] == history
    assert len({tuple(ratios.values()) for ratios in history}) == 3
    last = wide(states[-1].params)
    for path in groups:
        module, _ = path.split("/")
        np.testing.assert_array_equal(last[module]["kernel"] != 0, expected[module]["kernel"] != 0)
        np.testing.assert_allclose(last[module]["kernel"], expected[module]["kernel"], atol=1e-6)
        np.testing.assert_array_equal(
            np.asarray(states[-1].masks[module]["kernel"]), last[module]["kernel"] != 0
        )
        assert states[-1].masks[module]["bias"] is None
    counts = [sum(np.count_nonzero(PARAMS[path.split("/")[0]]["kernel"]) for path in groups)]
    for state in states:
        counts.append(sum(int(np.sum(mask)) for mask in named_tensors(state.masks).values()))
        assert state.pruned == pytest.approx(1 - counts[-1] / counts[-2])
    assert states[-1].scores == pytest.approx(score(expected), abs=1e-6)
    assert states[-1].first_scores == score(PARAMS)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_killed_and_resumed(sweep, after):
    """Saved after an iteration, as bytes and without its record, and gone on with from those."""
    start = start_pruning(PARAMS, GROUPS, score)
    whole = list(run(sweep, start, GROUPS))
    states = [start, *whole]
    saved = pickle.dumps(jax.tree.map(np.asarray, states[after]._replace(sensitivity=None)))
    resumed = list(run(sweep, pickle.loads(saved), GROUPS))
    assert [state.iteration for state in resumed] == list(range(after + 1, 4))
    for state, expected in zip(resumed, whole[after:], strict=True):
        assert_same(state, expected)
    # Finished is finished, unless more is asked for.
    assert list(run(sweep, whole[-1], GROUPS)) == []
    longer = StopRule(iterations=4, least_pruned=0.0, largest_drop={})
    assert [s.iteration for s in run(sweep, whole[-1], GROUPS, rule=longer)] == [4]


def test_it_stops_when_next_to_nothing_is_pruned(sweep):
    start = start_pruning(PARAMS, GROUPS, score)
    rule = StopRule(iterations=9, least_pruned=0.1, largest_drop={})
    states = list(run(sweep, start, GROUPS, rule=rule, finetune=lambda params, *_: params))
    assert 1 < len(states) < 9
    assert states[-1].pruned < 0.1 <= states[-2].pruned
    assert rule.reason(states[-1]) == "pruned"


def test_it_stops_when_a_score_drops(sweep):
    rule = StopRule(least_pruned=0.0, largest_drop={"stoi": 0.02})
    scores = iter([0.90, 0.885, 0.87, 0.0])

    def scripted(params):
        return {"stoi": next(scores), "pesq": 1.0}

    start = start_pruning(PARAMS, GROUPS, scripted)
    states = list(run(sweep, start, GROUPS, rule=rule, score=scripted))
    assert [state.scores["stoi"] for state in states] == [0.885, 0.87]
    assert [rule.reason(state) for state in states] == [None, "scores"]


def test_the_rule():
    def state(iteration=2, pruned=0.5, **scores):
        return PruningState(iteration, None, None, scores, {"stoi": 0.9, "pesq": 2.0}, pruned, None)

    rule = StopRule()
    assert rule.reason(state(stoi=0.89, pesq=1.95)) is None
    assert rule.reason(state(stoi=0.95, pesq=1.85)) == "scores"
    assert rule.reason(state(stoi=0.9, pesq=float("nan"))) == "scores"
    assert rule.reason(state(pruned=0.01, stoi=0.9, pesq=2.0)) == "pruned"
    assert rule.reason(state(iteration=0, pruned=0.0, stoi=0.9, pesq=2.0)) is None
    assert rule.reason(state(iteration=5, stoi=0.9, pesq=2.0)) == "iterations"
    with pytest.raises(ValueError, match="needs scores pesq, got stoi"):
        rule.reason(state(stoi=0.9))


def test_lambda_shrinks():
    assert lambda_factor(0) == 1
    assert lambda_factor(3) == pytest.approx(0.729)


def test_fine_tuning_that_forgets_the_masks_is_seen(sweep):
    def forgetful(params, masks, iteration):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf) + 0.001, params)

    with pytest.raises(ValueError, match=r"moved [0-9]+ pruned weights of conv/kernel"):
        next(run(sweep, start_pruning(PARAMS, GROUPS, score), GROUPS, finetune=forgetful))
