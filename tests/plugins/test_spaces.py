import json

import pytest
import torch

from dlr_core.artefact import load_space, save_space
from dlr_core.errors import ConfigError, ModelError

QUESTIONS = ["What is 2 + 2?", "Hi", "Name a prime number between 20 and 30, please.", "3 * 4 ="]
KINDS = ["kv", "input", "vocab", "steer", "coconut", "hrpo"]
SIZES = {"num_latents": 4, "latent_dim": 8}
NEAR_TIE = 1e-4


def make(host, decoder, kind, **options):
    space = host.create("space", kind, {"chart": "random", **SIZES, **options}, decoder=decoder)
    space.calibrate(QUESTIONS)
    return space


def prefill(decoder, space, questions=QUESTIONS):
    return decoder.prefill(questions, space.anchor_ids, space.pending_ids, space.num_latents)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(params=KINDS)
def space(request, host, tiny_decoder):
    return make(host, tiny_decoder, request.param)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("latents", [1, 4, 30])
def test_the_anchor_text_stands_at_the_latent_positions_filled_up_on_the_left(host, tiny_decoder, kind, latents):
    space = make(host, tiny_decoder, kind, num_latents=latents, anchor="Let me:")
    ids = [*space.anchor_ids, *space.pending_ids]
    text = "".join(tiny_decoder.token(i) for i in ids)
    assert text.lstrip("\n") == "Let me:"
    assert len(space.anchor_ids) >= latents
    assert len(ids) == max(len("Let me:"), latents + len(space.pending_ids))


@pytest.mark.parametrize("kind", KINDS)
def test_a_filler_of_several_tokens_is_refused(host, tiny_decoder, kind):
    with pytest.raises(ConfigError, match="filler: expected one token, got 'ab' which is 2"):
        make(host, tiny_decoder, kind, filler="ab")


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_filler_the_anchor_is_its_text_and_latents_lie_on_the_templates_end_too(host, tiny_decoder, kind):
    space = make(host, tiny_decoder, kind, num_latents=7, anchor="Let:", filler="")
    assert "".join(tiny_decoder.token(i) for i in [*space.anchor_ids, *space.pending_ids]) == "Let:"
    under = "ant:Let" if space.pending_ids else "nt:Let:"  # the template ends with "assistant:"
    assert "".join(tiny_decoder.token(i) for i in space.latent_ids) == under
    filled = prefill(tiny_decoder, make(host, tiny_decoder, kind, num_latents=7, anchor="Let:"))
    assert prefill(tiny_decoder, space).mask_NS.shape[1] == filled.mask_NS.shape[1] - 7 + len(space.anchor_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_latents_without_a_place_are_refused(host, tiny_decoder, kind, monkeypatch):
    closing, anchor = len("\nassistant:"), len("Let:") - (kind not in ("input", "vocab"))
    with pytest.raises(ConfigError, match=rf"at most {closing + anchor} latents have a place"):
        make(host, tiny_decoder, kind, num_latents=closing + anchor + 1, anchor="Let:", filler="")
    monkeypatch.setattr(tiny_decoder.tokenizer, "chat_template", None)
    with pytest.raises(ConfigError, match=rf"at most {anchor} latents have a place"):
        make(host, tiny_decoder, kind, num_latents=anchor + 1, anchor="Let:", filler="")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("latents", "filler"), [(1, "\n"), (4, "\n"), (30, "\n"), (12, "")])
def test_zero_latents_give_the_plain_prompt_with_the_anchor_token_for_token(host, tiny_decoder, kind, latents, filler):
    space = make(host, tiny_decoder, kind, num_latents=latents, filler=filler)
    ready = space.inject(prefill(tiny_decoder, space), torch.zeros(4, latents, 8))
    done = tiny_decoder.decode(ready, 12)
    for row, question in enumerate(QUESTIONS):
        message = [{"role": "user", "content": question}]
        prompt = tiny_decoder.tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
        ids = torch.tensor([[*prompt, *space.anchor_ids, *space.pending_ids]])
        expected = tiny_decoder.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12,
            pad_token_id=int(tiny_decoder.end_ids[0]),
        )[0, ids.shape[1] :].tolist()  # fmt: skip
        got = done.ids_NL[row][done.mask_NL[row].bool()].tolist()
        if expected != got:
            same = next(i for i, (x, y) in enumerate(zip(expected, got, strict=False)) if x != y)
            with torch.no_grad():
                logits = tiny_decoder.model(torch.cat([ids, torch.tensor([expected[:same]])], 1)).logits[0, -1]
            assert float((logits[expected[same]] - logits[got[same]]).abs()) < NEAR_TIE


