"""Prompts run in passes of similar length: fewest positions, every row where it was, the same as alone."""

from itertools import product

import pytest
import torch
from dlr_plugins.decoders import prefilling
from dlr_plugins.decoders.prefilling import passes_of

QUESTIONS = [
    "How much is 5 + 6, and what is that less 1?",
    "7?",
    "How much is 5 + 6, and what is that less 9?",
    "8 - 4?",
    "9?",
]


def cost(lengths, passes, further):
    return sum(len(rows) * max(lengths[row] for row in rows) + further for rows in passes)


@pytest.mark.parametrize(
    "lengths", [[5], [3, 3, 3], [9, 1, 9, 1], [1, 2, 3, 10, 11], [40, 7, 40, 8, 90], [6, 5, 4, 3, 2, 1]]
)
@pytest.mark.parametrize("further", [0, 3, 10, 100])
def test_no_other_passes_compute_less(lengths, further):
    found = passes_of(lengths, further)
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    assert all(rows == sorted(rows) for rows in found)
    ways = []
    for numbers in product(range(len(lengths)), repeat=len(lengths)):
        split = [[row for row, own in enumerate(numbers) if own == number] for number in set(numbers)]
        ways.append(cost(lengths, split, further))
    assert cost(lengths, found, further) == min(ways)


def test_rows_of_one_length_are_one_pass_and_far_ones_are_not():
    assert passes_of([7] * 40, 0) == [list(range(40))]
    assert passes_of([90, 7, 90], 32) == [[1], [0, 2]]
    assert passes_of([90, 80, 90], 32) == [[0, 1, 2]]


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("latents", [0, 2])
@pytest.mark.parametrize("further", [0, 10**6])
def test_every_row_is_what_it_is_alone(tiny_decoder, monkeypatch, latents, further):
    monkeypatch.setattr(prefilling, "PASS_ON_CPU", further)
    anchor = tiny_decoder.encode("So:")
    before = tiny_decoder.usage.prefilled
    cache = tiny_decoder.prefill(QUESTIONS, anchor[:-1], anchor[-1:], latents)
    counted = tiny_decoder.usage.prefilled - before
    real = int(cache.mask_NS.sum()) - (len(QUESTIONS) - 1) * cache.beginning.length
    assert (counted == real) == (further == 0)  # what all begin with is counted once, and no padding
    assert cache.mask_NS[:, -len(anchor) :].all()  # padded on the left: latents are the last positions of all
    for row, question in enumerate(QUESTIONS):
        alone = tiny_decoder.prefill([question], anchor[:-1], anchor[-1:], latents)
        kept = cache.mask_NS[row].bool()
        assert int(kept.sum()) == alone.mask_NS.shape[1]
        for mine, other in zip([*cache.keys, *cache.values], [*alone.keys, *alone.values], strict=True):
            close(mine[row : row + 1][:, :, kept], other)
        close(cache.states_NSH[row : row + 1][:, kept], alone.states_NSH)
        assert torch.equal(cache.pending_NPH[row : row + 1], alone.pending_NPH)
    assert cache.num_latents == latents
    texts = tiny_decoder.decode(cache, 6).texts
    alone = [tiny_decoder.prefill([one], anchor[:-1], anchor[-1:], latents) for one in QUESTIONS]
    assert texts == [tiny_decoder.decode(one, 6).texts[0] for one in alone]
