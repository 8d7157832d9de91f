"""A run small enough for tests: a few thousand parameters, a quarter of a second of audio."""

import dataclasses

import numpy as np

from dynse.audio.stft import STFT
from dynse.data.bank import Bank, Corpus
from dynse.data.mixing import MixingConfig
from dynse.models.conv_fsenet import GateConfig
from dynse.training.gates import GateTraining
from dynse.training.loop import LoopConfig
from dynse.training.nets import ConvFSENetConfig
from dynse.training.runs import RunConfig
from dynse.training.step import OptimizerConfig

GATE = GateConfig(window=2, surrogate="sigmoid", normalize=True, detach=False, bias=0.0, hidden=4)


def bank(seed, groups=3, seconds=1.0):
    """Noise of a level that swells and fades, `seconds` a group."""
    draw = np.random.default_rng(seed)
    length = int(16000 * seconds)
    swell = 1000 + 2500 * np.abs(np.sin(np.arange(length) / 2000))
    samples = [(draw.normal(size=length) * swell).astype(np.int16) for _ in range(groups)]
    names = tuple(f"{index}" for index in range(groups))
    return Bank(np.concatenate(samples), np.arange(groups + 1) * length, names, names)


def corpus():
    """Speech and noise of two splits."""
    return Corpus(
        "small",
        "0" * 64,
        {"train": bank(0), "valid": bank(1)},
        {"train": bank(2), "valid": bank(3)},
    )


def run_config(steps=6, gated=True, every=2, **changes):
    """Six steps of a net with two blocks; validation and checkpoint after `every` of them."""
    net = ConvFSENetConfig(
        width=6,
        inner=8,
        stacks=1,
        blocks=2,
        gate=GATE if gated else None,
        gate_training=GateTraining(mutual_information=0.05) if gated else None,
    )
    config = RunConfig(
        net=net,
        stft=STFT(64, 64, 32),
        mixing=MixingConfig(batch_size=2, crop_s=0.25),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        loop=LoopConfig(steps=steps, log_every=1, validate_every=every, checkpoint_every=every),
        valid_batches=1,
        seed=3,
    )
    return dataclasses.replace(config, **changes)
