"""The nets of dynamic channel pruning by name: as published, livelier, told, and their opponents.

`TRIED` holds what may make gates pay: its first net, changed in one thing or in what must change
together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from dynse.models.controlled import GateControl
from dynse.models.conv_fsenet import GateConfig
from dynse.training.gates import GateTraining
from dynse.training.nets import ConvFSENetConfig
from dynse.training.probes import ProbeTraining

# The best recipe for lively gates found so far (a sketch's, on dynse-mini): scores centred at 0,
# normalised input, a short window, a surrogate that vanishes far from the threshold, and the
# mutual information between gate and frame in the first half of the run.
LIVELY = GateConfig(window=2, surrogate="sigmoid", normalize=True, detach=False, bias=0.0)
LIVELY_TRAINING = GateTraining(target=0.25, mutual_information=0.05, ramp=0.25, fade=(0.5, 0.75))


@dataclasses.dataclass(frozen=True)
class TrainedControl:
    """A gated net trained anew under a control, at the rates that its own gates had.

    Attributes:
        net: name of the gated net, which is trained first.
        kind: of the control.
        trained_on: start from the gated net's parameters, not from fresh ones, and hear new
            mixtures.
    """

    net: str
    kind: Literal["fixed", "random"]
    trained_on: bool

    def of(self, net: ConvFSENetConfig, control: GateControl) -> ConvFSENetConfig:
        """What is trained: the gated net under the control, told as much as it was."""
        probes = net.probe_training
        return dataclasses.replace(
            net,
            gate_training=None,
            probe_training=probes and dataclasses.replace(probes, reads="hidden"),
            control=control,
        )


@dataclasses.dataclass(frozen=True)
class TrainedOn:
    """A net trained on for as many steps again, on new mixtures: the partner of such controls.

    Attributes:
        net: its name; it is trained first.
    """

    net: str


@dataclasses.dataclass(frozen=True)
class Taught:
    """A net that learns from another one's output beside the clean signal.

    Attributes:
        net: what is trained.
        teacher: name of the other net, which is trained first.
        weight: of the loss against its output.
    """

    net: ConvFSENetConfig
    teacher: str = "dense"
    weight: float = 0.5


Trainable = ConvFSENetConfig | TrainedControl | TrainedOn | Taught


def needs(net: Trainable) -> str | None:
    """Name of the net that has to be trained first, if any."""
    if isinstance(net, TrainedControl | TrainedOn):
        return net.net
    return net.teacher if isinstance(net, Taught) else None


def dyncp(
    site: Literal["output", "inner"] = "output",
    gate: Mapping[str, Any] | None = None,
    *,
    told: float = 0.0,
    reads: Literal["gates", "hidden", "both"] = "gates",
    width: int = 128,
    **training: Any,
) -> ConvFSENetConfig:
    """DynCP at a quarter of the channels.

    Args:
        site: of the gates.
        gate: changes of the lively gate.
        told: weight of the probes that the net is trained with in view; 0 for none.
        reads: what they read.
        width: residual width; the inner one is twice that.
        **training: changes of the lively gates' training.
    """
    return ConvFSENetConfig(
        width=width,
        inner=2 * width,
        gate=dataclasses.replace(LIVELY, site=site, **(gate or {})),
        gate_training=dataclasses.replace(LIVELY_TRAINING, **training),
        probe_training=ProbeTraining(weight=told, reads=reads) if told else None,
    )


def with_probes(
    net: ConvFSENetConfig, reads: Literal["gates", "hidden", "both"] = "hidden"
) -> ConvFSENetConfig:
    """The net trained with probes in view."""
    return dataclasses.replace(net, probe_training=ProbeTraining(weight=0.25, reads=reads))


DENSE = ConvFSENetConfig()
# Compute-matched to DynCP at .25: 464,704 MAC a frame against 459,776 (output site), and 245,100
# against 242,624 (inner site).
NARROW = ConvFSENetConfig(width=106, inner=212)
NARROWER = ConvFSENetConfig(width=75, inner=150)
# As published where it is, else the choices of the gate's docstrings: gates that start open, a
# window of 16 frames, identity surrogate, fixed weight from the first step.
PUBLISHED = ConvFSENetConfig(
    gate=GateConfig(), gate_training=GateTraining(target=0.25, dual_rate=0.0, ramp=0.0)
)
THREE = {"dense": DENSE, "narrow": NARROW, "dyncp": dyncp()}
AHEAD = {"dense-ahead": dataclasses.replace(DENSE, causal=False)}


def _tried(
    site: Literal["output", "inner"] = "output",
    gate: Mapping[str, Any] | None = None,
    **changes: Any,
) -> ConvFSENetConfig:
    return dyncp(site, gate, **{"told": 0.25, "mutual_information": 0.0, **changes})


# From a dense net: gates start open, and their target falls.
_ANNEALED = {"gate": {"bias": 1.0}, "anneal": 0.5, "ramp": 0.0}
TRIED: Mapping[str, Trainable] = {
    "dyncp-told-plain": _tried(),
    "dyncp-told-hidden": _tried(reads="hidden"),
    "dyncp-told-both": _tried(reads="both"),
    "dyncp-told-published": with_probes(PUBLISHED, "gates"),
    "dyncp-told-hidden-published": with_probes(PUBLISHED),
    "dyncp-annealed": _tried(**_ANNEALED),
    "dyncp-noise": _tried(score_noise=1.0),
    "dyncp-soft": _tried(soft=(0.25, 0.6)),
    "dyncp-window-1": _tried(gate={"window": 1}),
    "dyncp-window-16": _tried(gate={"window": 16}),
    "dyncp-hidden-16": _tried(gate={"hidden": 16}),
    "dyncp-level": _tried(gate={"level": True}),
    "dyncp-front": _tried(gate={"source": "front"}),
    "dyncp-groups": _tried(gate={"group": 4}),
    "dyncp-per-utterance": _tried(budget="per_utterance"),
    "dyncp-pauses": _tried(pause_target=0.125),
    "dyncp-taught": Taught(_tried()),
    # 474,528 MAC a frame; of its static opponent 481,248.
    "dyncp-wide-inner": _tried("inner", width=192),
    "narrow-108-told": with_probes(ConvFSENetConfig(width=108, inner=216)),
}
# What helped, together; the annealed net at another budget and site; the trained controls of the
# best net, whose gates are the published ones.
COMBINED: Mapping[str, Trainable] = {
    "dyncp-annealed-hidden": _tried(**_ANNEALED, reads="hidden"),
    "dyncp-annealed-both": _tried(**_ANNEALED, reads="both"),
    "dyncp-annealed-pauses": _tried(**_ANNEALED, reads="hidden", pause_target=0.125),
    "dyncp-annealed-alive": _tried(
        **_ANNEALED, reads="both", pause_target=0.125, mutual_information=0.05
    ),
    "dyncp-half-annealed": _tried(**_ANNEALED, target=0.5),
    "dyncp-inner-annealed": _tried("inner", **_ANNEALED),
    # At the cost of "narrow": 463,416 MAC a frame.
    "dyncp-inner-matched": _tried("inner", **_ANNEALED, target=0.62),
    "dyncp-told-hidden-published-fixed-trained": TrainedControl(
        "dyncp-told-hidden-published", "fixed", trained_on=True
    ),
    "dyncp-told-hidden-published-random-trained": TrainedControl(
        "dyncp-told-hidden-published", "random", trained_on=False
    ),
    "dyncp-told-hidden-published-trained-on": TrainedOn("dyncp-told-hidden-published"),
}
# One budget, six surrogates; all else as in "dyncp-told-plain".
SURROGATE_NETS: Mapping[str, Trainable] = {
    f"dyncp-{name.replace('_', '-')}": _tried(gate={"surrogate": name})
    for name in ("identity", "clipped", "fast_sigmoid", "arctan")
} | {"dyncp-gumbel-sigmoid": _tried(gate={"surrogate": "gumbel_sigmoid"}, score_noise=1.0)}

MINI: Mapping[str, Trainable] = {
    **THREE,
    "dyncp-inner": dyncp("inner"),
    "narrower": NARROWER,
    # What the term that keeps gates alive does: without it, and with another in its place.
    "dyncp-plain": dyncp(mutual_information=0.0),
    "dyncp-shaped": dyncp(mutual_information=0.0, batch_shaping=0.5),
    "dyncp-published": PUBLISHED,
    **AHEAD,
    "dyncp-ahead": dataclasses.replace(dyncp(), causal=False),
    "dyncp-half": dyncp(target=0.5),
    "dyncp-eighth": dyncp(target=0.125),
    # Nets trained with probes in view: gates that are to tell voice, F0 and SNR, and static nets
    # whose last hidden layer is.
    "dyncp-told": dyncp(told=0.05),
    "dyncp-told-more": dyncp(told=0.25),
    "dense-told": with_probes(DENSE),
    "narrow-told": with_probes(NARROW),
    "narrower-told": with_probes(NARROWER),
    "narrow-taught": Taught(NARROW),
    "dyncp-fixed-trained": TrainedControl("dyncp", "fixed", trained_on=True),
    "dyncp-random-trained": TrainedControl("dyncp", "random", trained_on=False),
}
