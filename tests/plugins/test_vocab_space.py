"""The `vocab` space: what is fed is a convex mixture of the anchor's and of vocabulary embeddings."""

import pytest
import torch

SIZES = {"num_latents": 3, "latent_dim": 8}


def make(host, decoder, **options):
    return host.create("space", "vocab", {"chart": "random", **SIZES, **options}, decoder=decoder)


def fed(decoder, space, actions):
    cache = decoder.prefill(["2 + 2 ="] * len(actions), space.anchor_ids, space.pending_ids, space.num_latents)
    return space.inject(cache, actions).pending_NPH


def actions(rows=2, seed=0):
    return torch.rand(rows, 3, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_what_is_fed_is_what_slow_loops_compute(host, tiny_decoder):
    space = make(host, tiny_decoder, sharpness=3.0, radius=0.5)
    table, chart = tiny_decoder.embedding_table(), space.chart_DH.detach()
    spread = table.var(0).mean().sqrt()
    chains = actions()
    got = fed(tiny_decoder, space, chains)
    for row in range(2):
        for t in range(3):
            a = chains[row, t]
            logits = torch.stack([3.0 * (a @ chart) @ entry for entry in table]) / (spread * table.shape[1] ** 0.5)
            weights = logits.exp() / logits.exp().sum()
            share = 0.5 * float(a.abs().max())
            expected = (1 - share) * table[space.anchor_ids[-3:][t]] + share * sum(
                w * e for w, e in zip(weights, table, strict=True)
            )
            torch.testing.assert_close(got[row, t], expected, atol=1e-4, rtol=1e-4)


def test_a_full_share_leaves_nothing_of_the_anchor_and_no_share_exceeds_it(host, tiny_decoder):
    chains = actions()
    chains[..., 0] = 1.0
    one, other, far = (make(host, tiny_decoder, anchor=text, radius=1.0) for text in ("abc", "xyz", "abc"))
    far.options = far.options.model_copy(update={"radius": 9.0})  # as `dlr space fit` tries
    full = fed(tiny_decoder, one, chains)
    torch.testing.assert_close(full, fed(tiny_decoder, other, chains))
    torch.testing.assert_close(full, fed(tiny_decoder, far, chains))
    assert not torch.allclose(fed(tiny_decoder, one, chains / 2), fed(tiny_decoder, other, chains / 2), atol=1e-3)


def test_sharp_mixtures_become_the_embedding_of_the_nearest_token(host, tiny_decoder):
    space = make(host, tiny_decoder, sharpness=1e5, radius=1.0)
    chains = actions(1)
    chains[..., 0] = 1.0
    mixtures = fed(tiny_decoder, space, chains)[0]
    for mixture, (named,) in zip(mixtures, space.nearest_tokens(chains[0], 1), strict=True):
        nearest = int((tiny_decoder.embedding_table() - mixture).norm(dim=1).argmin())
        torch.testing.assert_close(mixture, tiny_decoder.embedding_table()[nearest])
        assert named == tiny_decoder.token(nearest)


def test_a_latent_of_unit_variance_has_logits_of_the_given_spread(host, tiny_decoder):
    space = make(host, tiny_decoder, latent_dim=64, sharpness=7.0)
    latents = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    assert float(space._logits(latents).std(-1).mean()) == pytest.approx(7.0, rel=0.15)


def test_a_latent_beside_zero_carries_a_gradient(host, tiny_decoder):
    space = make(host, tiny_decoder)
    near = (1e-3 * actions()).requires_grad_()
    fed(tiny_decoder, space, near).square().sum().backward()
    assert bool((near.grad.abs().amax(-1) > 0).all())


def test_both_products_with_the_vocabulary_are_counted(host, tiny_decoder):
    space = make(host, tiny_decoder, chart="joint")
    before = tiny_decoder.usage.copy()
    fed(tiny_decoder, space, actions(2))
    with torch.no_grad():
        fed(tiny_decoder, space, actions(2))
    assert tiny_decoder.usage.since(before).logits == 2 * 2 * 3 * (2 + 1)
