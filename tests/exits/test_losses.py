import contract
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dynse.exits import exit_weights, joint_loss, layer_mask, phase_layers
from dynse.models.early_exit_nsnet2 import EarlyExitNsNet2

NET = EarlyExitNsNet2(bins=5, first=6, hidden=6, wide=6)


def needed(net):
    return [
        {cost.path for cost in net.clone(exit_index=index).cost()}
        for index in range(len(net.exits))
    ]


def test_weights():
    assert exit_weights(4, "equal") == (1, 1, 1, 1)
    assert exit_weights(4, "growing") == (0.25, 0.5, 0.75, 1)
    with pytest.raises(ValueError, match="kind must be one of equal, growing; got 'flat'"):
        exit_weights(4, "flat")


def test_joint_loss_is_the_weighted_sum():
    assert float(joint_loss([jnp.float32(3), jnp.float32(5)], (0.5, 1.0))) == 6.5
    with pytest.raises(ValueError, match="expected 2 weights, one an exit, got 1"):
        joint_loss([0.0, 1.0], (1.0,))


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (
            "none",
            [
                {"fc1", "head_fc1"},
                {"gru1", "head_gru1"},
                {"gru2", "head_gru2"},
                {"fc2", "fc3", "fc4"},
            ],
        ),
        (
            "duplicate",
            [
                {"side_fc1", "head_fc1"},
                {"fc1", "side_gru1", "head_gru1"},
                {"gru1", "side_gru2", "head_gru2"},
                {"gru2", "fc2", "fc3", "fc4"},
            ],
        ),
    ],
)
def test_each_layer_trains_in_the_first_phase_that_needs_it(split, expected):
    layers = needed(NET.clone(split=split))
    assert [phase_layers(layers, phase) for phase in range(4)] == expected
    assert set().union(*expected) == {cost.path for cost in NET.clone(split=split).cost()}
    for phase in range(4):
        assert phase_layers(layers, phase, moving=True) == layers[phase]


def test_a_step_of_a_phase_changes_its_layers_and_no_other():
    frames = np.random.default_rng(0).lognormal(size=(2, 2, 5)).astype(np.float32)
    net = NET.clone(exits=("fc1", "gru1"))
    variables = contract.random_like(jax.eval_shape(net.init, jax.random.key(0), frames), 0)
    params, layers = variables["params"], needed(net)

    def loss(params):
        # Every exit's, so that a gradient reaches every parameter: what is frozen is masked.
        exits = net.apply({**variables, "params": params}, frames)[2].exits
        return sum(jnp.square(gain).sum() for gain in exits)

    gradient = jax.jit(jax.grad(loss), compiler_options=contract.QUICK)(params)
    for phase, moving in ((0, False), (1, False), (1, True)):
        trained = phase_layers(layers, phase, moving=moving)
        labels = jax.tree.map(
            lambda trains: "trained" if trains else "frozen", layer_mask(params, trained)
        )
        # Weight decay, too, has to stop.
        optimizer = optax.multi_transform(
            {"trained": optax.adamw(0.1), "frozen": optax.set_to_zero()}, labels
        )
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        for path, update in jax.tree.leaves_with_path(updates):
            assert bool(update.any()) == (path[0].key in trained), (phase, path)


def test_masks_follow_paths_of_any_depth():
    params = {"block0": {"conv1": {"kernel": 0}, "conv10": {"kernel": 0}}, "back": {"bias": 0}}
    assert layer_mask(params, ["block0/conv1"]) == {
        "block0": {"conv1": {"kernel": True}, "conv10": {"kernel": False}},
        "back": {"bias": False},
    }
    with pytest.raises(ValueError, match="no parameters found for block0/conv, front"):
        layer_mask(params, ["front", "block0/conv", "back"])