def test_latents_change_what_the_model_says(tiny_decoder, space):
    cache = prefill(tiny_decoder, space).select(torch.zeros(16, dtype=torch.long))
    done = tiny_decoder.decode(space.inject(cache, uniform(16, 4, 8)), 8)
    assert len(set(done.texts)) > 2


def test_injecting_leaves_the_cache_as_it_was(tiny_decoder, space):
    cache = prefill(tiny_decoder, space)
    before = [tensor.clone() for tensor in (*cache.keys, *cache.values, cache.pending_NPH)]
    space.inject(cache, uniform(4, 4, 8))
    after = [*cache.keys, *cache.values, cache.pending_NPH]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [{}, {"anchor": "=?", "filler": ""}])
def test_step_by_step_observations_at_zero_latents_are_the_prefill_states(host, tiny_decoder, kind, shape):
    space = make(host, tiny_decoder, kind, **shape)
    cache = prefill(tiny_decoder, space)
    start = cache.mask_NS.shape[1] - space.num_latents
    for done in range(space.num_latents):
        seen = space.observe(cache, torch.zeros(4, done, 8))
        torch.testing.assert_close(seen, cache.states_NSH[:, start + done], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_observation_depends_on_the_latents_before_it_and_on_its_own_row(host, tiny_decoder, kind):
    space = make(host, tiny_decoder, kind)
    cache = prefill(tiny_decoder, space)
    actions = uniform(4, 2, 8)
    seen = space.observe(cache, actions)
    assert float((seen - space.observe(cache, torch.zeros_like(actions))).abs().amax(1).min()) > 1e-3
    alone = space.observe(cache.select(torch.tensor([2])), actions[2:3])
    torch.testing.assert_close(seen[2:3], alone, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_an_observation_reach_the_latents_before_it(host, tiny_decoder, kind):
    space = make(host, tiny_decoder, kind)
    actions = (0.5 * uniform(4, 2, 8)).requires_grad_()
    before = tiny_decoder.usage.backpropagated
    space.observe(prefill(tiny_decoder, space), actions).square().sum().backward()
    assert bool((actions.grad.abs().amax((0, 2)) > 0).all())
    assert tiny_decoder.usage.backpropagated > before


@pytest.mark.parametrize("kind", ["input", "vocab"])
def test_observations_follow_the_fed_embeddings(host, tiny_decoder, kind):
    space = make(host, tiny_decoder, kind)
    cache = prefill(tiny_decoder, space)
    actions = uniform(4, 4, 8)
    ready = space.inject(cache, torch.cat([actions[:, :2], torch.zeros(4, 2, 8)], 1))
    states = tiny_decoder.extend(ready, ready.pending_NPH)
    torch.testing.assert_close(space.observe(cache, actions[:, :2]), states[:, 2], atol=2e-4, rtol=1e-3)


def residuals(space, cache, actions):
    """What a kv chain adds to the latent positions: unrotated keys and values of every layer."""
    decoder, ready = space.decoder[0], space.inject(cache, actions)
    start = cache.mask_NS.shape[1] - space.num_latents
    positions = cache.positions_NS[:, start:]
    found = []
    for layer in range(len(cache.keys)):
        turned = (ready.keys[layer] - cache.keys[layer])[:, :, start:].transpose(1, 2)
        found += [
            decoder.rotate(turned, -positions),
            (ready.values[layer] - cache.values[layer])[:, :, start:].transpose(1, 2),
        ]
        assert torch.equal(ready.keys[layer][:, :, :start], cache.keys[layer][:, :, :start])
        assert torch.equal(ready.values[layer][:, :, :start], cache.values[layer][:, :, :start])
    return found


def test_a_kv_latent_means_the_same_at_every_position(host, tiny_decoder):
    space = make(host, tiny_decoder, "kv")
    chain = uniform(1, 4, 8).expand(4, 4, 8)
    together = residuals(space, prefill(tiny_decoder, space), chain)
    for part in together:
        assert float(part.abs().amax()) > 0.1
        torch.testing.assert_close(part, part[:1].expand_as(part), atol=3e-4, rtol=1e-3)
    alone = residuals(space, prefill(tiny_decoder, space, QUESTIONS[1:2]), chain[:1])
    for part, own in zip(together, alone, strict=True):
        torch.testing.assert_close(part[1:2], own, atol=3e-4, rtol=1e-3)


def test_a_kv_residual_is_linear_in_the_latent_and_the_radius(host, tiny_decoder):
    space, wider = (make(host, tiny_decoder, "kv", radius=radius) for radius in (1.0, 3.0))
    cache, chain = prefill(tiny_decoder, space), uniform(4, 4, 8)
    one, half, wide = (residuals(s, cache, a) for s, a in ((space, chain), (space, chain / 2), (wider, chain)))
    for x, y, z in zip(one, half, wide, strict=True):
        torch.testing.assert_close(y, x / 2, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(z, 3 * x, atol=1e-3, rtol=1e-3)


def test_kv_residuals_are_as_large_as_the_radius_says(host, tiny_decoder):
    space = make(host, tiny_decoder, "kv", latent_dim=64, radius=0.5)
    cache = prefill(tiny_decoder, space)
    sizes = residuals(space, cache, torch.randn(4, 4, 64, generator=torch.Generator().manual_seed(0)))
    for part, scale in zip(sizes, space.scale, strict=True):
        assert float(part.std()) == pytest.approx(0.5 * float(scale), rel=0.2)


def test_kv_works_on_a_model_without_rotary_positions(host, tiny_gpt2):
    decoder = host.create("decoder", "hf", {"model": str(tiny_gpt2)})
    space = make(host, decoder, "kv")
    cache = prefill(decoder, space)
    plain = decoder.prefill(QUESTIONS, space.anchor_ids, space.pending_ids, 0)
    zero = decoder.decode(space.inject(cache, torch.zeros(4, 4, 8)), 4)
    assert torch.equal(zero.ids_NL, decoder.decode(plain, 4).ids_NL)
    assert len(set(decoder.decode(space.inject(cache, uniform(4, 4, 8)), 4).texts)) > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chart", ["joint", "random", "principal"])
def test_only_a_joint_chart_is_trainable(host, tiny_decoder, kind, chart):
    space = make(host, tiny_decoder, kind, chart=chart)
    trainable = space.trainable()
    assert len(trainable) == (chart == "joint")
    assert all(parameter.requires_grad for parameter in trainable)
    own = {id(parameter) for parameter in space.parameters()}
    assert not own & {id(weight) for weight in tiny_decoder.model.parameters()}
    assert not any(key.startswith(("decoder", "model")) for key in space.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_principal_directions_are_orthogonal_and_of_one_length(host, tiny_decoder, kind):
    space = make(host, tiny_decoder, kind, chart="principal")
    chart = next(iter(space.parameters())).detach()
    gram, rows = chart @ chart.T, len(chart)
    size = chart.shape[1] / rows  # rows of unit length times (width / D)^½
    torch.testing.assert_close(gram, size * torch.eye(rows), atol=2e-3 * size, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_random_charts_follow_their_seed(host, tiny_decoder, kind):
    charts = [next(iter(make(host, tiny_decoder, kind, seed=seed).parameters())) for seed in (0, 0, 1)]
    assert torch.equal(charts[0], charts[1])
    assert not torch.equal(charts[0], charts[2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chart", ["joint", "principal"])
def test_an_artefact_brings_the_same_space_back_with_its_chart_fixed(host, tiny_decoder, kind, chart, tmp_path):
    space = make(host, tiny_decoder, kind, chart=chart, radius=0.7)
    with torch.no_grad():
        next(iter(space.parameters())).add_(0.1)  # as training would
    options = space.options.model_dump(mode="json")
    digest = tiny_decoder.fingerprint()
    save_space(space, tmp_path / "space", name=kind, options=options, digest=digest, notes={"n": 1})
    loaded = load_space(host, tmp_path / "space", tiny_decoder, SIZES)
    assert loaded.trainable() == []
    assert loaded.options.radius == 0.7
    cache, chain = prefill(tiny_decoder, space), uniform(4, 4, 8)
    one, other = space.inject(cache, chain), loaded.inject(cache, chain)
    for x, y in zip((*one.keys, one.pending_NPH), (*other.keys, other.pending_NPH), strict=True):
        assert torch.equal(x, y)
    names = sorted(path.name for path in (tmp_path / "space").iterdir())
    assert names == ["space.json", "space.safetensors"]


def test_an_artefact_is_refused_on_another_model_with_other_sizes_or_damaged(host, tiny_decoder, other_model, tmp_path):
    space = make(host, tiny_decoder, "kv")
    options, digest = space.options.model_dump(mode="json"), tiny_decoder.fingerprint()
    save_space(space, tmp_path, name="kv", options=options, digest=digest)
    other = host.create("decoder", "hf", {"model": str(other_model)})
    with pytest.raises(ModelError, match=f"another main model \\(digest {digest[:12]}"):
        load_space(host, tmp_path, other)
    with pytest.raises(ConfigError, match="has num_latents=4, 5 was asked for"):
        load_space(host, tmp_path, tiny_decoder, {"num_latents": 5})
    described = json.loads((tmp_path / "space.json").read_text())
    del described["options"]
    (tmp_path / "space.json").write_text(json.dumps(described))
    with pytest.raises(ConfigError, match="is not a latent-space artefact"):
        load_space(host, tmp_path, tiny_decoder)


@pytest.mark.parametrize("count", [1, 3])
def test_nearest_tokens_names_tokens_for_every_latent(space, count):
    named = space.nearest_tokens(uniform(4, 8), count)
    assert len(named) == 4
    assert all(len(row) == count and all(isinstance(token, str) for token in row) for row in named)


def solved(direction, chart):
    """A latent whose residual points a given way, scaled into the box."""
    latent = torch.linalg.lstsq(chart.T, direction[:, None]).solution[:, 0]
    return latent / latent.abs().max()


def test_a_latent_that_points_at_a_token_is_named_after_it(host, tiny_decoder):
    token = tiny_decoder.encode("Q")[0]
    inputs = make(host, tiny_decoder, "input", latent_dim=64)
    table = tiny_decoder.embedding_table()
    latent = solved(table[token] - table.mean(0), inputs.chart_DH.detach())
    assert inputs.nearest_tokens(latent[None], 1) == [["Q"]]
    kv = make(host, tiny_decoder, "kv", latent_dim=64)
    values = tiny_decoder.first_values(torch.arange(len(table)))
    width = values.shape[1]
    latent = solved(values[token] - values.mean(0), kv.chart_DW.detach()[:, width : 2 * width])
    assert kv.nearest_tokens(latent[None], 1) == [["Q"]]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_latents_and_a_joint_chart_and_no_weight(host, tiny_decoder, kind):
    space = make(host, tiny_decoder, kind, chart="joint", radius=0.5)
    cache = prefill(tiny_decoder, space)
    ids_NL, mask_NL = tiny_decoder.encode_targets(["12", "3", "because", "x"])
    actions = (0.3 * uniform(4, 4, 8)).requires_grad_()

    def total(at):
        return tiny_decoder.log_prob(space.inject(cache, at), ids_NL, mask_NL).sum()

    total(actions).backward()
    assert float(actions.grad.abs().amax((1, 2)).min()) > 0
    assert float(space.trainable()[0].grad.abs().sum()) > 0
    assert all(weight.grad is None for weight in tiny_decoder.model.parameters())
    step = 1e-3 * actions.grad / actions.grad.norm()
    with torch.no_grad():
        slope = float(total(actions + step) - total(actions - step)) / (2e-3)
    assert slope == pytest.approx(float(actions.grad.norm()), rel=0.1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "vocab"])  # whose share has a kink at zero
def test_zero_latents_still_carry_a_gradient(host, tiny_decoder, kind):
    space = make(host, tiny_decoder, kind)
    actions = torch.zeros(4, 4, 8, requires_grad=True)
    ids_NL, mask_NL = tiny_decoder.encode_targets(["12"] * 4)
    ready = space.inject(prefill(tiny_decoder, space), actions)
    tiny_decoder.log_prob(ready, ids_NL, mask_NL).sum().backward()
    assert float(actions.grad.abs().sum()) > 0
