"""One network with several sets of variables, and mixtures brought to its level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.small import corpus

from dynse.audio.stft import STFT
from dynse.data.drawing import make_test_set
from dynse.evaluation.metric_process import MetricPool
from dynse.evaluation.nets import enhance_mixtures
from dynse.evaluation.variants import VariantScores
from dynse.models.network import Aux
from dynse.models.waveform import enhance

STFT_SMALL = STFT(64, 64, 32)


class Compressor:
    """A gain that depends on the level: (1 + |X|) ** -power."""

    def apply(self, variables, frames):
        return (), (1 + frames) ** -variables["power"], Aux((), ())

    def cost(self):
        return []


@pytest.fixture(scope="module")
def mixtures():
    data = corpus()
    options = {"name": "valid", "seed": 0, "snrs_db": (0, 5), "per_snr": 1}
    return data, make_test_set(data, "valid", **options, min_s=1.5, max_s=2.5)


def test_mixtures_at_one_rms_and_back(mixtures):
    data, test_set = mixtures
    variables = {"power": jnp.float32(0.5)}
    options = {"stft": STFT_SMALL, "batch_size": 2}
    found = list(enhance_mixtures(Compressor(), variables, data, test_set, **options, rms=0.5))
    plain = list(enhance_mixtures(Compressor(), variables, data, test_set, **options))
    run = jax.jit(lambda x: enhance(Compressor(), variables, x, stft=STFT_SMALL)[0])
    for one, other in zip(found, plain, strict=True):
        noisy = one.mixture.noisy
        rms = np.sqrt(np.mean(noisy.astype(np.float64) ** 2))
        np.testing.assert_allclose(
            one.enhanced, 2 * rms * run(noisy[None] / (2 * rms))[0], atol=1e-6
        )
        np.testing.assert_allclose(other.enhanced, run(noisy[None])[0], atol=1e-6)
        assert np.abs(one.enhanced - other.enhanced).max() > 1e-3


def test_scores_of_variables_and_of_the_input(mixtures, tmp_path):
    data, test_set = mixtures
    with MetricPool() as pool:
        scores = VariantScores(Compressor(), STFT_SMALL, data, pool, tmp_path)
        one = {"power": jnp.float32(0.0)}  # a gain of 1: the input
        noisy = scores.noisy_record(test_set)
        record = scores.record("same", one, test_set, {"power": 0.0})
        for metric in ("si_sdr", "estoi"):
            np.testing.assert_allclose(record.values(metric), noisy.values(metric), atol=1e-3)
        means = scores.means(one, test_set, ("si_sdr",))
        assert means == {"si_sdr": pytest.approx(np.mean(noisy.values("si_sdr")), abs=1e-3)}
        # Other variables are another record; the same is read.
        other = scores.record("other", {"power": jnp.float32(0.9)}, test_set, {"power": 0.9})
        assert other.values("si_sdr") != record.values("si_sdr")
        assert scores.record("same", None, test_set, {"power": 0.0}) == record
