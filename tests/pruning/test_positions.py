import numpy as np
import pytest
from constriction import stream
from hypothesis import given, settings
from hypothesis import strategies as st

from dynse.pruning.accounting import by_group
from dynse.pruning.positions import (
    Form,
    decode_positions,
    encode_positions,
    form_bits,
    smallest_form,
)


def coded(kept, form):
    """The positions after encoding and decoding, and the bytes between."""
    encoder = stream.queue.RangeEncoder()
    rows = by_group(kept, form.axes)
    codes = encode_positions(encoder, rows, form.own)
    words = encoder.get_compressed()
    numbers = int(rows.any(1).sum()), int(rows.sum())
    decoder = stream.queue.RangeDecoder(words)
    back = decode_positions(decoder, rows.shape, *numbers, codes if form.own else None)
    np.testing.assert_array_equal(back, rows)
    return words.nbytes + codes.nbytes


def draws(kind):
    rng = np.random.default_rng(2)
    shape = (60, 400)
    density = rng.uniform(0, 0.5, 60)[:, None]
    return {
        "alike": rng.random(shape) < 0.1,
        "whole groups": np.broadcast_to(rng.random((60, 1)) < 0.4, shape),
        "some inputs more": rng.random(shape) < density,
        "some outputs more": (rng.random(shape) < density).T,
    }[kind]


SMALLEST = {
    "alike": Form((), False),
    "whole groups": Form((1,), False),
    "some inputs more": Form((1,), True),
    "some outputs more": Form((0,), True),
}


@pytest.mark.parametrize("kind", sorted(SMALLEST))
def test_the_smallest_form_is_what_the_coder_makes_smallest(kind):
    kept = draws(kind)
    forms = [
        Form(axes, own) for axes in [(), (0,), (1,)] for own in (False, True) if axes or not own
    ]
    found = {form: coded(kept, form) for form in forms}
    for form, size in found.items():
        # A stream ends on a whole word, two at most.
        assert form_bits(kept, form) / 8 * 0.9999 <= size <= form_bits(kept, form) / 8 * 1.001 + 8
    chosen = smallest_form(kept, (1,))
    assert found[chosen] <= min(found.values()) + 8
    assert chosen == SMALLEST[kind] or found[chosen] < found[SMALLEST[kind]]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(st.integers(0, 5), min_size=1, max_size=3))
def test_every_form_brings_every_position_back(data, shape):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    kept = rng.random(shape) < data.draw(st.sampled_from([0, 0.1, 0.5, 0.9, 1]))
    axes = data.draw(st.permutations(range(len(shape))))[: data.draw(st.integers(0, len(shape)))]
    for own in (False, True):
        coded(kept, Form(tuple(axes), own))


def test_other_numbers_than_the_codes_are_refused():
    kept = draws("alike")
    encoder = stream.queue.RangeEncoder()
    encode_positions(encoder, kept, False)
    words = encoder.get_compressed()
    for live, nonzeros in [(60, int(kept.sum()) + 50), (59, int(kept.sum()))]:
        decoder = stream.queue.RangeDecoder(words)
        with pytest.raises((ValueError, AssertionError)):
            decode_positions(decoder, kept.shape, live, nonzeros, None)
