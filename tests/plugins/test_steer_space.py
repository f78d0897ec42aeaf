"""The `steer` space, and the decoder's verb that it stands on."""

import pytest
import torch
from pydantic import ValidationError

from dlr_core.errors import ModelError

QUESTIONS = ["What is 2 + 2?", "Hi", "3 * 4 ="]


def make(host, decoder, **options):
    settings = {"chart": "random", "num_latents": 3, "latent_dim": 8, **options}
    space = host.create("space", "steer", settings, decoder=decoder)
    space.calibrate(QUESTIONS)
    return space


def prefill(decoder, space):
    return decoder.prefill(QUESTIONS, space.anchor_ids, space.pending_ids, space.num_latents)


def uniform(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_growing_a_cache_is_prefilling_the_longer_text(tiny_decoder):
    ids = tiny_decoder.encode("abcd")
    whole = tiny_decoder.prefill(QUESTIONS, ids, tiny_decoder.encode("="), 2)
    short = tiny_decoder.prefill(QUESTIONS, ids[:2], ids[2:], 0)
    before = [tensor.clone() for tensor in short.keys]
    grown = tiny_decoder.grow(short, short.pending_NPH)
    for x, y in zip((*grown.keys, *grown.values), (*whole.keys, *whole.values), strict=True):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(grown.states_NSH[:, -6:], whole.states_NSH[:, -6:], atol=1e-4, rtol=1e-4)
    assert torch.equal(grown.mask_NS, whole.mask_NS)
    assert all(torch.equal(x, y) for x, y in zip(before, short.keys, strict=True))
    assert grown.pending_NPH.shape[1] == grown.num_latents == 0


@pytest.mark.parametrize("model", ["tiny_model", "tiny_gpt2"])
def test_every_layer_is_steered_once_and_nothing_stays_behind(host, model, request):
    decoder = host.create("decoder", "hf", {"model": str(request.getfixturevalue(model))})
    cache = decoder.prefill(QUESTIONS, [], decoder.encode("ab"), 0)
    seen = []

    def watch(layer, hidden):
        seen.append((layer, tuple(hidden.shape)))
        return hidden

    plain = decoder.grow(cache, cache.pending_NPH)
    watched = decoder.grow(cache, cache.pending_NPH, watch)
    assert seen == [(layer, (3, 2, decoder.hidden_size)) for layer in range(len(decoder.kv_sizes))]
    assert torch.equal(plain.states_NSH, watched.states_NSH)
    moved = decoder.grow(cache, cache.pending_NPH, lambda layer, hidden: hidden + (layer == 1))
    assert torch.equal(moved.values[0], plain.values[0])
    assert not torch.allclose(moved.values[1], plain.values[1])
    assert torch.equal(decoder.grow(cache, cache.pending_NPH).states_NSH, plain.states_NSH)


def test_hooks_are_gone_after_an_error(tiny_decoder):
    cache = tiny_decoder.prefill(QUESTIONS, [], tiny_decoder.encode("a"), 0)

    def fail(layer, hidden):
        raise ModelError("stop")

    with pytest.raises(ModelError):
        tiny_decoder.grow(cache, cache.pending_NPH, fail)
    tiny_decoder.grow(cache, cache.pending_NPH)


def test_what_growing_takes_is_counted_with_its_gradients(host, tiny_decoder):
    space = make(host, tiny_decoder)
    cache, chain = prefill(tiny_decoder, space), uniform(3, 3, 8)
    before = tiny_decoder.usage.copy()
    space.inject(cache, chain)
    space.inject(cache, chain.requires_grad_())
    used = tiny_decoder.usage.since(before)
    assert (used.prefilled, used.backpropagated) == (2 * 9, 9)


def test_a_direction_is_added_inside_the_band_only(host, tiny_decoder):
    space = make(host, tiny_decoder, first=0.34, last=1.0, radius=0.7)
    assert list(space.band) == [1, 2]
    chain, seen = uniform(3, 3, 8), {}
    steered = tiny_decoder.grow

    def spy(cache, embeds, steer=None):
        def look(layer, hidden):
            changed = steer(layer, hidden)
            seen[layer] = changed - hidden
            return changed

        return steered(cache, embeds, look)

    tiny_decoder.grow = spy
    try:
        space.inject(prefill(tiny_decoder, space), chain)
    finally:
        del tiny_decoder.grow
    assert not seen[0].any()
    for layer, chart, scale in zip((1, 2), space.chart_DW.chunk(2, 1), space.scale, strict=True):
        torch.testing.assert_close(seen[layer], 0.7 * scale * (chain @ chart), atol=1e-4, rtol=1e-3)


def test_the_scale_is_the_spread_of_what_enters_a_layer_at_the_latent_positions(host, tiny_decoder):
    space = make(host, tiny_decoder, anchor="abc=", first=0.0, last=1.0)
    ids = torch.tensor(tiny_decoder.encode("abc"))
    entering = tiny_decoder.embedding_table()[ids].repeat(len(QUESTIONS), 1)
    assert float(space.scale[0]) == pytest.approx(float(entering.var(0).mean().sqrt()), rel=1e-4)
    assert bool((space.scale[1:] > 1e-3).all())
    make(host, tiny_decoder, num_latents=1, first=0.0, chart="principal")  # where nothing varies


def test_a_direction_reaches_the_next_latents_and_not_those_before(host, tiny_decoder):
    space = make(host, tiny_decoder)
    cache, chain = prefill(tiny_decoder, space), torch.zeros(3, 3, 8)
    plain = space.inject(cache, chain)
    chain[:, 1] = uniform(3, 8)
    moved = space.inject(cache, chain)
    gap = (moved.states_NSH - plain.states_NSH).abs().amax((0, 2))
    assert not gap[:-2].any()
    assert bool((gap[-2:] > 1e-3).all())


def test_observations_are_the_states_that_a_chain_passes_through(host, tiny_decoder):
    space = make(host, tiny_decoder)
    cache, chain = prefill(tiny_decoder, space), uniform(3, 3, 8)
    chain[:, 2] = 0
    states = space.inject(cache, chain).states_NSH[:, -1]
    torch.testing.assert_close(space.observe(cache, chain[:, :2]), states, atol=2e-4, rtol=1e-3)


def test_a_band_that_ends_before_it_begins_is_refused(host):
    factory = host.find("space", "steer").factory
    with pytest.raises(ValidationError, match=r"first must be below last=0\.4, got 0\.6"):
        factory.Options(first=0.6, last=0.4)
