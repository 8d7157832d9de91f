import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from pesq import pesq
from pystoi import stoi

from dynse.evaluation import metric_process
from dynse.evaluation.metrics import Utterance, failure_counts, score_utterances

DOUBLES = "metric_doubles"


@pytest.fixture(autouse=True)
def _doubles_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def speechlike(seed, seconds=2.0):
    """Noise with syllables: PESQ finds an utterance in it."""
    draw = np.random.default_rng(seed)
    time_s = np.arange(round(16000 * seconds)) / 16000
    envelope = np.maximum(np.sin(2 * np.pi * 3 * time_s), 0) + 0.01
    return (0.1 * envelope * draw.standard_normal(len(time_s))).astype(np.float32)


def pair(seed):
    clean = speechlike(seed)
    noise = 0.03 * np.random.default_rng(seed + 100).standard_normal(len(clean))
    noisy = clean + noise.astype(np.float32)
    return clean, noisy, clean + 0.5 * (noisy - clean)


def score(items, *, workers=2, timeout_s=60.0, **options):
    with metric_process.MetricPool(workers, timeout_s) as pool:
        return score_utterances(items, progress=False, pool=pool, **options)


def si_sdr_by_hand(estimate, reference):
    estimate, reference = (
        s.astype(np.float64) - s.mean(dtype=float) for s in (estimate, reference)
    )
    target = reference * (estimate @ reference) / (reference @ reference)
    return 10 * np.log10((target @ target) / ((estimate - target) @ (estimate - target)))


def test_metrics_equal_direct_calls():
    pairs = {f"u{seed}": pair(seed) for seed in range(3)}
    # A generator: nothing asks for its length.
    scores = score(
        (
            Utterance(name, *signals, {"snr_db": 5.0}, {"kept": 0.25})
            for name, signals in pairs.items()
        )
    )
    assert [s.id for s in scores] == list(pairs)
    for s in scores:
        clean, noisy, estimate = pairs[s.id]
        assert s.values["pesq"] == pytest.approx(pesq(16000, clean, estimate, "wb"), abs=1e-6)
        assert s.values["stoi"] == pytest.approx(stoi(clean, estimate, 16000), abs=1e-6)
        extended = stoi(clean, estimate, 16000, extended=True)
        assert s.values["estoi"] == pytest.approx(extended, abs=1e-6)
        achieved, before = si_sdr_by_hand(estimate, clean), si_sdr_by_hand(noisy, clean)
        assert s.values["si_sdr"] == pytest.approx(achieved, abs=1e-3)
        assert s.values["si_sdr_improvement"] == pytest.approx(achieved - before, abs=1e-3)
        assert s.values["kept"] == 0.25
        assert s.attributes == {"snr_db": 5.0}
        assert s.failures == {}


def test_failures_are_nan_with_their_reason():
    clean, noisy, estimate = pair(0)
    silence = np.zeros_like(clean)
    broken = np.where(np.arange(len(clean)) == 7, np.nan, estimate)
    scores = score(
        [
            ("silent reference", silence, noisy, estimate),
            ("silent estimate", clean, noisy, silence),
            ("silent noisy", clean, silence, estimate),
            ("nan", clean, noisy, broken),
            ("short", clean[2000:5000], noisy[2000:5000], estimate[2000:5000]),
        ]
    )
    found = {s.id: s for s in scores}
    for name in ("silent reference", "silent estimate"):
        assert np.isnan(list(found[name].values.values())).all()
        assert set(found[name].failures.values()) == {name}
    assert set(found["nan"].failures.values()) == {"NaN or infinity in the estimate"}
    # Only the gain needs the noisy signal.
    assert found["silent noisy"].failures == {"si_sdr_improvement": "silent noisy signal"}
    assert found["silent noisy"].values["pesq"] > 1
    # pystoi's 1e-5 is no score, and PESQ's own exception is named.
    assert np.isnan(found["short"].values["stoi"])
    assert "less than 0.4 s" in found["short"].failures["stoi"]
    assert "BufferTooShortError" in found["short"].failures["pesq"]
    assert np.isfinite(found["short"].values["si_sdr"])
    assert failure_counts(scores)["pesq"]["silent reference"] == 1
    assert failure_counts(scores)["stoi"].total() == 4


