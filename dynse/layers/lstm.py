"""Long short-term memory (Hochreiter and Schmidhuber, 1997; with a forget gate).

    i, f, o = sigmoid(W_k x + b_k + U_k h + c_k),   k = i, f, o
    g = tanh(W_g x + b_g + U_g h + c_g)
    c' = f c + i g,    h' = o tanh(c')

Gate order i, f, g, o. What the input adds to the gates is one matmul over the whole block; the
scan over frames does the rest. For long blocks its gradient is written by hand, as in
`dynse.layers.gru`. With e = dL/dh' and s = dL/dc' (through h' as well), t = tanh(c'),

    s = dL/dc' through the next frame + e o (1 - t^2)
    do = e t o (1 - o),   di = s g i (1 - i),   df = s c f (1 - f),   dg = s i (1 - g^2)

so the backward scan stores e and s alone, and U gets its gradient in matmuls over the
whole block after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.layers.cost import LayerCost

# Blocks from this length on take the hand-written gradient; what it gains, a short block lacks.
LONG_BLOCK = 16

State = tuple[jax.Array, jax.Array]
Gates = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
Residuals = tuple[jax.Array, State, jax.Array, jax.Array, Gates]


def lstm(params: Mapping[str, jax.Array], state: State, x: jax.Array) -> tuple[State, jax.Array]:
    """A block of frames.

    Args:
        params: `input_kernel` (D, 4H), `hidden_kernel` (H, 4H), `input_bias` (4H,) and, with two
            biases per gate (PyTorch), `hidden_bias` (4H,); left out with one.
        state: (h, c) before the block, each (B, H).
        x: (B, T, D), T >= 1.

    Returns:
        The next state and every frame's h (B, T, H).
    """
    from_input = x.swapaxes(0, 1) @ params["input_kernel"] + params["input_bias"]
    if "hidden_bias" in params:
        from_input += params["hidden_bias"]
    recurrence = _long_recurrence if x.shape[1] >= LONG_BLOCK else _recurrence
    y, cell = recurrence(params["hidden_kernel"], state, from_input)
    return (y[-1], cell), y.swapaxes(0, 1)


def _recurrence(
    kernel: jax.Array, state: State, from_input: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Every frame's h (T, B, H) and the last c, from what the input adds to the gates."""

    def step(state: State, a: Sequence[jax.Array]) -> tuple[State, jax.Array]:
        (h, c), _ = _cell(state[1], a, _parts(state[0] @ kernel))
        return (h, c), h

    # Split here, as in the GRU: a step that splits its frame itself takes longer.
    (_, cell), y = jax.lax.scan(step, state, _parts(from_input))
    return y, cell


@jax.custom_vjp
def _long_recurrence(
    kernel: jax.Array, state: State, from_input: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`_recurrence` with the gradient of the module's docstring."""
    return _long_forward(kernel, state, from_input)[0]


def _long_forward(
    kernel: jax.Array, state: State, from_input: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], Residuals]:
    # As in the GRU: four narrow matmuls rather than one of width 4H.
    kernels = _parts(kernel)

    def step(
        state: State, a: Sequence[jax.Array]
    ) -> tuple[State, tuple[jax.Array, jax.Array, Gates]]:
        (h, c), gates = _cell(state[1], a, [state[0] @ one for one in kernels])
        return (h, c), (h, c, gates)

    (_, cell), (y, cells, gates) = jax.lax.scan(step, state, _parts(from_input))
    return (y, cell), (kernel, state, y, cells, gates)


def _long_backward(
    residuals: Residuals, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, State, jax.Array]:
    kernel, (first_h, first_c), y, cells, (i, f, g, o) = residuals
    dy, dcell = cotangents
    before = jnp.concatenate([first_h[None], y[:-1]])
    cells_before = jnp.concatenate([first_c[None], cells[:-1]])
    tanh = jnp.tanh(cells)
    to_c = o * (1 - tanh * tanh)
    to_i, to_f = g * i * (1 - i), cells_before * f * (1 - f)
    to_g, to_o = i * (1 - g * g), tanh * o * (1 - o)
    back_i, back_f, back_g, back_o = (one.T for one in _parts(kernel))

    def step(
        carry: State, frame: tuple[jax.Array, ...]
    ) -> tuple[State, tuple[jax.Array, jax.Array]]:
        e, s = carry
        dy, f, to_c, to_i, to_f, to_g, to_o = frame
        e = e + dy
        s = s + e * to_c
        back = (s * to_i) @ back_i + (s * to_f) @ back_f + (s * to_g) @ back_g + (e * to_o) @ back_o
        return (back, s * f), (e, s)

    dstate, (e, s) = jax.lax.scan(
        step,
        (jnp.zeros_like(first_h), dcell),
        (dy, f, to_c, to_i, to_f, to_g, to_o),
        reverse=True,
    )
    gates = [s * to_i, s * to_f, s * to_g, e * to_o]
    dkernel = [_rows(before).T @ _rows(one) for one in gates]
    return jnp.concatenate(dkernel, axis=-1), dstate, jnp.concatenate(gates, axis=-1)


_long_recurrence.defvjp(_long_forward, _long_backward)


def _cell(
    c: jax.Array, from_input: Sequence[jax.Array], from_hidden: Sequence[jax.Array]
) -> tuple[State, Gates]:
    """(h', c') and (i, f, g, o) of one frame."""
    a_i, a_f, a_g, a_o = (a + b for a, b in zip(from_input, from_hidden, strict=True))
    i, f, o = jax.nn.sigmoid(a_i), jax.nn.sigmoid(a_f), jax.nn.sigmoid(a_o)
    g = jnp.tanh(a_g)
    c = f * c + i * g
    return (o * jnp.tanh(c), c), (i, f, g, o)


def _parts(array: jax.Array) -> list[jax.Array]:
    """The parts of i, f, g and o along the last axis."""
    return jnp.split(array, 4, axis=-1)


def _rows(array: jax.Array) -> jax.Array:
    return array.reshape(-1, array.shape[-1])


class LSTM(nn.Module):
    """LSTM with the parameters of `lstm`, all from U(-1/sqrt(H), 1/sqrt(H)), PyTorch's start.

    Attributes:
        features: H.
        two_biases: two biases per gate, or one.
    """

    features: int
    two_biases: bool = True

    @nn.compact
    def __call__(self, state: State, x: jax.Array) -> tuple[State, jax.Array]:
        """State, two of (B, H), and x (B, T, D) -> next state and y (B, T, H)."""
        width, bound = self.features, self.features**-0.5

        def initial(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        params = {
            "input_kernel": self.param("input_kernel", initial, (x.shape[-1], 4 * width)),
            "hidden_kernel": self.param("hidden_kernel", initial, (width, 4 * width)),
            "input_bias": self.param("input_bias", initial, (4 * width,)),
        }
        if self.two_biases:
            params["hidden_bias"] = self.param("hidden_bias", initial, (4 * width,))
        return lstm(params, state, x)

    @nn.nowrap
    def init_state(self, batch_size: int) -> State:
        """Zeros, two of (B, H)."""
        return (jnp.zeros((batch_size, self.features)), jnp.zeros((batch_size, self.features)))


def lstm_cost(path: str, in_features: int, features: int, *, two_biases: bool = True) -> LayerCost:
    """Cost per frame: four gates, each a matmul of the input and one of the state."""
    weights = 4 * features * (in_features + features)
    return LayerCost(path, weights + (1 + two_biases) * 4 * features, weights)
