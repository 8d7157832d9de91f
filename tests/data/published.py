"""Tiny folders laid out as VoiceBank+DEMAND and the DNS Challenge are published."""

import numpy as np
import soundfile

LOG = "p232_001 bus 17.5\n  p232_002   living   2.5  \n\nnot a row\np257_001\tcafe -7.5\n"


def speech(seed, seconds, rate):
    """Bursts of noise and pauses between them, the first a burst."""
    draw = np.random.default_rng(seed)
    bursts = draw.uniform(size=round(seconds * 20)) < 0.7
    bursts[0] = True
    return 0.2 * np.repeat(bursts, rate // 20) * draw.uniform(-1, 1, len(bursts) * rate // 20)


def added(seed, seconds, rate):
    """What is added to it."""
    return 0.1 * np.random.default_rng(1000 + seed).uniform(-1, 1, round(seconds * rate))


def write(path, samples, rate):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")


def write_pair(clean_path, noisy_path, seed, seconds=0.4, rate=48000):
    clean = speech(seed, seconds, rate)
    write(clean_path, clean, rate)
    write(noisy_path, clean + added(seed, seconds, rate), rate)


def voicebank(root, train="trainset_28spk", speakers=("p226", "p227", "p228", "p287")):
    """Two files of each training speaker, three of p232 and two of p257."""
    seed = 0
    for part, counts in ((train, dict.fromkeys(speakers, 2)), ("testset", {"p232": 3, "p257": 2})):
        for speaker, count in counts.items():
            for number in range(1, count + 1):
                name = f"{speaker}_{number:03d}.wav"
                sides = (root / f"{side}_{part}_wav" / name for side in ("clean", "noisy"))
                write_pair(*sides, seed, seconds=0.3 + 0.05 * (seed % 4))
                seed += 1
    (root / "log_testset.txt").write_text(LOG)
    return root


def dns_challenge(root, readers=range(60), noises=30):
    """Readers by their file's name, one folder of singers, one lone file; noise and test pairs."""
    data = root / "datasets"
    for reader in readers:
        name = f"book_{reader}_chp_0_reader_{reader:05d}_0.wav"
        write(data / "clean" / name, speech(reader, 0.1, 16000), 16000)
    write(data / "clean/singers/a.wav", speech(900, 0.1, 16000), 16000)
    write(data / "clean/singers/deep/b.wav", speech(901, 0.1, 16000), 16000)
    write(data / "clean/alone.wav", speech(902, 0.1, 16000), 16000)
    for noise in range(noises):
        write(data / f"noise/{noise}.wav", added(noise, 0.1, 16000), 16000)
    write(data / "noise/door/knock.wav", added(99, 0.1, 16000), 16000)
    pairs = data / "test_set/synthetic/no_reverb"
    # in the order of the names, clean and noisy files do not lie beside each other
    for seed, (number, noisy) in enumerate(
        ((2, "clnsp9_rain_1_snr12_tl-24"), (10, "clnsp1_cat_snr-3_tl-30"), (7, "clnsp5_hum"))
    ):
        write_pair(
            pairs / f"clean/clean_fileid_{number}.wav",
            pairs / f"noisy/{noisy}_fileid_{number}.wav",
            700 + seed,
            rate=16000,
        )
    return root
