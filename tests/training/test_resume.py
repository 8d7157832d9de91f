"""A run that was stopped, by an error or by SIGKILL, ends as one that never was."""

import dataclasses
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from training.small import corpus, run_config

from dynse.training import runs
from dynse.training.runs import train_run

CONFIG = run_config(steps=200, every=20)
TESTS = Path(__file__).parents[1]
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from training.test_resume import CONFIG, corpus, train_run
train_run(sys.argv[1], CONFIG, corpus())
"""


class StopError(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Variables and log of a run never stopped."""
    _, variables, lines = train_run(tmp_path_factory.mktemp("whole"), CONFIG, corpus())
    return variables, lines


def same(left, right):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


def measured(entries):
    return [{k: v for k, v in line.items() if k != "audio_s_per_s"} for line in entries]


def interrupted(monkeypatch, after):
    """Make the train step of the next run raise after some steps."""
    original = runs.train_step

    def broken(config, **options):
        step, count = original(config, **options), [0]

        def counted(*args):
            count[0] += 1
            if count[0] > after:
                raise StopError
            return step(*args)

        return counted

    monkeypatch.setattr(runs, "train_step", broken)


def test_an_error(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted(patch, after=23)
        with pytest.raises(StopError):
            train_run(tmp_path, CONFIG, corpus())
    # What was logged after the checkpoint, and a line that was cut short.
    path = tmp_path / "metrics.jsonl"
    assert json.loads(path.read_text().splitlines()[-1])["step"] == 23
    path.write_text(path.read_text() + '{"step": 23, "lo')
    _, variables, lines = train_run(tmp_path, CONFIG, corpus())
    assert same(whole[0], variables)
    assert measured(whole[1]) == measured(lines)


def test_another_seed_ends_elsewhere(whole, tmp_path):
    """So equal bits above mean something."""
    other = dataclasses.replace(CONFIG, seed=4, loop=dataclasses.replace(CONFIG.loop, steps=20))
    _, variables, lines = train_run(tmp_path, other, corpus())
    assert not same(whole[0], variables)
    assert measured(whole[1])[0] != measured(lines)[0]


def check_kills(whole, run_dir, kills):
    """Kill a run that many times once it steps, then let it finish."""
    draw = random.Random(0)
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(run_dir), str(TESTS)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        lines = _lines(run_dir)
        # Wait until it has logged something new: the kill shall not hit only the imports.
        while process.poll() is None and _lines(run_dir) <= lines:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))
        assert process.poll() is None, process.communicate()[1].decode()[-2000:]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    _, variables, lines = train_run(run_dir, CONFIG, corpus())
    assert same(whole[0], variables)
    assert measured(whole[1]) == measured(lines)
    assert [path for path in run_dir.rglob("*") if ".part" in path.name] == []
    assert list(run_dir.rglob("*orbax-checkpoint-tmp*")) == []


def _lines(run_dir):
    path = run_dir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_a_kill(whole, tmp_path):
    check_kills(whole, tmp_path, 1)


@pytest.mark.slow
def test_five_kills(whole, tmp_path):
    check_kills(whole, tmp_path, 5)
