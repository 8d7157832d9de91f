"""Small nets for the tests of this room: float parameters, inputs, and their integer forms."""

import functools

import jax
import numpy as np

from dynse.quantization import (
    DenseLayer,
    GRULayer,
    apply_fake,
    apply_integer,
    build,
    calibrate,
    genome_length,
)

LAYERS = (
    DenseLayer("fc1", "relu"),
    GRULayer("gru1"),
    DenseLayer("fc2", "sigmoid"),
    DenseLayer("out"),
)
INPUTS, HIDDEN, OUTPUTS = 5, 7, 3


def dense_params(draw, inputs, outputs, spread=1.0):
    return {
        "kernel": draw.normal(0, spread * inputs**-0.5, (inputs, outputs)).astype(np.float32),
        "bias": draw.normal(0, 0.2, outputs).astype(np.float32),
    }


def gru_params(draw, inputs, hidden, spread=1.0):
    def uniform(*shape):
        return draw.uniform(-spread, spread, shape).astype(np.float32) * hidden**-0.5

    return {
        "input_kernel": uniform(inputs, 3 * hidden),
        "hidden_kernel": uniform(hidden, 3 * hidden),
        "input_bias": uniform(3 * hidden),
        "hidden_bias": uniform(3 * hidden),
    }


def net_params(seed=0, spread=1.0):
    """Parameters of `LAYERS`."""
    draw = np.random.default_rng(seed)
    return {
        "fc1": dense_params(draw, INPUTS, HIDDEN, spread),
        "gru1": gru_params(draw, HIDDEN, HIDDEN, 2 * spread),
        "fc2": dense_params(draw, HIDDEN, HIDDEN, spread),
        "out": dense_params(draw, HIDDEN, OUTPUTS, spread),
    }


def signal(seed, rows, frames, inputs=INPUTS):
    """(rows, frames, inputs) float32, coloured noise: neighbouring frames are alike."""
    noise = np.random.default_rng(seed).normal(size=(rows, frames + 1, inputs))
    return (noise[:, 1:] + 0.7 * noise[:, :-1]).astype(np.float32)


@functools.cache
def small_net(method="minmax", weights="minmax"):
    """Float parameters and IntegerNet of `LAYERS`."""
    params = net_params()
    ranges = calibrate(LAYERS, params, [signal(1, 8, 40)], method=method)
    return params, build(LAYERS, params, ranges, weights=weights)


def random_genome(draw, layers=LAYERS):
    return draw.integers(2, 9, genome_length(layers)).astype(np.int32)


run_integer = jax.jit(apply_integer)
run_fake = jax.jit(apply_fake)
