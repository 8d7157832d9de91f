"""Every bad file is refused by name and reason; good ones come back as they were written."""

import errno
import logging
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from dynse import atomic
from dynse.audio import files
from dynse.audio.files import (
    AudioFileError,
    decode_audio,
    read_audio,
    resample,
    to_int16,
)
from dynse.audio.files import write_audio as write


def tone(seconds=0.5, hz=440.0, sample_rate=16000, amplitude=0.5):
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return (amplitude * np.sin(2 * np.pi * hz * time)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_pcm_survives_to_half_a_step(tmp_path, suffix):
    samples = np.random.default_rng(0).uniform(-0.99, 0.99, 4000).astype(np.float32)
    write(tmp_path / f"a{suffix}", samples)
    assert soundfile.info(tmp_path / f"a{suffix}").subtype == "PCM_16"
    back = read_audio(tmp_path / f"a{suffix}")
    assert back.dtype == np.float32
    assert np.abs(back - samples).max() <= 2.0**-16
    write(tmp_path / f"b{suffix}", back)
    np.testing.assert_array_equal(read_audio(tmp_path / f"b{suffix}"), back)


@pytest.mark.parametrize("suffix", [".ogg", ".mp3"])
def test_lossy_formats_keep_length_and_spectrum(tmp_path, suffix):
    write(tmp_path / f"a{suffix}", tone(2.0))
    back = read_audio(tmp_path / f"a{suffix}")
    assert abs(back.size - 32000) <= 2304
    assert np.argmax(np.abs(np.fft.rfft(back[8000:24000]))) == 440


def test_minutes_of_ogg_are_written_in_blocks(tmp_path):
    # in a single call libvorbis overflows its stack on this length
    write(tmp_path / "a.ogg", np.tile(tone(10.0), 18))
    assert soundfile.info(tmp_path / "a.ogg").duration == pytest.approx(180)


def test_stereo_is_averaged_with_a_notice(tmp_path, caplog):
    left, right = tone(), tone(hz=1000.0)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 16000, subtype="FLOAT")
    samples, notices = decode_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-7)
    assert notices == ("averaged 2 channels",)
    with caplog.at_level(logging.WARNING):
        read_audio(tmp_path / "a.wav")
    assert "a.wav: averaged 2 channels" in caplog.text


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 1), (44100, 2), (48000, 1)])
def test_other_rates_are_resampled_with_a_notice(tmp_path, rate, channels):
    samples = np.repeat(tone(sample_rate=rate)[:, None], channels, 1)
    soundfile.write(tmp_path / "a.flac", samples, rate)
    back, notices = decode_audio(tmp_path / "a.flac")
    assert f"resampled from {rate} to 16000 Hz" in notices
    assert abs(back.size - 8000) <= 1
    middle = slice(1000, 7000)
    np.testing.assert_allclose(back[middle], tone()[middle], atol=1e-3)


def test_a_mono_file_of_the_right_rate_raises_no_notice(tmp_path, caplog):
    write(tmp_path / "a.wav", tone())
    with caplog.at_level(logging.WARNING):
        read_audio(tmp_path / "a.wav")
    assert caplog.text == ""


