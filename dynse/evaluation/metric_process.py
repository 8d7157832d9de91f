"""A metric worker seen from its parent: started when needed, killed when it hangs.

A plain child process rather than `multiprocessing`: forking a process that runs JAX can deadlock,
and spawning would import the caller's main script, and JAX with it, once in every worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence

import numpy as np


class MetricProcess:
    """One worker process at a time; a dead or killed one is replaced at the next call.

    Args:
        timeout_s: time that one metric may take on one utterance.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._process: subprocess.Popen | None = None
        self._closed = False
        self._lock = threading.Lock()

    def measure(
        self,
        functions: Sequence[str],
        reference: np.ndarray,
        estimate: np.ndarray,
        sample_rate: int,
    ) -> list[tuple[float, str | None]]:
        """Values of one utterance, in the order of the functions.

        Args:
            functions: "module:function" of each metric.
            reference: (N,) float32.
            estimate: (N,) float32.
            sample_rate: in Hz.

        Returns:
            (value, None), or (NaN, why) for a metric that failed, crashed or ran out of time; the
            metrics after it still run, in a fresh process.

        Raises:
            RuntimeError: where a worker does not start.
        """
        results: list[tuple[float, str | None]] = []
        while len(results) < len(functions):
            process = self._running()
            if not self._send(process, functions[len(results) :], reference, estimate, sample_rate):
                self._stop()
                results.append((float("nan"), "worker died"))
                continue
            while len(results) < len(functions):
                answer, failure = self._receive(process)
                if answer is None:
                    self._stop()
                    results.append((float("nan"), failure))
                    break
                value = answer.get("value")
                results.append(
                    (float("nan"), answer["failure"]) if value is None else (value, None)
                )
        return results

    def close(self) -> None:
        """Ends the worker; a call under way in another thread ends with an error."""
        self._closed = True
        self._stop()

    def _running(self) -> subprocess.Popen:
        with self._lock:
            if self._closed:
                raise RuntimeError("the metric worker is closed")
            if self._process is not None:
                return self._process
            # The worker sees the modules that this process sees, installed or not; `-P` keeps
            # its own folder out of the path.
            paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
            one_thread = dict.fromkeys(
                ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dynse.evaluation.metric_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **one_thread, "PYTHONPATH": paths},
            )
            process = self._process
        if not process.stdout.readline():
            self._stop()
            raise RuntimeError(
                f"a metric worker did not start ({sys.executable} -m dynse.evaluation."
                f"metric_worker ended with {process.returncode}); its message is above"
            )
        return process

    @staticmethod
    def _send(
        process: subprocess.Popen,
        functions: Sequence[str],
        reference: np.ndarray,
        estimate: np.ndarray,
        sample_rate: int,
    ) -> bool:
        request = {
            "functions": list(functions),
            "sample_rate": sample_rate,
            "samples": len(reference),
        }
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            for signal in (reference, estimate):
                process.stdin.write(np.ascontiguousarray(signal, np.float32).data)
            process.stdin.flush()
        except OSError:
            return False
        return True

    def _receive(self, process: subprocess.Popen) -> tuple[dict | None, str]:
        late = threading.Event()

        def kill() -> None:
            late.set()
            process.kill()

        # Killing closes the pipe, which ends the blocking read: works where select on pipes
        # does not.
        timer = threading.Timer(self.timeout_s, kill)
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if late.is_set():
            return None, f"time limit of {self.timeout_s:g} s"
        if line.endswith(b"\n"):
            return json.loads(line), ""
        return None, f"worker died with exit status {process.wait()}"

    def _stop(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # Unsent bytes of a request nobody will read.
                pipe.close()


class MetricPool:
    """Workers that serve several calls of `score_utterances`: starting one takes seconds.

    A context manager; its end ends the workers.

    Args:
        workers: processes; none is started before it is needed.
        timeout_s: time that one metric may take on one utterance.
    """

    def __init__(self, workers: int = 2, timeout_s: float = 60.0) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.processes = tuple(MetricProcess(timeout_s) for _ in range(workers))

    def __enter__(self) -> MetricPool:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.close()
