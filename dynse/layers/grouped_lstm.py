"""LSTM in groups: the channels are split, and each part has an LSTM of its own.

    y = join(lstm_0(x_0), lstm_1(x_1), ...)

With G groups, weights and MACs fall to a G-th. Nothing passes between the groups, so a layer may
hand its outputs on interleaved (channel i of every group side by side): each group of the next
layer then hears all of this one's (Gao et al., "Efficient sequence learning with group recurrent
networks", NAACL 2018).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.layers.cost import LayerCost
from dynse.layers.lstm import LSTM, State, lstm_cost


class GroupedLSTM(nn.Module):
    """LSTMs named `group0`, `group1`, ..., each on its part of the channels.

    Attributes:
        features: H of all groups together.
        groups: G.
        interleave: join the outputs channel by channel; else one group behind the other.
    """

    features: int
    groups: int
    interleave: bool = False

    def setup(self) -> None:
        width = _part(self.features, self.groups)
        self.lstms = [LSTM(width, name=f"group{index}") for index in range(self.groups)]

    def __call__(
        self, state: tuple[State, ...], x: jax.Array
    ) -> tuple[tuple[State, ...], jax.Array]:
        """State, (h, c) of each group, and x (B, T, D) -> next state and y (B, T, H).

        Raises:
            ValueError: where the groups do not divide D.
        """
        _part(x.shape[-1], self.groups)
        parts = jnp.split(x, self.groups, axis=-1)
        results = [
            lstm(one, part) for lstm, one, part in zip(self.lstms, state, parts, strict=True)
        ]
        states, outputs = zip(*results, strict=True)
        if self.interleave:
            return states, jnp.stack(outputs, axis=-1).reshape(*x.shape[:2], self.features)
        return states, jnp.concatenate(outputs, axis=-1)

    @nn.nowrap
    def init_state(self, batch_size: int) -> tuple[State, ...]:
        """Zeros: (h, c) of each group, each (B, H / G)."""
        lstm = LSTM(_part(self.features, self.groups), parent=None)
        return (lstm.init_state(batch_size),) * self.groups


def grouped_lstm_costs(path: str, in_features: int, features: int, groups: int) -> list[LayerCost]:
    """Cost per frame of each group's LSTM."""
    parts = _part(in_features, groups), _part(features, groups)
    return [lstm_cost(f"{path}/group{index}", *parts) for index in range(groups)]


def _part(features: int, groups: int) -> int:
    if features % groups:
        raise ValueError(f"expected features that {groups} groups divide, got {features}")
    return features // groups
