"""Gated recurrent unit, reset after the matmul (Cho et al., 2014; the variant of cuDNN, PyTorch).

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
    z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    n = tanh(W_in x + b_in + r * m),   m = W_hn h + b_hn
    h' = (1 - z) n + z h

Gate order r, z, n. What the input adds to the gates is one matmul over the whole block; the scan
over frames does the rest. For long blocks its gradient is written by hand. With g = dL/dh' the
gates' pre-activations have the gradients

    dn = g (1 - z)(1 - n^2),   dz = g (h - n) z (1 - z),   dr = dn m r (1 - r),   dm = dn r

all g times factors known from the forward pass, so the backward scan carries and stores g alone,

    g <- dL/dh + g z + dr W_hr^T + dz W_hz^T + dm W_hn^T

and W_h gets its gradient in matmuls over the whole block after the scan, where plain autodiff adds
an outer product to it in every frame. `benchmarks/gru.py` measures what that gains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dynse.layers.cost import LayerCost

# Blocks from this length on take the hand-written gradient; what it gains, a short block lacks.
LONG_BLOCK = 16

Gates = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
Residuals = tuple[jax.Array, jax.Array, jax.Array, Gates]


def gru(
    params: Mapping[str, jax.Array], state: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A block of frames.

    Args:
        params: `input_kernel` (D, 3H), `hidden_kernel` (H, 3H), `input_bias` (3H,) and
            `hidden_bias`: (3H,) with two biases per gate (PyTorch), or (H,), that of W_hn h
            alone, with one (Flax's GRUCell; with it b_hr and b_hz would say nothing new).
        state: h before the block, (B, H).
        x: (B, T, D), T >= 1.

    Returns:
        The next state (B, H) and every frame's h (B, T, H).

    Raises:
        ValueError: on a hidden bias that is neither (3H,) nor (H,).
    """
    from_input = x.swapaxes(0, 1) @ params["input_kernel"] + params["input_bias"]
    *gate_biases, new_bias = _parts(_per_gate(params["hidden_bias"], state.shape[-1]))
    # The biases of r and z add to the input's; only that of n stands inside a product.
    shift = _joined([*gate_biases, jnp.zeros_like(new_bias)])
    recurrence = _long_recurrence if x.shape[1] >= LONG_BLOCK else _recurrence
    y = recurrence(params["hidden_kernel"], new_bias, state, from_input + shift)
    return y[-1], y.swapaxes(0, 1)


