"""Assistants: the laws that every policy over latent chains keeps."""

from typing import Any

import pytest
import torch
from dlr_plugins.assistants.flow import Flow
from dlr_plugins.assistants.mlp import MLP
from dlr_plugins.assistants.prior import Prior
from dlr_plugins.assistants.reader import StateReader
from dlr_plugins.assistants.small_gpt import SmallGPT
from dlr_plugins.assistants.softcot import SoftCoT
from pydantic import ValidationError
from torch import Tensor

H, T, D = 8, 4, 3
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "small-gpt": (SmallGPT, {"width": 16, "heads": 2, "layers": 2}),
    "mlp": (MLP, {"width": 16}),
    "prior": (Prior, {}),
    "flow": (Flow, {"width": 16, "heads": 2, "layers": 2, "steps": 3}),
    "softcot": (SoftCoT, {"width": 16, "heads": 2, "layers": 2}),
}
EVERY = pytest.mark.parametrize("kind", KINDS)
GAUSSIAN = pytest.mark.parametrize("kind", ["small-gpt", "mlp", "prior", "softcot"])


def build(kind: str, *, trained: bool = True, **more: Any) -> Any:
    """An assistant; ``trained`` moves its weights off the zeros they start at."""
    torch.manual_seed(0)
    factory, options = KINDS[kind]
    made = factory(factory.Options(**options, **more), hidden_size=H, num_latents=T, latent_dim=D)
    if trained:
        with torch.no_grad():
            for weight in made.parameters():
                weight.add_(0.3 * torch.randn_like(weight))
    return made


