"""The nets of the DynCP experiments: what they cost, and that each differs in one thing."""

import dataclasses

import pytest

from dynse.layers.cost import total_active_macs, total_macs
from dynse.training.dyncp_nets import (
    COMBINED,
    MINI,
    PUBLISHED,
    SURROGATE_NETS,
    TRIED,
    Taught,
    TrainedControl,
    TrainedOn,
    needs,
)

BASE = TRIED["dyncp-told-plain"]


def differences(net):
    """Fields of gate, training and shape that are not the base's, those that go together as one."""
    found = set()
    for part in ("gate", "gate_training", "probe_training"):
        ours, theirs = (dataclasses.asdict(getattr(one, part)) for one in (net, BASE))
        found |= {name for name in ours if ours[name] != theirs[name]}
    return found | {name for name in ("width",) if getattr(net, name) != getattr(BASE, name)}


def test_what_was_tried_differs_in_one_thing():
    told = {
        name: differences(net)
        for name, net in {**TRIED, **SURROGATE_NETS}.items()
        if not isinstance(net, Taught) and net.gate and not name.endswith("published")
    }
    together = {
        "dyncp-told-plain": set(),
        "dyncp-annealed": {"anneal", "bias", "ramp"},  # starts open, and at full weight
        "dyncp-wide-inner": {"site", "width"},
        "dyncp-gumbel-sigmoid": {"surrogate", "score_noise"},
    }
    for name, found in told.items():
        assert found == together[name] if name in together else len(found) == 1, name
    assert TRIED["dyncp-taught"].net == BASE
    for name, reads in (
        ("dyncp-told-published", "gates"),
        ("dyncp-told-hidden-published", "hidden"),
    ):
        assert TRIED[name].gate == PUBLISHED.gate
        assert TRIED[name].gate_training == PUBLISHED.gate_training
        assert TRIED[name].probe_training == dataclasses.replace(BASE.probe_training, reads=reads)


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("dense", 662_528),
        ("narrow", 464_704),
        ("dyncp-told-more", 459_776),
        ("narrower", 245_100),
        ("dyncp-inner", 242_624),
        ("narrow-108-told", 481_248),
        ("dyncp-wide-inner", 474_528),
        ("dyncp-inner-matched", 463_416),
    ],
)
def test_macs_of_opponents_match(name, macs):
    net = {**MINI, **TRIED, **COMBINED}[name]
    costs = net.build(257).cost()
    if net.gate is None:
        assert total_macs(costs) == macs
    else:
        kept = [net.gate_training.target] * 9
        assert total_active_macs(costs, kept) == pytest.approx(macs, abs=0.5)


def test_what_a_net_needs_comes_before_it():
    names = [*MINI, *TRIED, *COMBINED, *SURROGATE_NETS]
    assert len(set(names)) == len(names)
    for name, net in {**MINI, **TRIED, **COMBINED}.items():
        if needs(net):
            assert names.index(needs(net)) < names.index(name)
    assert needs(TrainedControl("dyncp", "fixed", True)) == "dyncp"
    assert needs(TrainedOn("dyncp")) == "dyncp"
    assert needs(MINI["dense"]) is None
