"""Quality of enhanced speech, per utterance: PESQ wide band, STOI, ESTOI, SI-SDR and its gain.

SI-SDR is computed here (`dynse.audio.sdr`); PESQ and STOI run in worker processes with a time
limit, as their C code may hang or crash on odd input. A metric that fails is NaN, with the reason:
silent signals, too little speech, an exception, a missing package, a time limit passed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dynse.audio.sdr import si_sdr
from dynse.evaluation.metric_process import MetricPool, MetricProcess
from dynse.evaluation.metric_worker import MISSING
from dynse.evaluation.scores import UtteranceScore

WORKER_METRICS: Mapping[str, str] = {
    "pesq": "dynse.evaluation.metric_worker:pesq_wide_band",
    "stoi": "dynse.evaluation.metric_worker:stoi",
    "estoi": "dynse.evaluation.metric_worker:estoi",
}
LOCAL_METRICS = ("si_sdr", "si_sdr_improvement")
METRICS = (*WORKER_METRICS, *LOCAL_METRICS)
# Half a step of a 16-bit file: what lies below is silence.
_SILENCE = 0.5 / 32768


class Utterance(NamedTuple):
    """What is scored.

    Attributes:
        id: of the mixture.
        reference: clean signal (N,) float in -1 to 1.
        noisy: (N,).
        estimate: enhanced signal (N,).
        attributes: kept with the scores: snr_db, noise_class, speaker, ...
        values: numbers measured elsewhere that join the scores: kept, active_macs, ...
    """

    id: str
    reference: np.ndarray
    noisy: np.ndarray
    estimate: np.ndarray
    attributes: Mapping[str, str | float] = {}
    values: Mapping[str, float] = {}


def score_utterances(
    items: Iterable[Utterance | tuple],
    sample_rate: int = 16000,
    *,
    metrics: Sequence[str] = METRICS,
    pool: MetricPool | None = None,
    progress: bool = True,
    total: int | None = None,
    description: str = "scoring",
) -> list[UtteranceScore]:
    """Scores utterances as they come; at most twice as many as processes are held at once.

    Args:
        items: `Utterance`s, or tuples in their order; may be a generator, which runs in the
            calling thread.
        sample_rate: in Hz; PESQ wide band and this library know 16000 alone.
        metrics: of `METRICS`, or "module:function" of your own, a function (reference, estimate,
            sample_rate) -> number that a worker process can import.
        pool: processes for PESQ and STOI, ended where this call fails; two of their own for
            this call where None.
        progress: show a progress bar.
        total: number of items, for the bar; not needed where items has a length.
        description: of the bar.

    Returns:
        Scores in the order of the items. Warns where a metric's package is missing.

    Raises:
        ValueError: unknown metric, another sample rate, or signals of an item that are not (N,)
            of one length.
        RuntimeError: where a worker process does not start.
    """
    _check(sample_rate, metrics)
    if pool is None:
        with MetricPool() as own:
            return score_utterances(
                items,
                sample_rate,
                metrics=metrics,
                pool=own,
                progress=progress,
                total=total,
                description=description,
            )
    workers = len(pool.processes)
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    idle: queue.SimpleQueue[MetricProcess] = queue.SimpleQueue()
    for process in pool.processes:
        idle.put(process)

    def score(item: Utterance) -> UtteranceScore:
        process = idle.get()
        try:
            return _score(item, sample_rate, metrics, process)
        finally:
            idle.put(process)

    scores: dict[int, UtteranceScore] = {}
    pending: dict[concurrent.futures.Future, int] = {}
    with _bar(progress, description, total) as advance:

        def collect(when: str) -> None:
            done, _ = concurrent.futures.wait(pending, return_when=when)
            for future in done:
                scores[pending.pop(future)] = future.result()
                advance()

        with concurrent.futures.ThreadPoolExecutor(workers) as threads:
            try:
                for index, entry in enumerate(items):
                    item = Utterance(*entry)
                    _check_signals(item)
                    pending[threads.submit(score, item)] = index
                    if len(pending) >= 2 * workers:
                        collect(concurrent.futures.FIRST_COMPLETED)
                collect(concurrent.futures.ALL_COMPLETED)
            except BaseException:
                # A hanging metric would hold up the threads' end for its whole time limit.
                for future in pending:
                    future.cancel()
                for process in pool.processes:
                    process.close()
                raise
    ordered = [scores[index] for index in range(len(scores))]
    _warn_of_missing_packages(ordered)
    return ordered


def failure_counts(scores: Iterable[UtteranceScore]) -> dict[str, Counter[str]]:
    """How often each metric failed, by reason."""
    counts: dict[str, Counter[str]] = {}
    for score in scores:
        for metric, reason in score.failures.items():
            counts.setdefault(metric, Counter())[reason] += 1
    return counts


def _score(
    item: Utterance, sample_rate: int, metrics: Sequence[str], process: MetricProcess
) -> UtteranceScore:
    reference, noisy, estimate = (
        np.asarray(signal, np.float32) for signal in (item.reference, item.noisy, item.estimate)
    )
    values: dict[str, float] = {}
    failures: dict[str, str] = {}

    def put(metric: str, value: float, failure: str | None) -> None:
        values[metric] = value
        if failure is not None:
            failures[metric] = failure

    unusable = _unusable("reference", reference) or _unusable("estimate", estimate)
    remote = [metric for metric in metrics if metric not in LOCAL_METRICS]
    if unusable is None:
        functions = [WORKER_METRICS.get(metric, metric) for metric in remote]
        results = process.measure(functions, reference, estimate, sample_rate)
        achieved = float(si_sdr(estimate, reference))
    else:
        results, achieved = [(np.nan, unusable)] * len(remote), np.nan
    for metric, (value, failure) in zip(remote, results, strict=True):
        put(metric, value, failure)
    if "si_sdr" in metrics:
        put("si_sdr", achieved, unusable)
    if "si_sdr_improvement" in metrics:
        failure = unusable or _unusable("noisy signal", noisy)
        gain = np.nan if failure else achieved - float(si_sdr(noisy, reference))
        put("si_sdr_improvement", gain, failure)
    ordered = {metric: values[metric] for metric in metrics}
    measured = {name: float(value) for name, value in item.values.items()}
    return UtteranceScore(item.id, {**ordered, **measured}, failures, dict(item.attributes))


def _check(sample_rate: int, metrics: Sequence[str]) -> None:
    unknown = [name for name in metrics if name not in METRICS and ":" not in name]
    if unknown:
        legal = ", ".join(METRICS)
        raise ValueError(f"metrics must be of {legal} or 'module:function', got {unknown[0]!r}")
    if sample_rate != 16000:
        raise ValueError(f"sample_rate must be 16000 Hz, got {sample_rate}")


def _check_signals(item: Utterance) -> None:
    shapes = [np.shape(signal) for signal in (item.reference, item.noisy, item.estimate)]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise ValueError(
            f"{item.id}: reference, noisy and estimate must be (N,) of one length, got "
            + ", ".join(map(str, shapes))
        )


def _unusable(name: str, signal: np.ndarray) -> str | None:
    if not np.all(np.isfinite(signal)):
        return f"NaN or infinity in the {name}"
    if signal.size == 0 or np.max(np.abs(signal)) < _SILENCE:
        return f"silent {name}"
    return None


def _warn_of_missing_packages(scores: Sequence[UtteranceScore]) -> None:
    for metric, reasons in failure_counts(scores).items():
        for reason in reasons:
            if reason.endswith(MISSING):
                package = reason.removesuffix(MISSING).strip()
                warnings.warn(
                    f"{metric} was not measured and is NaN: the {reason}. "
                    f"`pip install {package}` adds it (pesq needs a C compiler).",
                    stacklevel=3,
                )


@contextlib.contextmanager
def _bar(show: bool, description: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Shows a progress bar; gives a function that moves it by one."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not show) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)
