"""nsNet2 in integers: the features in float, all behind the input quantiser in integers.

    net = quantize_nsnet2(model, variables, magnitudes)             # every width from 2 to 8
    variables = {"net": net, "genome": homogeneous(LAYERS, 8), "batch_stats": ...}
    state, gain, aux = IntegerNsNet2(model).apply(variables, frames)

The genome has 38 genes: 17 for each GRU and one for each dense layer. It is traced, as the net is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from dynse.layers.cost import LayerCost
from dynse.models.network import Aux
from dynse.models.nsnet2 import NsNet2, floor_gain
from dynse.quantization import (
    DenseLayer,
    GRULayer,
    IntegerNet,
    apply_integer,
    build,
    calibrate,
    dequantize_output,
    init_state,
    quantize_input,
)

LAYERS = (
    DenseLayer("fc1", "relu"),
    GRULayer("gru1"),
    GRULayer("gru2"),
    DenseLayer("fc2", "relu"),
    DenseLayer("fc3", "relu"),
    DenseLayer("fc4", "sigmoid"),
)


def quantize_nsnet2(
    model: NsNet2,
    variables: Mapping[str, Any],
    batches: Iterable[jax.Array],
    *,
    method: str = "minmax",
    weights: str = "minmax",
) -> IntegerNet:
    """The integer form of a trained nsNet2.

    Args:
        model: the float network, with a ReLU after its first layer.
        variables: its parameters and statistics.
        batches: magnitudes (B, T, bins) to calibrate with.
        method: of the ranges of activations, see `dynse.quantization.calibrate`.
        weights: of the scales of weights, see `dynse.quantization.build`.

    Raises:
        ValueError: without the ReLU after the first layer.
    """
    if not model.first_relu:
        raise ValueError("expected an nsNet2 with a ReLU after its first layer")
    features = jax.jit(lambda frames: model.apply(variables, frames, method="log_features"))
    ranges = calibrate(LAYERS, variables["params"], map(features, batches), method=method)
    return build(LAYERS, variables["params"], ranges, weights=weights)


@dataclasses.dataclass(frozen=True)
class IntegerNsNet2:
    """Runs the integer net where a network that estimates a gain is expected.

    Attributes:
        model: the float network, for its features, gain floor and cost.
    """

    model: NsNet2

    def apply(
        self,
        variables: Mapping[str, Any],
        frames: jax.Array,
        state: tuple[Any, ...] | None = None,
    ) -> tuple[tuple[Any, ...], jax.Array, Aux]:
        """Gains of a block of frames.

        Args:
            variables: "net" from `quantize_nsnet2`, "genome" (38,) int32 and the float network's
                "batch_stats".
            frames: magnitudes (B, T, bins).
            state: what the last call returned; None starts anew.

        Returns:
            The next state, the gain (B, T, bins) and `Aux`, empty.
        """
        net, genome = variables["net"], variables["genome"]
        statistics = {"batch_stats": variables["batch_stats"]}
        x = self.model.apply(statistics, frames, method="log_features")
        if state is None:
            state = init_state(net, genome, frames.shape[0])
        state, q = apply_integer(net, genome, state, quantize_input(net, x))
        gain = floor_gain(dequantize_output(net, genome, q), self.model.gain_floor_db)
        return state, gain, Aux((), ())

    def cost(self) -> list[LayerCost]:
        """Costs of all layers, per frame."""
        return self.model.cost()
