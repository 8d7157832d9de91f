"""The numbers that exit policies need, settled on data that no test sees.

    levels       costs in MMAC/s to be hit, every gate open: half way from each exit to the next
    changes      of the threshold, so that it costs as much on validation mixtures
    prices       of the oracle's MACs, so that it costs as much on training batches
    routers      learned on these batches, at prices at which they cost as much there

A cost falls as the number rises, so it is found by bisection of its logarithm; where a level is
out of reach, the nearest cost is taken (a threshold never ends at the first exit).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dynse.audio.features import magnitude
from dynse.data.bank import Corpus
from dynse.data.mixing import Crops, load_source, mix_crops
from dynse.data.testsets import TestSet
from dynse.evaluation.cost import FRAMES_PER_S
from dynse.evaluation.exit_policies import (
    decide_mixtures,
    exit_macs,
    frame_errors,
    policy_program,
)
from dynse.exits import (
    EarlyExit,
    ExitMacs,
    Threshold,
    init_router,
    oracle_exits,
    paid_errors,
    router_loss,
    router_scores,
)
from dynse.training.crops import CropDraw
from dynse.training.loop import write_json
from dynse.training.runs import RunConfig, variables_digest

HALVINGS = 10
# Where the numbers are looked for: mean changes of gains, and errors that the dearest exit's MACs
# must save.
CHANGES = (1e-4, 1.0)
PRICES = (1e-5, 10.0)
ROUTER_STEPS = 300
ROUTER_RATE = 0.05


@dataclasses.dataclass(frozen=True)
class ExitControls:
    """Controls of the policies, one of each for every level.

    Attributes:
        levels: MMAC/s.
        changes: of `Threshold`.
        prices: of the oracle, error per MAC.
        routers: parameters of `Router`.
    """

    levels: tuple[float, ...]
    changes: tuple[float, ...]
    prices: tuple[float, ...]
    routers: tuple[Mapping[str, Any], ...]


def exit_levels(model: Any) -> tuple[float, ...]:
    """Costs half way between each exit and the next, in MMAC/s."""
    costs = 1e-6 * FRAMES_PER_S * exit_macs(model).total
    return tuple(float(one + two) / 2 for one, two in itertools.pairwise(costs))


def settle_controls(
    path: pathlib.Path,
    model: Any,
    variables: Mapping[str, Any],
    config: RunConfig,
    corpus: Corpus,
    valid_set: TestSet,
    *,
    batches: int = 32,
) -> ExitControls:
    """Settle the controls of a trained net, or take those that an earlier start has left.

    Args:
        path: JSON file that keeps them.
        model: a network with at least three exits.
        variables: its variables.
        config: how it was trained: the router's batches are drawn alike.
        corpus: of the mixtures and batches.
        valid_set: mixtures of the validation split.
        batches: that the routers are trained on.
    """
    settled_for = {
        "net": variables_digest(variables),
        "valid_set": valid_set.sha256,
        "batches": batches,
    }
    if path.exists():
        found = json.loads(path.read_text())
        if found.get("settled_for") == settled_for:
            return _from_json(found)
    levels = exit_levels(model)
    threshold = EarlyExit(model, Threshold())
    threshold_macs = ExitMacs(threshold.exit_costs()).total
    program = policy_program(threshold, config.stft)

    def per_s(macs: Any) -> float:
        return 1e-6 * FRAMES_PER_S * float(np.mean(macs))

    def threshold_cost(change: float) -> float:
        own = {**variables, "exit_policy": {"change": jnp.float32(change)}}
        decided = decide_mixtures(program, own, corpus, valid_set, stft=config.stft)
        return per_s([threshold_macs[one.exit_index].mean() for one in decided])

    features, errors = _training_rows(model, variables, config, corpus, batches)
    macs = exit_macs(model).total

    def oracle_cost(price: float) -> float:
        return per_s(macs[np.asarray(oracle_exits(errors, macs, price / macs.max()))])

    def router(price: float) -> dict[str, jax.Array]:
        return fit_router(features, paid_errors(errors, macs, price / macs.max()))

    def router_cost(price: float) -> float:
        return per_s(macs[np.asarray(router_scores(router(price), features)).argmax(-1)])

    changes = tuple(_bisect(threshold_cost, level, CHANGES) for level in levels)
    prices = tuple(_bisect(oracle_cost, level, PRICES) / int(macs.max()) for level in levels)
    routers = tuple(router(_bisect(router_cost, level, PRICES)) for level in levels)
    plain = [{name: np.asarray(own).tolist() for name, own in one.items()} for one in routers]
    settled = {"levels": levels, "changes": changes, "prices": prices, "routers": plain}
    write_json(path, {"settled_for": settled_for, **settled})
    return _from_json(settled)


def fit_router(features: jax.Array, paid: jax.Array) -> dict[str, jax.Array]:
    """Parameters with which `Router` pays little.

    Args:
        features: outputs of the first stage (N, C).
        paid: by each exit (N, E).

    Returns:
        "kernel" (C, E) and "bias" (E,), for features as they come.
    """
    start = init_router(features.shape[1], paid.shape[1])
    return _fit(jnp.asarray(features), jnp.asarray(paid), start)


@jax.jit
def _fit(features: jax.Array, paid: jax.Array, start: Any) -> dict[str, jax.Array]:
    mean, std = features.mean(0), features.std(0) + 1e-3
    rows = (features - mean) / std
    # What any exit pays decides nothing; the rest is brought to about 1, as Adam wants it.
    paid = paid - paid.min(-1, keepdims=True)
    paid = paid / paid.std()
    optimizer = optax.adam(optax.cosine_decay_schedule(ROUTER_RATE, ROUTER_STEPS))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(router_loss)(params, rows, paid), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=ROUTER_STEPS)
    kernel = params["kernel"] / std[:, None]
    return {"kernel": kernel, "bias": params["bias"] - mean @ kernel}


def _training_rows(
    model: Any, variables: Any, config: RunConfig, corpus: Corpus, batches: int
) -> tuple[jax.Array, np.ndarray]:
    """Of the frames of training batches what the router sees (N, C) and the errors (N, E)."""
    speech, noise = load_source(corpus.speech["train"]), load_source(corpus.noise["train"])

    def key(index: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 4), index)

    @jax.jit
    def rows(speech: Crops, noise: Crops, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        batch = mix_crops(speech, noise, key(index), config.mixing)
        spectrum = config.stft.forward(batch.noisy)
        exits = model.apply(variables, magnitude(spectrum), method="all_exits")
        errors = frame_errors(exits.gains, spectrum, batch.clean, config.stft)
        return tuple(one.reshape(-1, one.shape[-1]) for one in (exits.features, errors))

    crops = CropDraw(speech, noise, key, config.mixing)
    found = [rows(*crops(index), index) for index in range(batches)]
    features, errors = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return features, errors


def _bisect(cost: Callable[[float], float], target: float, span: tuple[float, float]) -> float:
    """Where a falling cost passes a target, to a thousandth of the span's logarithm."""
    low, high = np.log(span)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if cost(float(np.exp(middle))) > target:
            low = middle
        else:
            high = middle
    return float(np.exp(high))


def _from_json(content: Mapping[str, Any]) -> ExitControls:
    routers = tuple(
        {name: jnp.asarray(own, jnp.float32) for name, own in one.items()}
        for one in content["routers"]
    )
    numbers = {name: tuple(content[name]) for name in ("levels", "changes", "prices")}
    return ExitControls(**numbers, routers=routers)
