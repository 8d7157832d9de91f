"""The record of a finished run: what was trained, where, and each utterance's scores.

One JSON file a run, written whole. Tables are built from these files, so runs add up and nobody
repeats one. NaN is stored as null, as JSON has no word for it.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynse.atomic import write_whole

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class UtteranceScore:
    """Scores of one utterance.

    Attributes:
        id: of the mixture, unique in its test set.
        values: number of each metric, NaN where it failed.
        failures: why, for each metric that failed.
        attributes: what is known of the mixture: snr_db, noise_class, speaker, ...
    """

    id: str
    values: Mapping[str, float]
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    attributes: Mapping[str, str | float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One finished run.

    Attributes:
        net: name in tables; runs of one net with several seeds share it.
        corpus: name of the corpus; "synthetic" is the embedded default.
        corpus_fingerprint: its hash.
        test_set: name of the test set.
        test_set_hash: its hash.
        utterances: scores, in the order of the test set.
        config: the whole configuration, as JSON.
        seed: of the run; None for what has no randomness.
        cost: totals of cost, e.g. `dataclasses.asdict` of a `CostTotals`.
        extra: other results that belong to the run, as JSON (gate statistics, timings).
        machine: what `machine()` says.
        commit: what `commit()` says.
        created: UTC time, ISO 8601.
    """

    net: str
    corpus: str
    corpus_fingerprint: str
    test_set: str
    test_set_hash: str
    utterances: tuple[UtteranceScore, ...]
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    cost: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    machine: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    commit: str | None = None
    created: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )

    def values(self, metric: str) -> list[float]:
        """A metric of all utterances, NaN where it is missing."""
        return [score.values.get(metric, math.nan) for score in self.utterances]


def save_record(path: str | os.PathLike[str], record: RunRecord) -> Path:
    """Writes a record, whole or not at all.

    Raises:
        ValueError: where utterances share an id.
        TypeError: where the configuration, cost or extra hold what JSON cannot.
    """
    ids = [score.id for score in record.utterances]
    if len(set(ids)) < len(ids):
        double = next(name for name in ids if ids.count(name) > 1)
        raise ValueError(f"utterances need ids of their own, got {double!r} more than once")
    fields = {"format": FORMAT, **_plain(dataclasses.asdict(record))}
    utterances = fields.pop("utterances")
    text = json.dumps(fields, indent=1, allow_nan=False)
    # A line an utterance keeps the file small and its diffs readable.
    lines = ",\n  ".join(json.dumps(score, allow_nan=False) for score in utterances)
    return write_whole(path, f'{text[:-2]},\n "utterances": [\n  {lines}\n ]\n}}\n')


def load_record(path: str | os.PathLike[str]) -> RunRecord:
    """Reads a record.

    Raises:
        ValueError: where the file is no record of this format; names the file.
    """
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
        if (found := fields.pop("format")) != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {found}")
        utterances = tuple(
            UtteranceScore(
                id=score["id"],
                values={k: math.nan if v is None else v for k, v in score["values"].items()},
                failures=score["failures"],
                attributes=score["attributes"],
            )
            for score in fields.pop("utterances")
        )
        return RunRecord(utterances=utterances, **fields)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no record of a run: {error!r}") from error


def load_records(paths: Sequence[str | os.PathLike[str]]) -> list[RunRecord]:
    """Reads several records, in the order given."""
    return [load_record(path) for path in paths]


def machine() -> dict[str, Any]:
    """CPU model, cores, versions and devices. Starts JAX's backend; names no host and no user."""
    import jax

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {
        name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")
    }
    return {
        "cpu": _cpu_model(),
        "cores": usable,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        **versions,
    }


def commit() -> str | None:
    """The commit this code is at, with "+changes" where files differ from it.

    Returns:
        None where the code is no git checkout of its own (an installed package) or git is missing.
    """
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=here, check=True, capture_output=True, text=True, timeout=30
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changes = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _plain(value: Any) -> Any:
    """The same in what JSON knows: NumPy scalars and arrays, tuples, paths, NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return os.fspath(value) if isinstance(value, os.PathLike) else value
