"""A cache with room for what comes, and the draw of a token."""

import pytest
import torch
from dlr_plugins.decoders.drawing import inverse_cdf, likeliest
from dlr_plugins.decoders.growing import growing_cache
from transformers import DynamicCache

from dlr_core.records import PromptCache

ROWS, HEADS, LENGTH, WIDTH, LAYERS = 4, 2, 5, 3, 2


def prompt() -> PromptCache:
    torch.manual_seed(0)
    tensors = [tuple(torch.randn(ROWS, HEADS, LENGTH, WIDTH) for _ in range(LAYERS)) for _ in range(2)]
    mask = torch.ones(ROWS, LENGTH, dtype=torch.long)
    return PromptCache(*tensors, mask, torch.zeros(ROWS, LENGTH, 6), torch.zeros(ROWS, 1, 6), 0)


def test_it_holds_what_transformers_own_cache_holds_while_rows_end_and_tokens_come() -> None:
    before = prompt()
    kept = [tensor.clone() for tensor in (*before.keys, *before.values)]
    ours, theirs = growing_cache(before, 6), DynamicCache()
    for layer in range(LAYERS):
        theirs.update(before.keys[layer], before.values[layer], layer)
    for rows, tokens in ((None, 2), ([0, 2, 3], 1), ([1], 3)):
        if rows is not None:
            for cache in (ours, theirs):
                cache.batch_select_indices(torch.tensor(rows))
        for layer in range(LAYERS):
            new = torch.randn(2, len(ours.layers[layer].keys), HEADS, tokens, WIDTH)
            for one, other in zip(ours.update(*new, layer), theirs.update(*new, layer), strict=True):
                assert torch.equal(one, other)
        assert ours.get_seq_length() == theirs.get_seq_length()
    assert all(torch.equal(x, y) for x, y in zip((*before.keys, *before.values), kept, strict=True))


@pytest.mark.parametrize("entries", [5, 16, 49_152])
def test_a_token_is_the_first_whose_cumulative_probability_exceeds_the_draw(entries) -> None:
    torch.manual_seed(1)
    logits = 3 * torch.randn(64, entries)
    uniform = torch.rand(64, dtype=torch.float64)
    uniform[:2] = torch.tensor([0.0, 1.0 - 1e-16])
    cumulative = logits.softmax(-1).double().cumsum(1)
    expected = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(1).clamp(max=entries - 1)
    assert (inverse_cdf(logits, uniform) == expected).double().mean() > 0.98  # sums in another order may tie


def test_what_has_no_probability_is_never_drawn() -> None:
    logits = torch.full((200, 37), -torch.inf)
    logits[:, 17], logits[:, 30] = 0.0, 1.0
    drawn = inverse_cdf(logits, torch.linspace(0, 1, 200, dtype=torch.float64).clamp(max=1 - 1e-12))
    assert set(drawn.tolist()) == {17, 30}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_tokens_that_are_equally_likely_the_first_is_chosen(dtype) -> None:
    torch.manual_seed(3)
    logits = torch.randn(20, 300).round(decimals=1).to(dtype)
    logits[:5] = -torch.inf
    logits[4, 77] = logits[4, 200] = -5.0
    chosen = likeliest(logits)
    assert chosen.dtype == torch.long
    for row, at in zip(logits.tolist(), chosen.tolist(), strict=True):
        assert at == row.index(max(row))
