"""A bank on the host trains as it would on the device."""

import json
import threading

import jax
import numpy as np
import pytest
from training.small import bank, corpus, run_config

from dynse.data import mixing, reader
from dynse.data.mixing import device_source, host_source, load_source
from dynse.training import runs
from dynse.training.plan import affordable_steps
from dynse.training.runs import train_crops, train_run, validation_crops
from dynse.training.step import batch_key

CONFIG = run_config(steps=4, gated=False)


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("crops")]


def logged(lines):
    return [{k: v for k, v in line.items() if k != "audio_s_per_s"} for line in lines]


def same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture
def steps_read(monkeypatch):
    """All banks on the host; the groups that each read of crops was from."""
    monkeypatch.setattr(mixing, "DEVICE_BYTES", 0)
    read, original = [], reader.read_crops

    def noted(source, group, offset, samples):
        read.append((threading.current_thread().name, offset.tolist()))
        return original(source, group, offset, samples)

    monkeypatch.setattr(reader, "read_crops", noted)
    return read


@pytest.fixture(scope="module")
def on_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    _, variables, lines = train_run(folder, CONFIG, corpus())
    assert threads() == []  # nothing is read, so nothing ahead
    return variables, lines


def test_the_same_run_bit_for_bit(on_device, steps_read, tmp_path):
    """The step is one program for both, and both give it the same bits."""
    _, variables, lines = train_run(tmp_path, CONFIG, corpus())
    assert logged(lines) == logged(on_device[1])
    same(variables, on_device[0])
    assert threads() == []
    ahead = [offsets for thread, offsets in steps_read if thread.startswith("crops")]
    assert len(ahead) == 2 * CONFIG.loop.steps  # speech and noise of each step, none twice
    assert len(steps_read) == len(ahead) + 2 * 2  # and of two validations


def test_a_run_goes_on_from_its_step_on_the_other_side(on_device, steps_read, tmp_path):
    """Stopped in step 4 on the host, it has step 3 again on the device: its checkpoint is of 2."""

    class StopError(Exception):
        pass

    original, count = runs.train_step, []

    def broken(config, **options):
        step = original(config, **options)

        def counted(*args):
            count.append(1)
            if len(count) > 3:
                raise StopError
            return step(*args)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "train_step", broken)
        with pytest.raises(StopError):
            train_run(tmp_path, CONFIG, corpus())
    assert threads() == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixing, "DEVICE_BYTES", 10**9)
        steps_read.clear()
        asked, draw = [], runs.CropDraw.each
        patch.setattr(
            runs.CropDraw, "each", lambda self, steps: asked.append(steps) or draw(self, steps)
        )
        _, variables, lines = train_run(tmp_path, CONFIG, corpus())
    assert asked == [range(2, 4)]
    assert steps_read == []
    assert logged(lines) == logged(on_device[1])
    same(variables, on_device[0])


def test_a_reader_that_fails_ends_the_run_with_its_error(steps_read, tmp_path, monkeypatch):
    noted, count = reader.read_crops, []

    def fail(*args):
        count.append(1)
        if len(count) == 5:
            raise OSError("the disk is gone")
        return noted(*args)

    monkeypatch.setattr(reader, "read_crops", fail)
    config = run_config(steps=4, gated=False, every=4)
    with pytest.raises(OSError, match="the disk is gone"):
        train_run(tmp_path, config, corpus())
    assert threads() == []
    # The third step's: those before it were done.
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_speech_on_the_host_and_noise_on_the_device():
    speech, noise = host_source(bank(0)), host_source(bank(2))
    expected = train_crops(CONFIG, device_source(speech), device_source(noise), phase=1)
    for first, second in ((speech, device_source(noise)), (device_source(speech), noise)):
        crops = train_crops(CONFIG, first, second, phase=1)
        assert crops.from_host
        for found, wanted in zip(crops.each(range(5, 8)), map(expected, range(5, 8)), strict=True):
            same(found, wanted)
    assert threads() == []


def test_crops_and_mixing_make_the_batch_of_the_key():
    """What the step is given is what `draw_batch` draws: (a) and (b) are one batch."""
    speech, noise = load_source(bank(0)), load_source(bank(2))
    for phase, index in ((0, 3), (2, 3)):
        key = batch_key(index, seed=CONFIG.seed, phase=phase)
        expected = jax.jit(mixing.draw_batch, static_argnums=3)(speech, noise, key, CONFIG.mixing)
        crops = train_crops(CONFIG, speech, noise, phase=phase)(index)
        same(jax.jit(mixing.mix_crops, static_argnums=3)(*crops, key, CONFIG.mixing), expected)


def test_all_that_draws_from_a_corpus_can_read_it(steps_read):
    """Plans by the clock, validation batches, statistics of features."""
    assert affordable_steps([(CONFIG, 1.0)], corpus(), minutes=1e-6) == 60
    assert threads() == []
    speech, noise = load_source(bank(0)), load_source(bank(2))
    found = next(runs.noisy_magnitudes(CONFIG, speech, noise))
    assert validation_crops(CONFIG, corpus()).from_host
    expected = runs.noisy_magnitudes(CONFIG, *map(device_source, (speech, noise)))
    np.testing.assert_array_equal(found, next(expected))