def questions(rows: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """States and a left-padded mask; the first row is the longest."""
    states = torch.randn(rows, 7, H, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(rows, 7, dtype=torch.int64)
    for row in range(rows):
        mask[row, : 2 * row] = 0
    return states, mask


def noise(rows: int, seed: int = 2) -> Tensor:
    return torch.randn(rows, T, D, generator=torch.Generator().manual_seed(seed))


@GAUSSIAN
def test_a_chain_is_its_mean_plus_scaled_noise(kind: str) -> None:
    chains = build(kind).sample(*questions(), noise(6))
    assert chains.pre_NTD.shape == chains.policy.mean.shape == chains.policy.log_std.shape == (6, T, D)
    expected = chains.policy.mean + chains.policy.log_std.exp() * chains.noise_NTD
    torch.testing.assert_close(chains.pre_NTD, expected)
    torch.testing.assert_close(chains.actions_NTD, expected.tanh())


@GAUSSIAN
def test_without_noise_a_chain_is_its_mean(kind: str) -> None:
    chains = build(kind).sample(*questions(), torch.zeros(3, T, D))
    assert torch.equal(chains.pre_NTD, chains.policy.mean)
    assert chains.pre_NTD.any()


@GAUSSIAN
def test_an_untrained_assistant_starts_at_or_near_the_anchor_with_the_given_scale(kind: str) -> None:
    near = build(kind, trained=False).sample(*questions(), noise(3)).policy
    assert float(near.mean.detach().square().mean().sqrt()) < 0.2
    chains = build(kind, trained=False, initial_mean=0.0, initial_scale=0.4).sample(*questions(), noise(3))
    assert not chains.policy.mean.any()
    torch.testing.assert_close(chains.policy.log_std.exp(), torch.full((3, T, D), 0.4))


@GAUSSIAN
def test_evaluating_a_sampled_chain_gives_the_policy_it_was_drawn_from(kind: str) -> None:
    assistant = build(kind)
    states, mask = questions()
    chains = assistant.sample(states, mask, noise(6))
    policy = assistant.evaluate(states, mask, chains.pre_NTD.detach())
    torch.testing.assert_close(policy.mean, chains.policy.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(policy.log_std, chains.policy.log_std)


@EVERY
def test_rows_are_grouped_by_question(kind: str) -> None:
    assistant = build(kind)
    states, mask = questions()
    drawn = noise(6)
    whole = assistant.sample(states, mask, drawn).pre_NTD
    for b in range(3):
        alone = assistant.sample(states[b : b + 1], mask[b : b + 1], drawn[2 * b : 2 * b + 2]).pre_NTD
        torch.testing.assert_close(whole[2 * b : 2 * b + 2], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["small-gpt", "mlp", "flow", "softcot"])
def test_other_questions_get_other_chains(kind: str) -> None:
    assistant = build(kind)
    means = assistant.sample(*questions(), torch.zeros(3, T, D)).pre_NTD.detach()
    assert min(float((means[a] - means[b]).abs().max()) for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-3


def test_the_prior_gives_every_question_the_same_policy() -> None:
    means = build("prior").sample(*questions(), torch.zeros(3, T, D)).policy.mean
    assert torch.equal(means[0], means[1])
    assert means.any()


@EVERY
def test_padding_on_the_left_changes_nothing(kind: str) -> None:
    assistant = build(kind)
    states, mask = questions()
    drawn = noise(6)
    expected = assistant.sample(states, mask, drawn)
    garbage = torch.full((3, 5, H), 9.0)
    padded = torch.cat([garbage, states], 1)
    padded_mask = torch.cat([torch.zeros(3, 5, dtype=torch.int64), mask], 1)
    got = assistant.sample(padded, padded_mask, drawn)
    torch.testing.assert_close(got.pre_NTD, expected.pre_NTD, rtol=1e-5, atol=1e-5)
    drawn = noise(6, seed=8)
    policies = [assistant.evaluate(*seen, drawn) for seen in ((states, mask), (padded, padded_mask))]
    torch.testing.assert_close(*(policy.log_prob(drawn) for policy in policies), rtol=1e-4, atol=1e-4)


@EVERY
def test_what_stands_on_padding_is_never_read(kind: str) -> None:
    assistant = build(kind)
    states, mask = questions()
    expected = assistant.sample(states, mask, noise(3)).pre_NTD
    got = assistant.sample(states.masked_fill(mask[..., None] == 0, 50.0), mask, noise(3)).pre_NTD
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_small_gpt_reads_the_whole_question_and_its_order() -> None:
    assistant = build("small-gpt")
    states, mask = questions(1)
    base = assistant.sample(states, mask, torch.zeros(1, T, D)).pre_NTD.detach()
    changed = states.clone()
    changed[0, 0] = torch.randn(H, generator=torch.Generator().manual_seed(7))
    swapped = states[:, [1, 0, 2, 3, 4, 5, 6]]
    for other in (changed, swapped):
        moved = assistant.sample(other, mask, torch.zeros(1, T, D)).pre_NTD.detach()
        assert float((moved - base).abs().max()) > 1e-4


def test_small_gpt_conditions_a_latent_on_the_earlier_ones_only() -> None:
    assistant = build("small-gpt")
    states, mask = questions(1)
    pre = noise(1).requires_grad_()
    mean = assistant.evaluate(states, mask, pre).mean
    for t in range(T):
        (slope,) = torch.autograd.grad(mean[0, t].square().sum(), pre, retain_graph=True, allow_unused=True)
        assert not slope[0, t:].any()
        assert all(bool(slope[0, s].any()) for s in range(t))


def test_gradients_flow_through_every_earlier_latent_of_a_sampled_chain() -> None:
    drawn = noise(1).requires_grad_()
    chains = build("small-gpt").sample(*questions(1), drawn)
    (slope,) = torch.autograd.grad(chains.pre_NTD[0, -1].sum(), drawn)
    assert all(bool(slope[0, t].any()) for t in range(T))


@EVERY
@pytest.mark.parametrize("how", ["sample", "evaluate"])
def test_gradients_reach_every_parameter(kind: str, how: str) -> None:
    assistant = build(kind)
    states, mask = questions()
    drawn = noise(6)
    if how == "sample":
        loss = assistant.sample(states, mask, drawn).actions_NTD.square().sum()
    else:
        loss = assistant.evaluate(states, mask, drawn).log_prob(drawn + 1.0).sum()
    loss.backward()
    for name, weight in assistant.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        assert weight.grad.any(), name


@EVERY
def test_an_update_of_an_untrained_assistant_moves_its_mean_the_right_way(kind: str) -> None:
    assistant = build(kind, trained=False)
    states, mask = questions()
    target = torch.tensor([0.5, -0.5, 0.2])
    optimizer = torch.optim.Adam(assistant.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        chains = assistant.sample(states, mask, torch.zeros(3, T, D))
        (chains.actions_NTD - target).square().mean().backward()
        optimizer.step()
    chains = assistant.sample(states, mask, torch.zeros(3, T, D))
    assert float((chains.actions_NTD.detach() - target).abs().max()) < 0.1


@EVERY
def test_the_same_seed_builds_and_samples_the_same(kind: str) -> None:
    one, two = (build(kind).sample(*questions(), noise(6)).pre_NTD for _ in range(2))
    assert torch.equal(one, two)
    other = build(kind).sample(*questions(), noise(6, seed=3)).pre_NTD
    assert not torch.equal(one, other)


def template_states(rows: int = 12) -> tuple[Tensor, Tensor]:
    """States that are the same large ones for all questions at each place from the end, plus a little of their own."""
    generator = torch.Generator().manual_seed(5)
    shared = 30 * torch.randn(7, H, generator=generator)
    states = shared + 0.1 * torch.randn(rows, 7, H, generator=generator)
    mask = torch.ones(rows, 7, dtype=torch.int64)
    mask[::2, :2] = 0
    return states, mask


def test_a_calibrated_reader_leaves_what_is_a_questions_own() -> None:
    reader = StateReader(H)
    states, mask = template_states()
    raw, telling = reader(states, mask)
    assert bool(telling[:, -1].all())
    assert torch.equal(raw, states * mask[..., None])
    reader.calibrate(states, mask)
    left, telling = reader(states, mask)
    assert torch.equal(telling.bool(), mask.bool())
    assert not left[mask == 0].any()
    for place in range(7):
        torch.testing.assert_close(left[:, place][mask[:, place] == 1].mean(0), torch.zeros(H), rtol=0, atol=1e-3)
    assert float(left[mask == 1].square().mean().sqrt()) == pytest.approx(1.0, abs=0.1)


def test_positions_where_all_questions_agree_are_hidden_except_the_last() -> None:
    reader = StateReader(H)
    states, mask = template_states()
    states[:, 3] = states[0, 3]
    states[:, 6] = states[0, 6]
    reader.calibrate(states, mask)
    _, telling = reader(states, mask)
    assert not telling[:, 3].any()
    assert bool(telling[:, 6].all())


@pytest.mark.parametrize("kind", ["small-gpt", "mlp", "flow", "softcot"])
def test_calibration_makes_an_untrained_assistant_tell_questions_apart_and_is_saved(kind: str) -> None:
    states, mask = template_states()

    def spread(assistant: Any) -> float:
        means = assistant.sample(states, mask, torch.zeros(12, T, D)).pre_NTD.detach()
        return float((means[1::2].std(0) / means.square().mean().sqrt()).mean())

    plain, calibrated = build(kind, trained=False), build(kind, trained=False)
    calibrated.calibrate(states, mask)
    assert spread(calibrated) > 5 * spread(plain)
    restored = build(kind, trained=False)
    restored.load_state_dict(calibrated.state_dict())
    assert spread(restored) == spread(calibrated)


@EVERY
def test_the_spread_never_falls_below_its_floor_and_may_start_on_it(kind: str) -> None:
    assistant = build(kind, trained=False, initial_scale=0.1, smallest_scale=0.2)
    spread = assistant.spread
    chains = assistant.sample(*questions(), noise(3))
    torch.testing.assert_close(chains.policy.log_std.exp(), torch.full((3, T, D), 0.1))
    chains.policy.log_std.sum().backward()
    assert (spread.log_std_TD.grad > 0).all()
    with torch.no_grad():
        spread.log_std_TD.fill_(-9.0)
    narrow = assistant.sample(*questions(), noise(3)).policy.log_std
    torch.testing.assert_close(narrow.exp(), torch.full((3, T, D), 0.1))


@EVERY
def test_a_spread_below_its_floor_can_be_widened_again(kind: str) -> None:
    assistant = build(kind, trained=False, smallest_scale=0.2)
    with torch.no_grad():
        assistant.spread.log_std_TD.fill_(-1.7)  # exp(-1.7) = 0.18, one overshooting step below the floor
    optimizer = torch.optim.Adam(assistant.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        (-assistant.sample(*questions(), noise(3)).policy.log_std.sum()).backward()
        optimizer.step()
    widened = assistant.sample(*questions(), noise(3)).policy.log_std.detach().exp()
    assert float(widened.min()) > 0.21


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("prior", {"initial_scale": 0.0}),
        ("mlp", {"width": 0}),
        ("small-gpt", {"widht": 3}),
        ("small-gpt", {"width": 10, "heads": 4}),
        ("flow", {"steps": 1}),
        ("softcot", {"width": 12, "heads": 4}),
    ],
)
def test_impossible_options_are_refused_before_anything_is_built(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KINDS[kind][0].Options(**options)