def test_a_hanging_or_dying_metric_costs_only_itself():
    items = [(f"u{seed}", *pair(seed)) for seed in range(2)]
    names = [f"{DOUBLES}:{name}" for name in ("hang", "correlation", "die", "fail", "infinite")]
    started = time.monotonic()
    scores = score(items, metrics=(*names, "si_sdr"), timeout_s=1.0, workers=2)
    assert time.monotonic() - started < 60
    for s in scores:
        assert s.failures[names[0]] == "time limit of 1 s"
        assert s.failures[names[2]] == "worker died with exit status 3"
        assert s.failures[names[3]] == "ArithmeticError: no such luck"
        assert s.failures[names[4]] == "returned inf"
        assert s.values[names[1]] == pytest.approx(1, abs=0.1)
        assert np.isfinite(s.values["si_sdr"])
        assert list(s.values) == [*names, "si_sdr"]


def test_workers_do_not_load_jax_and_may_print():
    import jax  # noqa: F401 -- loaded here, so that a fork would show it there

    names = (f"{DOUBLES}:chatter", f"{DOUBLES}:jax_is_loaded")
    (s,) = score([("u", *pair(0))], metrics=names)
    assert list(s.values.values()) == [1.0, 0.0]


def test_a_missing_package_is_said_once_and_the_rest_is_measured():
    missing = f"{DOUBLES}:not_installed"
    items = [(f"u{seed}", *pair(seed)) for seed in range(2)]
    with pytest.warns(UserWarning, match="pip install no_such_package_zzz") as caught:
        scores = score(items, metrics=(missing, "estoi"))
    assert len(caught) == 1
    assert np.isnan([s.values[missing] for s in scores]).all()
    assert all(s.values["estoi"] > 0 for s in scores)


def test_no_package_missing_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score([("u", *pair(0))], metrics=("estoi",))


def test_few_utterances_are_held_at_once():
    made, held = 0, []

    def items():
        nonlocal made
        for seed in range(9):
            made += 1
            held.append(made - done)
            yield (f"u{seed}", *pair(seed))

    done = 0

    class Counting(metric_process.MetricProcess):
        def measure(self, *arguments):
            nonlocal done
            results = super().measure(*arguments)
            done += 1
            return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynse.evaluation.metric_process.MetricProcess", Counting)
        assert len(score(items(), metrics=(f"{DOUBLES}:correlation",), workers=1)) == 9
    assert max(held) <= 3


def test_an_error_in_the_items_ends_the_workers():
    processes = []

    class Listed(metric_process.MetricProcess):
        def __init__(self, timeout_s):
            super().__init__(timeout_s)
            processes.append(self)

    def items():
        yield ("u", *pair(0))
        raise OSError("disk gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynse.evaluation.metric_process.MetricProcess", Listed)
        with pytest.raises(OSError, match="disk gone"):
            score(items(), metrics=(f"{DOUBLES}:hang",), timeout_s=60)
    assert processes
    assert all(process._process is None for process in processes)


def test_a_worker_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start"):
        score([("u", *pair(0))], metrics=("stoi",))


def test_no_worker_is_started_for_si_sdr_alone(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (s,) = score([("u", *pair(0))], metrics=("si_sdr",))
    assert np.isfinite(s.values["si_sdr"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("pesk",)}, "metrics must be of pesq, stoi"),
        ({"sample_rate": 8000}, "16000 Hz, got 8000"),
        ({"workers": 0}, "at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        score([], **options)


def test_signals_of_several_lengths_are_refused():
    clean, noisy, estimate = pair(0)
    with pytest.raises(ValueError, match=r"u7: .*\(31999,\)"):
        score([("u7", clean, noisy, estimate[:-1])], metrics=("si_sdr",))
