import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynse.gating.controls import fixed_gates, open_gates, random_gates, shuffled_gates

RATES = (np.array([0.1, 0.9, 0.5, 0.5]), np.array([0.3, 0.2, 0.0]))


def test_open_gates():
    gates = open_gates([3, 2])
    assert [gate.shape for gate in gates] == [(1, 1, 3), (1, 1, 2)]
    assert all((gate == 1).all() for gate in gates)


def test_fixed_gates_keep_the_most_used():
    first, second = fixed_gates(RATES, [2, 1])
    # The tie between channels 2 and 3 goes to the lower index.
    assert first.ravel().tolist() == [0, 1, 1, 0]
    assert second.ravel().tolist() == [1, 0, 0]


def test_fixed_gates_default_to_the_same_cost():
    first, second = fixed_gates(RATES)
    assert float(first.sum()) == 2
    assert float(second.sum()) == 0  # 0.5 rounds to even


def test_kept_counts_may_be_traced():
    jitted = jax.jit(lambda counts: fixed_gates(RATES, counts))
    assert [float(gate.sum()) for gate in jitted(jnp.array([3, 1]))] == [3, 1]
    assert [float(gate.sum()) for gate in jitted(jnp.array([0, 2]))] == [0, 2]
    with pytest.raises(ValueError, match="expected 2 kept counts"):
        fixed_gates(RATES, [1])


def test_random_gates_have_the_rates():
    gates = jax.jit(lambda key: random_gates(key, RATES, 4, 2000))(jax.random.key(0))
    for gate, rate in zip(gates, RATES, strict=True):
        assert gate.shape == (4, 2000, len(rate))
        assert set(np.unique(gate)) <= {0.0, 1.0}
        np.testing.assert_allclose(gate.mean((0, 1)), rate, atol=0.02)
    # Channels of equal rate are drawn apart.
    assert 0.4 < float((gates[0][..., 2] != gates[0][..., 3]).mean()) < 0.6


def test_shuffled_gates_permute_valid_frames_of_an_utterance():
    frames = np.arange(40.0, dtype=np.float32).reshape(2, 20, 1)
    gates = (frames, 100 + frames.repeat(2, axis=-1))
    valid = np.arange(20) < np.array([[20], [13]])
    first, second = map(np.asarray, jax.jit(shuffled_gates)(jax.random.key(1), gates, valid))
    for row, length in enumerate((20, 13)):
        before, after = frames[row, :length, 0], first[row, :length, 0]
        assert sorted(after.tolist()) == before.tolist()
        assert (after != before).any()
    np.testing.assert_array_equal(first[1, 13:], frames[1, 13:])
    # One order for all channels and blocks.
    np.testing.assert_array_equal(second, 100 + first.repeat(2, axis=-1))


def test_shuffled_gates_respect_holes():
    frames = np.arange(8.0, dtype=np.float32).reshape(1, 8, 1)
    valid = np.array([[False, True, True, False, True, True, False, True]])
    (gate,) = jax.jit(shuffled_gates)(jax.random.key(2), (frames,), valid)
    gate = np.asarray(gate)
    np.testing.assert_array_equal(gate[~valid], frames[~valid])
    assert sorted(gate[valid].ravel().tolist()) == frames[valid].ravel().tolist()
