"""What compression asks of a run: its loss on a fixed validation set, and a shorter run after it.

    L(V) = mean over the fixed validation batches of the loss that the run itself is trained by

(Tan and Wang, IEEE/ACM TASLP 29, 2021.) Static pruning takes functions and never trains or scores
by itself; these are they. Masks and regulariser enter a run as what is put `around` its optimiser.

The published limits on the increase of L(V) are absolute, so they depend on the level of the
signals and on the net. Ours are shares of the loss of the net before compression.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dynse.data.bank import Corpus
from dynse.data.mixing import Batch, Crops, mix_crops
from dynse.training.loop import LoopConfig
from dynse.training.runs import RunConfig, run_loss, validation_crops
from dynse.training.step import AMSGradConfig, batch_loss, validation_key


def validation_batches(config: RunConfig, corpus: Corpus) -> list[Batch]:
    """The batches that every validation of the run scores, on the device."""

    @jax.jit
    def batch(speech: Crops, noise: Crops, index: jax.Array) -> Batch:
        return mix_crops(
            speech, noise, validation_key(index, seed=config.seed), config.valid_mixing
        )

    crops = validation_crops(config, corpus)
    return [batch(*crops(index), index) for index in range(config.valid_batches)]


def validation_loss(config: RunConfig) -> Callable[[Any, Batch], jax.Array]:
    """`(variables, batch) -> ()`: the loss that the run is trained by, at inference."""
    model, loss = config.net.build(config.stft.bins), run_loss(config)
    return lambda variables, batch: batch_loss(model, variables, batch, config.stft, loss)


def mean_loss(
    loss: Callable[[Any, Batch], jax.Array], batches: Sequence[Batch]
) -> Callable[[Any], jax.Array]:
    """`variables -> ()`: the mean over the batches, one after the other, in one program.

    Args:
        loss: from `validation_loss`.
        batches: of one shape.
    """
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
    # A loop and no sum over batches: what stands in the program as a constant is not computed
    # with while compiling.
    return lambda variables: jax.lax.map(functools.partial(loss, variables), stacked).mean()


def finetuning(config: RunConfig, steps: int, optimizer: AMSGradConfig) -> RunConfig:
    """The run that trains a net on after it was pruned.

    Its schedule starts anew, that of a gated net's budget too.

    Args:
        config: of the training before.
        steps: of the fine-tuning.
        optimizer: of the fine-tuning.
    """
    every = max(1, min(config.loop.validate_every, steps // 4))
    loop = LoopConfig(
        steps=steps,
        log_every=min(config.loop.log_every, steps),
        validate_every=every,
        checkpoint_every=every,
    )
    return dataclasses.replace(config, loop=loop, optimizer=optimizer)
