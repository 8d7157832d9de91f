"""A compressed net as a run: read back from its packed file, or made narrower.

A packed file says in its metadata what network it holds, on which transform, and at which level it
wants its input: enough to build it again. Where whole units have vanished from an FDNN or an LSTM,
the same net is a narrower one of its kind (`dynse.pruning.shrink`), which any engine runs faster.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from dynse.pruning.packed import load_packed
from dynse.pruning.shrink import shrink
from dynse.training.nets import FDNNConfig, LSTMConfig
from dynse.training.runs import RunConfig, run_config


def packed_metadata(run: RunConfig) -> dict[str, Any]:
    """What a packed file says of its network, as JSON."""
    return {
        "net": dataclasses.asdict(run.net),
        "stft": dataclasses.asdict(run.stft),
        "mixing": {"rms": run.mixing.rms},
    }


def load_packed_run(path: str | pathlib.Path) -> tuple[Any, dict[str, Any], RunConfig]:
    """The network of a packed file with its variables, as `load_run` gives that of a run's folder.

    What the file does not say of the configuration has its default.

    Raises:
        ValueError: not such a file, damaged, or of a network that is not known; names it.
    """
    variables, metadata = load_packed(path)
    try:
        run = run_config({name: metadata[name] for name in ("net", "stft", "mixing")})
        return run.net.build(run.stft.bins), variables, run
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} names no network: {error!r}") from error


def shrunk_run(
    run: RunConfig, variables: Mapping[str, Any]
) -> tuple[RunConfig, dict[str, Any]] | None:
    """The same net without the units that pruning has left without a purpose.

    Outputs are equal but for rounding. None for a network that is no chain of dense and recurrent
    layers.

    Args:
        run: of the net.
        variables: pruned, with "params".
    """
    if not isinstance(run.net, FDNNConfig | LSTMConfig):
        return None
    chain = run.net.chain
    params, units = shrink(variables["params"], chain)
    hidden = tuple(len(units[path]) for path, _ in chain[:-1])
    net = dataclasses.replace(run.net, hidden=hidden)
    return dataclasses.replace(run, net=net), {**variables, "params": params}
