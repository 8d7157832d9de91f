"""Pruned units removed: a chain of dense and recurrent layers gets narrower, its output stays.

A unit none of whose weights into it is left is a constant, phi(b): it goes into the next layer's
bias, b' <- b' + phi(b) W'[unit], and the unit goes. A unit none of whose weights out of it is left
says nothing to anyone, and goes as well. Removing the first kind can leave the next layer's units
without weights into them, removing the second kind the layer before without weights out: so the
first is done from front to back, the second from back to front.

Exact, but for rounding, for dense layers with elementwise activations, LSTMs and GRUs one after the
other. A recurrent unit also hears itself and its layer: it goes if neither the next layer nor a
unit that stays hears it. It is never a constant, since its biases alone move it. What has skip
connections, convolutions or normalisation between the layers is left to the masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynse.pruning.groups import named_tensors, set_tensors

DENSE = frozenset({"kernel", "bias"})
RECURRENT = frozenset({"input_kernel", "hidden_kernel", "input_bias", "hidden_bias"})

Chain = Sequence[tuple[str, Callable[[jax.Array], jax.Array] | None]]


class Shrunk(NamedTuple):
    """A narrower chain.

    Attributes:
        params: the parameters; those outside the chain as they were.
        units: path to the indices of the layer's units that are left.
    """

    params: Any
    units: dict[str, np.ndarray]


def shrink(params: Any, chain: Chain) -> Shrunk:
    """Remove what pruning has left without a purpose. Every layer keeps at least one unit.

    Args:
        params: pytree of arrays.
        chain: path and activation of each layer, from input to output, each reading the one before
            alone. Dense: `kernel` (in, out) and, where there is one, `bias`; the activation is
            elementwise, None for none. Recurrent: the parameters of `dynse.layers.lstm` or `gru`,
            the activation None. Input and output of the chain stay as wide as they are.

    Raises:
        ValueError: where a layer is neither dense nor recurrent, or does not fit the one before.
    """
    paths = [path for path, _ in chain]
    layers = [_layer(params, path) for path in paths]
    units = [np.arange(_width(layer)) for layer in layers]
    for index in range(1, len(layers)):
        if len(_from_input(layers[index])) != len(units[index - 1]):
            raise ValueError(
                f"expected {paths[index]} to read the {len(units[index - 1])} units of "
                f"{paths[index - 1]}, it reads {len(_from_input(layers[index]))}"
            )

    def keep(index, kept):
        if not kept.any():
            kept = np.arange(len(kept)) == 0
        layers[index] = _with_units(layers[index], kept)
        layers[index + 1] = _with_inputs(layers[index + 1], kept)
        units[index] = units[index][kept]

    for index, (_, activation) in enumerate(chain[:-1]):
        if "hidden_kernel" not in layers[index]:
            constant = _fold_constants(layers[index], layers[index + 1], activation)
            keep(index, ~constant)
    for index in reversed(range(len(layers) - 1)):
        keep(index, _heard(layers[index], layers[index + 1]))

    tensors = {
        f"{path}/{name}": jnp.asarray(tensor)
        for path, layer in zip(paths, layers, strict=True)
        for name, tensor in layer.items()
    }
    return Shrunk(set_tensors(params, tensors), dict(zip(paths, units, strict=True)))


def _layer(params, path):
    """Name to tensor of one layer."""
    prefix = f"{path}/"
    layer = {
        name.removeprefix(prefix): np.asarray(tensor)
        for name, tensor in named_tensors(params).items()
        if name.startswith(prefix)
    }
    dense = "kernel" in layer and layer.keys() <= DENSE
    recurrent = {"input_kernel", "hidden_kernel", "input_bias"} <= layer.keys() <= RECURRENT
    if not (dense or recurrent):
        raise ValueError(
            f"expected a dense layer ({', '.join(sorted(DENSE))}) or a recurrent one "
            f"({', '.join(sorted(RECURRENT))}) at {path!r}, got {', '.join(layer) or 'nothing'}"
        )
    return layer


def _width(layer):
    return layer["kernel"].shape[1] if "kernel" in layer else len(layer["hidden_kernel"])


def _from_input(layer):
    return layer["kernel"] if "kernel" in layer else layer["input_kernel"]


def _with_inputs(layer, kept):
    name = "kernel" if "kernel" in layer else "input_kernel"
    return {**layer, name: layer[name][kept]}


def _with_units(layer, kept):
    """Of every gate (a dense layer has one) the columns of the units kept."""
    width = len(kept)
    layer = {
        name: tensor.reshape(*tensor.shape[:-1], -1, width)[..., kept].reshape(
            *tensor.shape[:-1], -1
        )
        for name, tensor in layer.items()
    }
    if "hidden_kernel" in layer:
        layer["hidden_kernel"] = layer["hidden_kernel"][kept]
    return layer


def _fold_constants(layer, following, activation):
    """(units,) bool, the constants; the following layer's bias takes them up, in place."""
    constant = ~layer["kernel"].any(0)
    if constant.all():
        constant[0] = False  # stays as the layer's one unit
    value = jnp.asarray(layer.get("bias", np.zeros(len(constant), np.float32)))
    value = np.asarray(value if activation is None else activation(value))
    bias = "bias" if "kernel" in following else "input_bias"
    if bias not in following:
        return constant & (value == 0)
    added = value[constant].astype(np.float64) @ _from_input(following)[constant]
    following[bias] = (following[bias] + added).astype(following[bias].dtype)
    return constant


def _heard(layer, following):
    """(units,) bool: those that the next layer hears, or a unit of their own layer that is."""
    heard = _from_input(following).any(1)
    if "hidden_kernel" not in layer:
        return heard
    width = len(heard)
    hears = layer["hidden_kernel"].reshape(width, -1, width).any(1)
    while True:
        more = heard | hears[:, heard].any(1)
        if (more == heard).all():
            return heard
        heard = more
