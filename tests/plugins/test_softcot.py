"""The `softcot` assistant: what the language model in it sees, and that a pretrained one stays as it is."""

import pytest
import torch
from dlr_plugins.assistants.softcot import SoftCoT
from transformers import AutoModelForCausalLM

H, T, D = 6, 3, 4


def build(**options):
    torch.manual_seed(0)
    settings = SoftCoT.Options(**{"width": 16, "heads": 2, "layers": 1, **options})
    return SoftCoT(settings, hidden_size=H, num_latents=T, latent_dim=D)


def question():
    return torch.randn(1, 5, H, generator=torch.Generator().manual_seed(1)), torch.ones(1, 5, dtype=torch.long)


@pytest.fixture
def frozen(tiny_model):
    return build(backbone=str(tiny_model), initial_mean=0.5)


def test_means_are_the_projected_states_of_the_last_placeholders(frozen, tiny_model):
    states, mask = question()
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    embeds = torch.cat([frozen.read(states), frozen.thought_TW[None]], 1)
    with torch.no_grad():
        hidden = model(inputs_embeds=embeds, output_hidden_states=True).hidden_states[-1][:, -T:]
        got = frozen.sample(states, mask, torch.zeros(1, T, D)).policy.mean
    torch.testing.assert_close(got, frozen.project(hidden).detach(), rtol=1e-4, atol=1e-4)
    assert float(got.std()) > 0.1


def test_a_pretrained_backbone_is_neither_trained_nor_saved_and_gradients_pass_through_it(frozen):
    assert {name.split(".")[0] for name in frozen.state_dict()} == {
        "read", "thought_TW", "project", "static_TD", "spread", "reader",
    }  # fmt: skip
    before = [weight.clone() for weight in frozen.frozen[0].parameters()]
    optimizer = torch.optim.Adam(frozen.parameters(), lr=0.1)
    frozen.sample(*question(), torch.zeros(1, T, D)).actions_NTD.square().sum().backward()
    assert bool(frozen.read.weight.grad.any())
    optimizer.step()
    assert all(torch.equal(x, y) for x, y in zip(before, frozen.frozen[0].parameters(), strict=True))


def test_a_small_backbone_of_its_own_is_trained_and_saved():
    own = build()
    own.sample(*question(), torch.zeros(1, T, D)).actions_NTD.square().sum().backward()
    weights = dict(own.backbone.named_parameters())
    assert len(weights) > 5
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in weights.values())
    assert any(name.startswith("backbone.") for name in own.state_dict())


def test_a_latent_reads_the_placeholders_before_it_and_none_after():
    own = build(initial_mean=0.5)
    states, mask = question()
    means = own.sample(states, mask, torch.zeros(1, T, D)).policy.mean.detach()
    with torch.no_grad():
        own.thought_TW[1] += torch.randn(16)
    moved = (own.sample(states, mask, torch.zeros(1, T, D)).policy.mean.detach() - means).abs().amax(-1)[0]
    assert float(moved[0]) == 0.0
    assert float(moved[1:].min()) > 1e-4


def test_positions_that_the_reader_hides_are_not_read():
    own = build(initial_mean=0.5)
    states, mask = question()
    hidden = mask.clone()
    hidden[0, 2] = 0

    def means(seen):
        own.reader.forward = lambda states, mask: (states, seen)
        changed = states.index_fill(1, torch.tensor([2]), 3.0)
        return [own.sample(x, mask, torch.zeros(1, T, D)).policy.mean.detach() for x in (states, changed)]

    torch.testing.assert_close(*means(hidden))
    assert not torch.allclose(*means(mask), atol=1e-3)
