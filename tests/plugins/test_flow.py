"""The `flow` assistant: its density is exact, and learning may rely on that."""

import math
from typing import Any

import pytest
import torch
from dlr_plugins.assistants.flow import Flow

from dlr_core.density import TanhGaussian

H = 5


def build(num_latents: int = 3, latent_dim: int = 4, **options: Any) -> Flow:
    """A flow far from the identity."""
    torch.manual_seed(0)
    settings = Flow.Options(width=16, heads=2, layers=1, **options)
    made = Flow(settings, hidden_size=H, num_latents=num_latents, latent_dim=latent_dim).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return made


def question(rows: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(1, 6, H, generator=generator, dtype=torch.float64).expand(rows, -1, -1)
    return states, torch.ones(rows, 6, dtype=torch.long)


def noise(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(drawn: torch.Tensor) -> torch.Tensor:
    return (-0.5 * drawn.square() - 0.5 * math.log(2 * math.pi)).sum(-1)


@pytest.mark.parametrize("steps", [2, 5])
def test_the_density_of_every_latent_is_that_of_the_numerical_jacobian(steps: int) -> None:
    flow, drawn = build(steps=steps), noise(1, 3, 4)
    chains = flow.sample(*question(), drawn)

    def act(flat: torch.Tensor) -> torch.Tensor:
        return flow.sample(*question(), flat.view(1, 3, 4)).actions_NTD.flatten()

    jacobian = torch.autograd.functional.jacobian(act, drawn.flatten())
    whole = normal(drawn.flatten()) - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(chains.policy.log_prob(chains.pre_NTD).sum(), whole, rtol=1e-8, atol=1e-8)
    for t in range(3):
        block = jacobian[4 * t : 4 * t + 4, 4 * t : 4 * t + 4]
        own = normal(drawn[0, t]) - torch.linalg.slogdet(block).logabsdet
        torch.testing.assert_close(chains.policy.log_prob(chains.pre_NTD)[0, t], own, rtol=1e-8, atol=1e-8)
        assert not jacobian[4 * t : 4 * t + 4, 4 * t + 4 :].any()  # no latent depends on a later one
        assert t == 0 or bool(jacobian[4 * t : 4 * t + 4, : 4 * t].any())
    assert bool((block - block.diagonal().diag()).any())  # coordinates depend on each other: no Gaussian per coordinate


def test_the_density_integrates_to_one_and_is_not_gaussian() -> None:
    flow = build(1, 2, steps=2)
    axis = torch.linspace(-9, 9, 151, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)[:, None, :]
    policy = flow.evaluate(*question(), grid)
    squash = (1 - grid.tanh().square()).log().sum((1, 2))
    log_density = policy.log_prob(grid)[:, 0] + squash
    weight = log_density.detach().exp() * float(axis[1] - axis[0]) ** 2
    assert float(weight.sum()) == pytest.approx(1.0, abs=1e-4)
    mean = (weight[:, None] * grid[:, 0]).sum(0)
    gap = (grid[:, 0] - mean)[:, 0]
    assert abs(float((weight * gap**3).sum() / (weight * gap**2).sum() ** 1.5)) > 0.01


def test_going_back_finds_the_noise_that_a_chain_came_from() -> None:
    flow, drawn = build(), noise(4, 3, 4)
    chains = flow.sample(*question(2), drawn)
    policy = flow.evaluate(*question(2), chains.pre_NTD.detach())
    start, _ = policy.inverse(chains.pre_NTD)
    torch.testing.assert_close(start * torch.exp(-policy.log_std), drawn)
    torch.testing.assert_close(policy.log_prob(chains.pre_NTD), chains.policy.log_prob(chains.pre_NTD))


def test_the_density_at_other_chains_is_theirs() -> None:
    flow, one, other = build(), noise(2, 3, 4), noise(2, 3, 4, seed=5)
    expected = flow.evaluate(*question(), other).log_prob(other)
    torch.testing.assert_close(flow.evaluate(*question(), one).log_prob(other), expected)
    assert not torch.allclose(flow.evaluate(*question(), one).log_prob(one), expected)


def test_the_score_has_mean_zero_over_the_policys_own_chains() -> None:
    flow, count = build(), 1600
    with torch.no_grad():
        pre = flow.sample(*question(), noise(count, 3, 4)).pre_NTD
    log_prob = flow.evaluate(*question(), pre).log_prob(pre).sum(-1)
    for weight in (flow.head.bias, flow.static_TD, flow.spread.log_std_TD):
        halves = [torch.autograd.grad(part.mean(), weight, retain_graph=True)[0] for part in log_prob.split(count // 8)]
        each = torch.stack(halves).flatten(1)
        assert float((each.mean(0) / (each.std(0) / 8**0.5)).abs().mean()) < 1.5
        assert bool((each.std(0) > 1e-3).any())


def test_a_flow_that_moves_nothing_has_a_gaussians_entropy_and_divergence() -> None:
    flow = build()
    with torch.no_grad():
        flow.head.weight.zero_()
        flow.head.bias.zero_()
        flow.static_TD.zero_()
    chains = flow.sample(*question(), noise(8000, 3, 4))
    policy = chains.policy
    plain = TanhGaussian(torch.zeros_like(policy.log_std), policy.log_std)
    wide = TanhGaussian(torch.full_like(policy.log_std, 0.2), policy.log_std + 0.3)
    torch.testing.assert_close(chains.pre_NTD, policy.log_std.exp() * noise(8000, 3, 4))
    torch.testing.assert_close(policy.log_prob(chains.pre_NTD), plain.log_prob(chains.pre_NTD))
    torch.testing.assert_close(policy.entropy().mean(), plain.entropy().mean(), rtol=0, atol=0.05)
    torch.testing.assert_close(policy.kl(wide).mean(), plain.kl(wide).mean(), rtol=0, atol=0.05)