def test_what_passes_full_scale_is_scaled_down(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", tone(amplitude=2.0), 16000, subtype="FLOAT")
    samples, notices = decode_audio(tmp_path / "a.wav")
    assert notices == ("scaled down to full scale",)
    np.testing.assert_allclose(samples, tone(amplitude=1.0), atol=1e-3)
    assert np.abs(samples).max() == 1.0
    with caplog.at_level(logging.WARNING):
        write(tmp_path / "b.wav", tone(amplitude=2.0))
    assert "b.wav: scaled down" in caplog.text
    np.testing.assert_allclose(read_audio(tmp_path / "b.wav"), samples, atol=2.0**-15)


def _nan(value):
    samples = tone()
    samples[7] = value
    return samples


BAD = {
    "missing": (lambda path: None, "does not exist"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "zero_bytes": (lambda path: path.touch(), r"is empty \(0 bytes\)"),
    "lfs_stub": (
        lambda path: path.write_text(
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
        ),
        "is a Git LFS pointer",
    ),
    "garbage": (
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
        "cannot be decoded: Format not recognised",
    ),
    "no_samples": (lambda path: soundfile.write(path, np.zeros(0), 16000), "holds no samples"),
    "nan": (
        lambda path: soundfile.write(path, _nan(np.nan), 16000, subtype="FLOAT"),
        "holds 1 NaN or infinite samples",
    ),
    "inf": (
        lambda path: soundfile.write(path, _nan(-np.inf), 16000, subtype="FLOAT"),
        "holds 1 NaN or infinite samples",
    ),
    "short": (
        lambda path: soundfile.write(path, tone()[:511], 16000),
        "too short: 511 samples at 16000 Hz, at least 512",
    ),
    "short_once_resampled": (
        lambda path: soundfile.write(path, tone()[:600], 48000),
        "too short: 200 samples",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_with_a_reason(tmp_path, case):
    make, reason = BAD[case]
    path = tmp_path / "speaker-1.wav"
    make(path)
    with pytest.raises(AudioFileError, match=reason) as caught:
        read_audio(path)
    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {caught.value.reason}"


@pytest.mark.parametrize("suffix", [".flac", ".mp3"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    whole = tmp_path / f"a{suffix}"
    write(whole, np.random.default_rng(0).uniform(-0.5, 0.5, 48000))
    content = whole.read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioFileError, match=r"truncated|cannot be decoded"):
        read_audio(tmp_path / f"b{suffix}")
    read_audio(whole)


def test_a_frame_is_long_enough(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone()[:512], 16000)
    assert read_audio(tmp_path / "a.wav").size == 512


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path, monkeypatch):
    write(tmp_path / "a.wav", tone(hz=100.0))
    before = (tmp_path / "a.wav").read_bytes()

    # /dev/full gives the kernel's own ENOSPC on every write
    def full(path, mode):
        return open("/dev/full", mode)

    monkeypatch.setattr(atomic, "open", full, raising=False)
    with pytest.raises(OSError, match=r"cannot write 16044 bytes: No space left") as caught:
        write(tmp_path / "a.wav", tone())
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "a.wav")
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "new.flac", tone())
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "samples", "message"),
    [
        ("a.xyz", np.zeros(600), "expected one of the suffixes"),
        ("a.wav", np.zeros((2, 2, 2)), "got .2, 2, 2."),
        ("a.wav", np.zeros(0), "got .0,."),
        ("a.wav", np.array([0.0, np.nan]), "NaN or infinity"),
    ],
)
def test_write_refuses(tmp_path, name, samples, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / name, samples)
    assert list(tmp_path.iterdir()) == []


def test_the_duration_comes_from_the_header(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(0.25, sample_rate=44100), 44100)
    assert files.duration_s(tmp_path / "a.flac") == pytest.approx(0.25, abs=1e-4)
    (tmp_path / "b.wav").write_bytes(bytes(100))
    assert files.duration_s(tmp_path / "b.wav") == 0.0


def test_stereo_is_written(tmp_path):
    write(tmp_path / "a.wav", np.stack([tone(), tone(hz=200.0)], 1))
    assert soundfile.info(tmp_path / "a.wav").channels == 2


def test_int16_rounds_to_nearest():
    step = 2.0**-15
    values = np.array([0.49 * step, 0.51 * step, -0.51 * step, 1.0, -1.0])
    np.testing.assert_array_equal(to_int16(values), [0, 1, -1, 32767, -32768])
    every = np.arange(-32768, 32768, dtype=np.int16)
    np.testing.assert_array_equal(to_int16(every.astype(np.float32) / 32768), every)
    for bad in (1.001, np.nan):
        with pytest.raises(ValueError, match="must lie in"):
            to_int16(np.array([bad]))


def test_resample_refuses_a_rate_of_nothing():
    with pytest.raises(ValueError, match="must be positive"):
        resample(tone(), 0, 16000)


def test_importing_loads_no_audio_library():
    code = (
        "import sys, dynse.audio.files, dynse.data.cache, dynse.data.folders, dynse.data.testsets\n"
        "print(sorted({'soundfile', 'soxr', 'librosa', 'matplotlib'} & set(sys.modules)))\n"
        "import soundfile\n"
        "print('soundfile' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split("\n")[:2] == ["[]", "True"]
