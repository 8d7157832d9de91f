from dynse.training.exit_nets import exit_nets


def test_names_tell_how_a_net_is_trained():
    nets = exit_nets(("none", "divide"), ("duplicate",), ("none",), ("none",), first=8, hidden=8)
    assert set(nets) == {
        "joint-none",
        "joint-divide",
        "growing-none",
        "layerwise-duplicate",
        "moving-none",
        *(f"alone-{stage}" for stage in ("fc1", "gru1", "gru2", "full")),
    }
    assert {name for name, net in nets.items() if net.layerwise} == {
        "layerwise-duplicate",
        "moving-none",
    }
    assert [name for name, net in nets.items() if net.config.moving] == ["moving-none"]
    assert nets["growing-none"].config.loss_weights == (0.25, 0.5, 0.75, 1.0)
    assert nets["joint-none"].config.loss_weights == (1, 1, 1, 1)
    for name, net in nets.items():
        stage = name.split("-")[1]
        if name.startswith("alone"):
            assert net.config.exits == (stage,)
        else:
            assert net.config.split == stage
        assert net.config.first == 8
