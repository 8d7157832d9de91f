"""Which mixtures probes get."""

import numpy as np
import pytest

from dynse.data.named import named_corpus
from dynse.data.testsets import render
from dynse.probes.sets import (
    draw_mixtures,
    draw_noise_mixtures,
    noise_classes,
    quiet_mixtures,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return named_corpus("smoke", seed=0, cache_dir=tmp_path_factory.mktemp("cache"))


def test_noise_classes_that_cannot_be_told_apart_are_named(corpus):
    assert len(noise_classes(corpus, 1)) >= 2
    with pytest.raises(ValueError, match=r"two noise classes or more with 99 recordings.*got \[\]"):
        noise_classes(corpus, 99)


def test_noise_mixtures_hold_these_classes_alone(corpus):
    classes = noise_classes(corpus, 1)[:2]
    options = {"per_snr": 2, "mixture_s": (3.0, 4.0)}
    found = [
        render(one, corpus).noise_class
        for one in draw_noise_mixtures(corpus, "test", classes, **options)
    ]
    assert set(found) == set(classes)
    assert len(found) == 10
    every = [render(one, corpus).noise_class for one in draw_mixtures(corpus, "test", **options)]
    assert len(every) == 10
    assert not set(every) <= set(classes)  # negative control


def test_quiet_mixtures_are_the_same_but_for_the_noise(corpus):
    loud = draw_mixtures(corpus, "test", per_snr=2, mixture_s=(3.0, 4.0))
    quiet = quiet_mixtures(loud, 30.0, 3)
    assert [one.id for one in quiet] == [one.id for one in loud.mixtures[::3]]
    for one, other in zip(quiet, loud.mixtures[::3], strict=True):
        a, b = render(one, corpus), render(other, corpus)
        assert a.snr_db == 30
        # Up to the scale that keeps the peak, speech is the same.
        correlation = np.corrcoef(a.clean, b.clean)[0, 1]
        assert correlation == pytest.approx(1, abs=1e-6)
        ratio = np.square(a.noise).sum() / np.square(b.noise).sum()
        level = np.square(a.clean).sum() / np.square(b.clean).sum()
        assert 10 * np.log10(ratio / level) == pytest.approx(other.snr_db - 30, abs=0.01)
