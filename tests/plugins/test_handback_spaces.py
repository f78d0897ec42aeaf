"""The `coconut` and `hrpo` spaces: what is fed at each position, and that thoughts hand their states on."""

import pytest
import torch
from dlr_plugins.spaces.hrpo import gates
from pydantic import ValidationError

QUESTIONS = ["What is 2 + 2?", "Hi", "3 * 4 ="]
KINDS = ["coconut", "hrpo"]


def make(host, decoder, kind, **options):
    settings = {"chart": "random", "num_latents": 3, "latent_dim": 8, **options}
    space = host.create("space", kind, settings, decoder=decoder)
    space.calibrate(QUESTIONS)
    return space


def prefill(decoder, space, questions=QUESTIONS):
    return decoder.prefill(questions, space.anchor_ids, space.pending_ids, space.num_latents)


def uniform(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def coconut_thought(space, decoder, state, token, action):
    table = decoder.embedding_table()
    share = space.options.radius * action[0]
    correction = sum(a * row for a, row in zip(action[1:], space.chart_DH.detach(), strict=True))
    spread = table.var(0).mean().sqrt()
    return token + share * (space.scale * state - token) + space.options.radius * spread * correction


def hrpo_thought(space, decoder, state, token, action):
    odds = (decoder.model.lm_head(state) / 0.5).softmax(-1)
    handed = sum(p * e for p, e in zip(odds, decoder.embedding_table(), strict=True)) / odds.square().sum().sqrt()
    openness = space.options.radius * action @ space.chart_DH.detach()
    kept = (-openness.square() / 2).exp()
    return kept * token + openness.sign() * (1 - kept.square()).sqrt() * handed


@pytest.mark.parametrize(("kind", "thought"), [("coconut", coconut_thought), ("hrpo", hrpo_thought)])
@torch.no_grad()
def test_thoughts_are_what_slow_loops_over_the_whole_text_compute(host, tiny_decoder, kind, thought):
    space = make(host, tiny_decoder, kind, radius=0.6, anchor="abc=")
    chains = uniform(3, 3, 8)
    ready = space.inject(prefill(tiny_decoder, space), chains)
    table, body = tiny_decoder.embedding_table(), tiny_decoder.model.model
    for row, question in enumerate(QUESTIONS):
        embeds = table[torch.tensor(tiny_decoder.prompt_ids(question))]
        for t, letter in enumerate("abc"):
            state = body(inputs_embeds=embeds[None]).last_hidden_state[0, -1]
            token = table[tiny_decoder.encode(letter)[0]]
            embeds = torch.cat([embeds, thought(space, tiny_decoder, state, token, chains[row, t])[None]])
        states = body(inputs_embeds=embeds[None]).last_hidden_state[0, -3:]
        torch.testing.assert_close(ready.states_NSH[row, -3:], states, atol=2e-3, rtol=2e-3)
    assert torch.equal(ready.pending_NPH[:, 0], table[tiny_decoder.encode("=")].expand(3, -1))


def test_a_latent_of_one_and_zeros_hands_the_whole_state_back_and_nothing_of_the_anchor(host, tiny_decoder):
    plain, other = (make(host, tiny_decoder, "coconut", anchor=text) for text in ("abc=", "xyz="))
    first = torch.zeros(3, 3, 8)
    first[..., 0] = 1.0
    one, two = (space.inject(prefill(tiny_decoder, space), first) for space in (plain, other))
    torch.testing.assert_close(one.states_NSH, two.states_NSH, atol=1e-4, rtol=1e-3)
    state, token = torch.randn(2, tiny_decoder.hidden_size), torch.randn(tiny_decoder.hidden_size)
    torch.testing.assert_close(plain.fed(state, token, first[:2, 0]), plain.scale * state)


def test_states_are_handed_back_at_the_size_of_token_embeddings(host, tiny_decoder):
    space = make(host, tiny_decoder, "coconut")
    states = torch.stack([prefill(tiny_decoder, space, [text]).question_states()[0][0, -1] for text in QUESTIONS])
    size = tiny_decoder.embedding_table().square().mean().sqrt()
    torch.testing.assert_close((space.scale * states).square().mean().sqrt(), size, rtol=1e-3, atol=0)
    assert abs(float(space.scale) - 1) > 0.1


def test_gates_keep_the_size_open_both_ways_and_are_smooth_where_they_are_shut():
    openness = torch.tensor([-30.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 30.0], requires_grad=True)
    kept, let_in = gates(openness)
    torch.testing.assert_close(kept.square() + let_in.square(), torch.ones(7))
    torch.testing.assert_close(kept.detach()[[1, 3, 5, 6]], torch.tensor([0.60653, 1.0, 0.60653, 0.0]))
    torch.testing.assert_close(let_in.flip(0), -let_in)
    (slope,) = torch.autograd.grad(let_in.sum(), openness)
    torch.testing.assert_close(slope[2:5], torch.ones(3), atol=1e-3, rtol=0)
    assert bool(torch.isfinite(slope).all())


def test_a_cold_temperature_hands_back_the_embedding_of_the_likeliest_token(host, tiny_decoder):
    space = make(host, tiny_decoder, "hrpo", temperature=1e-4, radius=1e3)
    state = prefill(tiny_decoder, space).states_NSH[:, -1]
    action = uniform(3, 8)
    likeliest = tiny_decoder.embedding_table()[tiny_decoder.logits(state[:, None])[:, 0].argmax(-1)]
    signs = (action @ space.chart_DH.detach()).sign()
    fed = space.fed(state, torch.randn(tiny_decoder.hidden_size), action)
    torch.testing.assert_close(fed, signs * likeliest, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_thought_reaches_what_is_handed_to_the_next_and_its_gradient_comes_back(host, tiny_decoder, kind):
    space, handed = make(host, tiny_decoder, kind), []
    plain = space.fed

    def spy(state, token, action):
        handed.append(state)
        return plain(state, token, action)

    space.fed = spy
    chain = uniform(3, 3, 8).requires_grad_()
    space.inject(prefill(tiny_decoder, space), chain)
    assert not handed[0].requires_grad
    for t in (1, 2):
        (slope,) = torch.autograd.grad(handed[t].square().sum(), chain, retain_graph=True)
        reached = slope.abs().amax((0, 2))
        assert bool((reached[:t] > 0).all())
        assert not reached[t:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_observations_are_the_states_that_a_chain_passes_through(host, tiny_decoder, kind):
    space = make(host, tiny_decoder, kind)
    cache, chain = prefill(tiny_decoder, space), uniform(3, 3, 8)
    chain[:, 2] = 0
    states = space.inject(cache, chain).states_NSH[:, -1]
    torch.testing.assert_close(space.observe(cache, chain[:, :2]), states, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("kind", "logits"), [("coconut", 0), ("hrpo", 2 * 9)])
def test_every_pass_and_product_with_the_vocabulary_is_counted_with_its_gradients(host, tiny_decoder, kind, logits):
    space = make(host, tiny_decoder, kind)
    cache, chain = prefill(tiny_decoder, space), uniform(3, 3, 8)
    before = tiny_decoder.usage.copy()
    space.inject(cache, chain)
    used = tiny_decoder.usage.since(before)
    assert (used.prefilled, used.backpropagated, used.logits) == (9, 0, logits)
    before = tiny_decoder.usage.copy()
    space.inject(cache, chain.requires_grad_())
    used = tiny_decoder.usage.since(before)
    # the state before the first thought depends on no latent
    assert (used.prefilled, used.backpropagated, used.logits) == (9, 9, logits and logits + 2 * 6)


def test_a_coconut_latent_needs_a_coordinate_beside_its_share(host):
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        host.find("space", "coconut").factory.Options(latent_dim=1)
