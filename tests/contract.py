"""What every causal network promises, as one function: `check_causal_network`.

A network has `init_state(batch_size)`, `step(variables, state, frames) -> (state, output, aux)`
with frames (B, T, ...) and outputs (B, T, ...), `apply(variables, frames)` over a whole signal,
`latency_frames` and `receptive_field_frames`. A gated one lists its decisions in `aux.gates` and
`aux.scores` and takes `apply(variables, frames, state, gates=...)` to replay decisions.

    output t depends on the inputs t - receptive_field_frames ... t - latency_frames

and on no other: both ends are measured. `receptive_field_frames` is None where a network never
forgets (a recurrent one). The promises, each a function that can be called alone:

- `check_state`: the state's shapes and dtypes are those of `init_state` after any block;
- `check_one_trace`: repeated calls of one shape compile once;
- `check_jit`: with jit and without are equal;
- `check_batch_rows`: NaN and garbage in other rows of the batch leave a row bit-identical;
- `check_future`: a perturbed future leaves the past bit-identical;
- `check_reach`: the declared latency and receptive field are the measured ones;
- `check_blocks`: any split into blocks equals the whole to 1e-5, values and gradients.

Where two roundings meet, a decision whose score is all but 0 may fall either way, and one that
does changes all that follows. So gated networks are compared to 1e-5 with the gates replayed, and
running free by `check_decisions`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynse.audio.sdr import si_sdr

TOLERANCE = 1e-5
DIFFERENT_DECISIONS = 1e-4
BORDERLINE = 1e-4  # of the scores' RMS
AGREEMENT_DB = 50.0
# Programs that run once: half the time to compile.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class _Run(NamedTuple):
    """What a network gave for all frames."""

    state: Any
    output: Any
    aux: Any
    gradients: Any = None


def check_causal_network(network, variables, frames, *, through_gates=None) -> None:
    """Fail where the network breaks a promise of this module.

    Args:
        network: see the module's docstring; hashable.
        variables: {"params": ..., further collections}, not at their initial zeros and ones
            (`random_like`).
        frames: (B, T, ...) inputs, B >= 2, T > receptive_field_frames + 1, nowhere 0.
        through_gates: for a gated network whose gates stop the gradient, the same network with
            gates that pass it (by a surrogate that is nowhere 0): the receptive field is measured
            through it.

    Raises:
        AssertionError: naming the promise.
        ValueError: where the inputs cannot show what is to be shown.
    """
    frames = np.asarray(frames)
    check_state(network, variables, frames)
    check_one_trace(network, variables, frames)
    check_jit(network, variables, frames)
    check_batch_rows(network, variables, frames)
    check_future(network, variables, frames)
    check_reach(network, variables, frames, through_gates=through_gates)
    check_blocks(network, variables, frames)


def random_like(shapes, seed):
    """Variables of these shapes at which nothing is 0, 1 or dead.

    Args:
        shapes: tree of arrays or of `jax.eval_shape(network.init, ...)`; leaves called "var" are
            drawn from 0.5 to 2, kernels with a variance of 1 / fan-in, others around 0.
        seed: of the draws.
    """
    draw = np.random.default_rng(seed)

    def leaf_of(path, shape):
        if path[-1].key == "var":
            return draw.uniform(0.5, 2, shape.shape).astype(np.float32)
        spread = np.prod(shape.shape[:-1]) ** -0.5 if len(shape.shape) >= 2 else 0.5
        value = draw.normal(0, spread, shape.shape)
        return (value + (path[-1].key == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf_of, shapes)


def check_state(network, variables, frames) -> None:
    """Shapes and dtypes of the state are those of `init_state`, after blocks of any size."""
    initial = jax.eval_shape(lambda: network.init_state(frames.shape[0]))
    state = initial
    for size in (1, 2, 5, 1):
        state, output, _ = jax.eval_shape(network.step, variables, state, frames[:, :size])
        assert jax.tree.structure(state) == jax.tree.structure(initial), "the state's structure"
        for after, before in zip(jax.tree.leaves(state), jax.tree.leaves(initial), strict=True):
            assert (after.shape, after.dtype) == (before.shape, before.dtype), (
                f"the state went from {before} to {after} in a block of {size}"
            )
        for leaf in jax.tree.leaves(output):
            assert leaf.shape[:2] == (frames.shape[0], size), f"output {leaf} of {size} frames"


def check_one_trace(network, variables, frames) -> None:
    """Three calls of one shape, each from the state of the one before, trace once."""
    traces = 0

    def count(variables, state, frames):
        nonlocal traces
        traces += 1
        return network.step(variables, state, frames)

    step = jax.jit(count)
    state = network.init_state(frames.shape[0])
    for index in range(3):
        state, _, _ = step(variables, state, frames[:, index : index + 1])
    assert traces == 1, f"{traces} traces for three calls of one shape"


def check_jit(network, variables, frames, *, length=3) -> None:
    """The first frames without jit equal those of the whole with it."""
    whole = _whole(network, variables, frames)
    state = network.init_state(frames.shape[0])
    with jax.disable_jit():
        _, output, aux = network.step(variables, state, frames[:, :length])
    expected = _pick(whole.output, np.s_[:, :length])
    gates = _pick(_gates(whole.aux), np.s_[:, :length])
    if gates and not check_decisions(
        (output, aux.gates, aux.scores),
        (expected, gates, _pick(whole.aux.scores, np.s_[:, :length])),
    ):
        with jax.disable_jit():
            output = _step(network, variables, state, frames[:, :length], gates)[1]
    _assert_close("without jit", output, expected)


def check_batch_rows(network, variables, frames) -> None:
    """What stands in the other rows, NaN or garbage, does not change a row by one bit."""
    if frames.shape[0] < 2:
        raise ValueError(f"expected a batch of at least 2, got {frames.shape}")
    whole = _whole(network, variables, frames)
    for garbage in (jnp.nan, 1e4):
        for row in (0, frames.shape[0] - 1):
            others = np.full_like(frames, garbage)
            others[row] = frames[row]
            result = _whole(network, variables, others)
            _assert_same(
                f"row {row} beside rows of {garbage}",
                _pick(result, np.s_[row]),
                _pick(whole, np.s_[row]),
            )


def check_future(network, variables, frames) -> None:
    """Frames after t, changed or NaN, leave the output up to t bit-identical."""
    whole = _whole(network, variables, frames)
    for now in (0, frames.shape[1] // 2, frames.shape[1] - 2):
        for changed in _changed(frames, slice(now + 1, None)):
            result = _whole(network, variables, changed)
            _assert_same(
                f"frames up to {now} with another future",
                _pick((result.output, result.aux), np.s_[:, : now + 1]),
                _pick((whole.output, whole.aux), np.s_[:, : now + 1]),
            )


def check_reach(network, variables, frames, *, through_gates=None) -> None:
    """The first and the last input that an output depends on are the declared ones.

    That no other input has any influence is shown by changing those: bit-identical. That these
    two have some is shown by the gradient of an output into the inputs, which, other than a
    change of the input, gets past a gate that does not happen to flip. A field that is measured
    too short can also mean that every path to its end is dead (ReLUs): take more rows or channels.
    """
    length, field = frames.shape[1], network.receptive_field_frames
    if field is not None and length < field + 2:
        raise ValueError(f"a receptive field of {field} needs {field + 2} frames, got {length}")
    last = length - 1
    whole = _whole(network, variables, frames)

    beyond = [] if field is None else [slice(0, last - field)]
    beyond += [slice(length - network.latency_frames, length)] if network.latency_frames else []
    for span in beyond:
        for changed in _changed(frames, span):
            result = _whole(network, variables, changed)
            _assert_same(
                f"the last output with other frames {span}: outside the declared reach",
                _pick(result.output, np.s_[:, -1]),
                _pick(whole.output, np.s_[:, -1]),
            )

    probe = network if through_gates is None else through_gates
    at_last, no_scores = jax.tree.map(np.zeros_like, _weights(whole))
    for leaf in jax.tree.leaves(at_last):
        leaf[:, -1] = _normal(leaf)[:, -1]
    result = _differentiate(probe, None, variables, frames, (at_last, no_scores), None)
    _assert_close("the network that passes gradients", result.output, whole.output)
    rest = tuple(axis for axis in range(frames.ndim) if axis != 1)
    influence = np.abs(np.asarray(result.gradients[1])).max(rest)
    assert np.isfinite(influence).all(), "a gradient that is not finite"
    reached = np.flatnonzero(influence)
    assert len(reached), "the last output depends on no input"
    latency, back = last - reached[-1], last - reached[0]
    assert latency == network.latency_frames, (
        f"measured a latency of {latency} frames, declared {network.latency_frames}"
    )
    expected = last if field is None else field
    assert back == expected, f"measured a receptive field of {back} frames, declared {field}"


def check_blocks(network, variables, frames) -> None:
    """Frame by frame, and in blocks of several sizes, equals the whole: values and gradients."""
    whole = _whole(network, variables, frames)
    weights = _weights(whole)
    _assert_close("`apply` against `step`", _apply(network, variables, frames), whole.output)
    gates = _gates(whole.aux) or None
    if gates is None:
        _check_splits("", network, variables, frames, weights, None, (1, _uneven(frames.shape[1])))
        return
    decisions = np.concatenate([np.asarray(gate).ravel() for gate in gates])
    if decisions.min() == decisions.max():
        raise ValueError("every decision is the same: give parameters that gate")
    assert np.isin(decisions, (0, 1)).all(), "gates other than 0 and 1"
    free = _differentiate(network, 1, variables, frames, weights, None)
    splits = [_uneven(frames.shape[1])]
    if check_decisions(
        (free.output, free.aux.gates, free.aux.scores),
        (whole.output, whole.aux.gates, whole.aux.scores),
    ):
        # With the same decisions, what the surrogates pass back is the same as well.
        _check_splits("free gates, ", network, variables, frames, weights, None, (1,))
    else:
        splits.append(1)
    replayed = _check_splits("replayed, ", network, variables, frames, weights, gates, splits)
    _assert_close("its own gates replayed", replayed.output, whole.output)


def _check_splits(what, network, variables, frames, weights, gates, splits):
    expected = _differentiate(network, None, variables, frames, weights, gates)
    for sizes in splits:
        result = _differentiate(network, sizes, variables, frames, weights, gates)
        blocks = what + ("frame by frame" if sizes == 1 else f"blocks of {sizes}")
        _assert_close(f"output, {blocks}", result.output, expected.output)
        _assert_close(f"scores, {blocks}", _scores(result.aux), _scores(expected.aux))
        _assert_close(f"last state, {blocks}", result.state, expected.state)
        _assert_close_gradients(f"gradients, {blocks}", result.gradients, expected.gradients)
    return expected


def check_decisions(actual, expected) -> bool:
    """Two runs of a gated network, each free to decide, agree as two roundings of one can.

    At least 99.99 % of the decisions are equal; where the two part for the first time (no
    difference in an earlier frame of that row, nor in an earlier block of that frame), the score
    is below 1e-4 of its block's RMS; the outputs agree to 50 dB SI-SDR.

    Args:
        actual: (output, gates, scores), gates and scores tuples over blocks of (B, T, C).
        expected: the same of the other run.

    Returns:
        Whether all decisions are equal.
    """
    output, gates, _ = jax.tree.map(np.asarray, actual)
    expected_output, expected_gates, scores = jax.tree.map(np.asarray, expected)
    different = [g != e for g, e in zip(gates, expected_gates, strict=True)]
    count = sum(d.sum() for d in different)
    total = sum(d.size for d in different)
    assert count <= DIFFERENT_DECISIONS * total, f"{count} of {total} decisions differ"

    where = np.stack([d.any(-1) for d in different], axis=-1)  # (B, T, blocks)
    before = np.cumsum(where.reshape(len(where), -1), axis=1).reshape(where.shape) - where
    for block, (differs, score) in enumerate(zip(different, scores, strict=True)):
        first = differs & (where & (before == 0))[..., block, None]
        limit = BORDERLINE * np.sqrt(np.mean(np.square(score)))
        worst = np.abs(score[first]).max(initial=0)
        assert worst < limit, f"block {block}: a first difference at |score| {worst}, not {limit}"

    for leaf, other in zip(jax.tree.leaves(output), jax.tree.leaves(expected_output), strict=True):
        rows = [np.asarray(a, np.float64).reshape(len(a), -1) for a in (leaf, other)]
        agreement = si_sdr(*rows)
        assert (agreement >= AGREEMENT_DB).all(), f"outputs agree to {agreement} dB only"
    return bool(count == 0)


def _run(network, sizes, variables, frames, gates):
    """The network over all frames: whole (None), frame by frame (1), or in blocks of `sizes`."""
    state = network.init_state(frames.shape[0])
    if sizes is None:
        return _Run(*_step(network, variables, state, frames, gates))
    if sizes == 1:

        def one(state, inputs):
            state, *rest = _step(network, variables, state, *_with_time(inputs))
            return state, jax.tree.map(lambda leaf: leaf[:, 0], rest)

        by_time = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), (frames, gates))
        state, rest = jax.lax.scan(one, state, by_time)
        return _Run(state, *jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), rest))
    parts, start = [], 0
    for size in sizes:
        end = start + size
        block = jax.tree.map(lambda leaf: leaf[:, start:end], (frames, gates))  # noqa: B023
        state, *rest = _step(network, variables, state, *block)
        parts.append(rest)
        start = end
    return _Run(state, *jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *parts))


def _step(network, variables, state, frames, gates):
    if gates is None:
        return network.step(variables, state, frames)
    return network.apply(variables, frames, state, gates=gates)


@functools.partial(jax.jit, static_argnums=0)
def _whole(network, variables, frames):
    return _run(network, None, variables, frames, None)


@functools.partial(jax.jit, static_argnums=0)
def _apply(network, variables, frames):
    return network.apply(variables, frames)[1]


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def _differentiate(network, sizes, variables, frames, weights, gates):
    """A run, and the gradients of its weighted outputs and scores by (params, frames)."""

    def objective(params, frames):
        run = _run(network, sizes, {**variables, "params": params}, frames, gates)
        terms = jax.tree.map(
            lambda weight, leaf: (weight * leaf).sum(), weights, (run.output, _scores(run.aux))
        )
        return sum(jax.tree.leaves(terms)), run

    gradients, run = jax.grad(objective, argnums=(0, 1), has_aux=True)(variables["params"], frames)
    return run._replace(gradients=gradients)


def _weights(run):
    return jax.tree.map(_normal, (run.output, _scores(run.aux)))


def _gates(aux):
    return getattr(aux, "gates", ())


def _scores(aux):
    return getattr(aux, "scores", ())


def _pick(tree, index):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], tree)


def _with_time(tree):
    return jax.tree.map(lambda leaf: leaf[:, None], tree)


def _uneven(length):
    return (3, length - 3)


def _normal(leaf):
    return np.random.default_rng(leaf.size).standard_normal(leaf.shape).astype(leaf.dtype)


def _changed(frames, span):
    """The frames with those of a span, every value, multiplied (they stay positive), and NaN."""
    for change in (np.exp(2 * _normal(frames[:, span])), np.nan):
        changed = np.array(frames)
        changed[:, span] *= change
        yield changed


def _assert_same(what, actual, expected):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(e), err_msg=what)


def _assert_close(what, actual, expected, *, floor=1.0):
    """Within 1e-5 of each array's largest value, or of `floor` where that is larger."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected), what
    pairs = zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(actual), strict=True)
    for (path, e), a in pairs:
        a, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
        limit = TOLERANCE * max(floor, np.abs(e).max(initial=0))
        error = np.abs(a - e).max(initial=0)
        where = what + jax.tree_util.keystr(path)
        assert error <= limit, f"{where}: off by {error}, {limit} allowed"


def _assert_close_gradients(what, actual, expected):
    """As above; an array whose terms cancel is measured by a hundredth of the largest gradient."""
    largest = max(float(np.abs(leaf).max(initial=0)) for leaf in jax.tree.leaves(expected))
    _assert_close(what, actual, expected, floor=0.01 * largest)