def _recurrence(
    kernel: jax.Array, new_bias: jax.Array, state: jax.Array, from_input: jax.Array
) -> jax.Array:
    """Every frame's h (T, B, H), from what the input adds to the gates (T, B, 3H)."""

    def step(h: jax.Array, a: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        h, _ = _cell(h, a, _parts(h @ kernel), new_bias)
        return h, h

    # Split here: a step that splits its frame itself takes about twice as long on a CPU.
    return jax.lax.scan(step, state, _parts(from_input))[1]


@jax.custom_vjp
def _long_recurrence(
    kernel: jax.Array, new_bias: jax.Array, state: jax.Array, from_input: jax.Array
) -> jax.Array:
    """`_recurrence` with the gradient of the module's docstring."""
    return _long_forward(kernel, new_bias, state, from_input)[0]


def _long_forward(
    kernel: jax.Array, new_bias: jax.Array, state: jax.Array, from_input: jax.Array
) -> tuple[jax.Array, Residuals]:
    # Faster on two CPU cores than one matmul of width 3H.
    kernels = _parts(kernel)

    def step(h: jax.Array, a: Sequence[jax.Array]) -> tuple[jax.Array, tuple[jax.Array, Gates]]:
        h, gates = _cell(h, a, [h @ one for one in kernels], new_bias)
        return h, (h, gates)

    _, (y, gates) = jax.lax.scan(step, state, _parts(from_input))
    return y, (kernel, state, y, gates)


def _long_backward(
    residuals: Residuals, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    kernel, state, y, (r, z, n, m) = residuals
    before = jnp.concatenate([state[None], y[:-1]])
    to_n = (1 - z) * (1 - n * n)
    to_z = (before - n) * z * (1 - z)
    to_r = to_n * m * r * (1 - r)
    to_m = to_n * r
    back_r, back_z, back_m = (one.T for one in _parts(kernel))

    def step(carry: jax.Array, frame: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        dy, z, to_r, to_z, to_m = frame
        g = dy + carry
        carry = g * z + (g * to_r) @ back_r + (g * to_z) @ back_z + (g * to_m) @ back_m
        return carry, g

    dstate, g = jax.lax.scan(step, jnp.zeros_like(state), (dy, z, to_r, to_z, to_m), reverse=True)
    dr, dz, dn, dm = g * to_r, g * to_z, g * to_n, g * to_m
    dkernel = _joined([_rows(before).T @ _rows(one) for one in (dr, dz, dm)])
    return dkernel, dm.sum((0, 1)), dstate, _joined([dr, dz, dn])


_long_recurrence.defvjp(_long_forward, _long_backward)


def _cell(
    h: jax.Array,
    from_input: Sequence[jax.Array],
    from_hidden: Sequence[jax.Array],
    new_bias: jax.Array,
) -> tuple[jax.Array, Gates]:
    """h' and (r, z, n, m) of one frame."""
    (input_r, input_z, input_n), (hidden_r, hidden_z, hidden_n) = from_input, from_hidden
    r = jax.nn.sigmoid(input_r + hidden_r)
    z = jax.nn.sigmoid(input_z + hidden_z)
    m = hidden_n + new_bias
    n = jnp.tanh(input_n + r * m)
    return (1 - z) * n + z * h, (r, z, n, m)


def _parts(array: jax.Array) -> list[jax.Array]:
    """The parts of r, z and n along the last axis."""
    return jnp.split(array, 3, axis=-1)


def _joined(parts: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate(parts, axis=-1)


def _per_gate(hidden_bias: jax.Array, width: int) -> jax.Array:
    """The hidden bias as (3H,); (H,) is that of n."""
    if hidden_bias.shape not in ((width,), (3 * width,)):
        raise ValueError(
            f"expected hidden_bias ({3 * width},) or ({width},), got {hidden_bias.shape}"
        )
    return jnp.pad(hidden_bias, (3 * width - hidden_bias.shape[0], 0))


def _rows(array: jax.Array) -> jax.Array:
    return array.reshape(-1, array.shape[-1])


class GRU(nn.Module):
    """GRU with the parameters of `gru`, all from U(-1/sqrt(H), 1/sqrt(H)), PyTorch's start.

    Attributes:
        features: H.
        two_biases: two biases per gate, or one and that of W_hn h.
    """

    features: int
    two_biases: bool = True

    @nn.compact
    def __call__(self, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """State (B, H) and x (B, T, D) -> next state and y (B, T, H)."""
        width, bound = self.features, self.features**-0.5

        def initial(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        params = {
            "input_kernel": self.param("input_kernel", initial, (x.shape[-1], 3 * width)),
            "hidden_kernel": self.param("hidden_kernel", initial, (width, 3 * width)),
            "input_bias": self.param("input_bias", initial, (3 * width,)),
            "hidden_bias": self.param(
                "hidden_bias", initial, (3 * width if self.two_biases else width,)
            ),
        }
        return gru(params, state, x)

    @nn.nowrap
    def init_state(self, batch_size: int) -> jax.Array:
        """Zeros (B, H)."""
        return jnp.zeros((batch_size, self.features))


def gru_cost(path: str, in_features: int, features: int, *, two_biases: bool = True) -> LayerCost:
    """Cost per frame: three gates, each a matmul of the input and one of the state."""
    weights = 3 * features * (in_features + features)
    biases = 3 * features + (3 if two_biases else 1) * features
    return LayerCost(path, weights + biases, weights)
