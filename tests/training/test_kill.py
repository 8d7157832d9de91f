"""SIGKILL at random moments: the resumed run ends with the parameters of one never stopped."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from dynse.training.runs import load_run

TESTS = Path(__file__).parents[1]
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from dynse.training.runs import train_run
from training.small import corpus, run_config
train_run(sys.argv[1], run_config(steps=int(sys.argv[3]), every=20), corpus())
"""


def start(run_dir, steps):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(run_dir), str(TESTS), str(steps)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(run_dir, steps):
    process = start(run_dir, steps)
    _, message = process.communicate(timeout=300)
    assert process.returncode == 0, message.decode()[-2000:]


def killed(run_dir, steps, kills, seed):
    """Kill a run that many times once it steps, then let it finish; gives the kills that hit."""
    draw = random.Random(seed)
    hits = 0
    for _ in range(kills):
        process = start(run_dir, steps)
        lines = _lines(run_dir)
        # Wait until it has logged something new: the kill shall not hit only the imports.
        while process.poll() is None and _lines(run_dir) <= lines:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))
        hits += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(run_dir, steps)
    return hits


def _lines(run_dir):
    path = run_dir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def check(tmp_path, steps, kills):
    finish(tmp_path / "whole", steps)
    assert killed(tmp_path / "killed", steps, kills, seed=0) == kills
    whole, resumed = load_run(tmp_path / "whole")[1], load_run(tmp_path / "killed")[1]
    for left, right in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(left, right)
    left_over = [path for path in (tmp_path / "killed").rglob("*") if ".part" in path.name]
    assert left_over == []
    assert not list((tmp_path / "killed").rglob("*orbax-checkpoint-tmp*"))


def test_one_kill(tmp_path):
    check(tmp_path, steps=60, kills=1)


@pytest.mark.slow
def test_five_kills(tmp_path):
    check(tmp_path, steps=200, kills=5)
