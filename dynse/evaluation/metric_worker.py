"""The child process in which PESQ and STOI run: imports NumPy and the metric, never JAX.

PESQ wide band: ITU-T P.862.2; STOI: Taal et al., 2011; ESTOI: Jensen and Taal, 2016. The parent
(`metric_process`) starts it as `python -m dynse.evaluation.metric_worker`. Protocol: a request on
stdin is one JSON line {"functions": ["module:name", ...], "sample_rate": 16000, "samples": N}
followed by the N reference and the N estimate samples as float32; the answer on stdout is one
JSON line {"value": x} or {"failure": "why"} for each function, as soon as it is known. The first
line, {"ready": true}, says that the imports are done, so that start-up is not timed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

MISSING = "package is missing"


def pesq_wide_band(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """PESQ wide band, MOS-LQO 1.02 to 4.64; the package's exceptions pass through."""
    from pesq import pesq

    return float(pesq(sample_rate, reference, estimate, "wb"))


def stoi(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Short-time objective intelligibility, up to 1."""
    return _stoi(reference, estimate, sample_rate, extended=False)


def estoi(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """Extended STOI, up to 1."""
    return _stoi(reference, estimate, sample_rate, extended=True)


def _stoi(
    reference: np.ndarray, estimate: np.ndarray, sample_rate: int, *, extended: bool
) -> float:
    from pystoi import stoi as pystoi_stoi

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(pystoi_stoi(reference, estimate, sample_rate, extended=extended))
    # pystoi says "fewer than 30 active frames" by this value and a warning.
    if value == 1e-5:
        raise ValueError("less than 0.4 s of speech")
    return value


def find_function(name: str) -> Callable[[np.ndarray, np.ndarray, int], float]:
    """The function behind "module:name".

    Raises:
        ValueError: where the name has another form or the module lacks the function.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"expected a metric as 'module:function', got {name!r}")
    try:
        return getattr(importlib.import_module(module), function)
    except AttributeError:
        raise ValueError(f"module {module} has no function {function}") from None


def measure(name: str, reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> dict:
    """One answer: {"value": x}, or {"failure": "why"} where the metric raised or gave no number."""
    try:
        value = float(find_function(name)(reference, estimate, sample_rate))
    except ImportError as error:
        return {"failure": f"{error.name or error} {MISSING}"}
    except Exception as error:
        said = error.args[0] if error.args else ""
        said = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        return {"failure": f"{type(error).__name__}: {said}".rstrip(": ")}
    return {"value": value} if np.isfinite(value) else {"failure": f"returned {value}"}


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests until the parent closes the pipe."""

    def say(message: dict) -> None:
        answers.write(json.dumps(message).encode() + b"\n")
        answers.flush()

    say({"ready": True})
    while line := requests.readline():
        request = json.loads(line)
        size = request["samples"] * 4
        signals = [requests.read(size) for _ in range(2)]
        if len(signals[1]) < size:
            return
        reference, estimate = (np.frombuffer(data, np.float32) for data in signals)
        for name in request["functions"]:
            say(measure(name, reference, estimate, request["sample_rate"]))


def main() -> None:
    """Serves on stdin and stdout; what a metric prints goes to stderr instead."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
