"""The squashed Gaussian: density, entropy and divergence against independent computations."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from dlr_core.density import TanhGaussian, log_det_tanh

CASES = [(0.0, 0.3), (0.4, 0.2), (-1.5, 0.7), (3.0, 1.0), (0.5, 2.0)]


def normal(mean: float, std: float) -> Normal:
    return Normal(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))


def policy(mean: float, std: float) -> TanhGaussian:
    return TanhGaussian(torch.tensor([mean], dtype=torch.float64), torch.tensor([math.log(std)], dtype=torch.float64))


def density_of_u(mean: float, std: float, points: int = 200_001) -> tuple[Tensor, Tensor]:
    """A fine grid of u over ±12 standard deviations and the normal density on it."""
    grid = torch.linspace(mean - 12 * std, mean + 12 * std, points, dtype=torch.float64)
    return grid, normal(mean, std).log_prob(grid).exp()


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_log_prob_is_the_change_of_variables(mean: float, std: float) -> None:
    pre = torch.linspace(-4, 4, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(pre.tanh().sum(), pre)
    expected = normal(mean, std).log_prob(pre) - slope.log()
    torch.testing.assert_close(policy(mean, std).log_prob(pre[:, None]), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (0.4, 0.5), (-0.8, 0.7)])
def test_density_integrates_to_one_over_the_box(mean: float, std: float) -> None:
    count = 400_000
    action = (torch.arange(count, dtype=torch.float64) + 0.5) * (2 / count) - 1
    mass = policy(mean, std).log_prob(action.atanh()[:, None]).exp().sum() * (2 / count)
    assert float(mass) == pytest.approx(1.0, abs=1e-5)


def test_log_prob_adds_up_over_width_and_keeps_latents_apart() -> None:
    torch.manual_seed(0)
    mean, log_std, pre = torch.randn(3, 4, 5), torch.randn(4, 5) * 0.1, torch.randn(3, 4, 5)
    got = TanhGaussian(mean, log_std).log_prob(pre)
    assert got.shape == (3, 4)
    single = sum(
        TanhGaussian(mean[1, 2, d : d + 1], log_std[2, d : d + 1]).log_prob(pre[1, 2, d : d + 1]) for d in range(5)
    )
    torch.testing.assert_close(got[1, 2], single)


@pytest.mark.parametrize("size", [20.0, 50.0, 1000.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_far_tails_keep_their_digits_and_gradients(size: float, sign: float) -> None:
    pre = torch.tensor([sign * size], requires_grad=True)
    slope = log_det_tanh(pre)
    assert float(slope.detach()) == pytest.approx(math.log(4.0) - 2.0 * size, rel=1e-6)
    value = TanhGaussian(torch.zeros(1), torch.zeros(1)).log_prob(pre)
    assert float(value.detach()) == pytest.approx(
        -0.5 * size**2 - 0.5 * math.log(2 * math.pi) - math.log(4.0) + 2.0 * size, rel=1e-6
    )
    value.backward()
    assert float(pre.grad) == pytest.approx(-sign * size + 2.0 * sign, rel=1e-5)


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_entropy_is_the_integral_of_minus_log_density(mean: float, std: float) -> None:
    grid, weight = density_of_u(mean, std)
    log_slope = 2 * (math.log(2.0) - grid.abs() - torch.log1p(torch.exp(-2 * grid.abs())))
    inner = normal(mean, std).log_prob(grid) - log_slope
    expected = -torch.trapezoid(weight * inner, grid)
    assert float(policy(mean, std).entropy()) == pytest.approx(float(expected), abs=2e-3)


def test_entropy_agrees_with_sampling_and_sums_over_width() -> None:
    generator = torch.Generator().manual_seed(1)
    gaussian = TanhGaussian(torch.tensor([[0.3, -0.6], [0.0, 1.0]]), torch.tensor([[-1.2, -0.5], [-2.0, 0.0]]))
    pre = gaussian.mean + gaussian.log_std.exp() * torch.randn(100_000, 2, 2, generator=generator)
    surprise = -gaussian.log_prob(pre)
    error = surprise.std(0) / math.sqrt(len(pre))
    assert bool(((gaussian.entropy() - surprise.mean(0)).abs() < 5 * error + 1e-4).all())


def test_kl_is_that_of_the_gaussians_summed_over_width() -> None:
    torch.manual_seed(2)
    one, two = (TanhGaussian(torch.randn(3, 4, 5), torch.randn(3, 4, 5) * 0.5) for _ in range(2))
    expected = kl_divergence(Normal(one.mean, one.log_std.exp()), Normal(two.mean, two.log_std.exp())).sum(-1)
    torch.testing.assert_close(one.kl(two), expected, rtol=1e-5, atol=1e-5)
    assert bool((one.kl(two) > 0).all())
    assert not torch.allclose(one.kl(two), two.kl(one))


def test_kl_of_a_policy_to_itself_is_zero() -> None:
    one = TanhGaussian(torch.randn(3, 2), torch.randn(3, 2))
    torch.testing.assert_close(one.kl(one), torch.zeros(3), rtol=0, atol=1e-6)


def test_kl_is_the_mean_log_ratio_of_the_squashed_densities() -> None:
    one, two = policy(0.3, 0.4), policy(-0.2, 0.6)
    grid, weight = density_of_u(0.3, 0.4)
    ratio = one.log_prob(grid[:, None]) - two.log_prob(grid[:, None])
    assert float(one.kl(two)) == pytest.approx(float(torch.trapezoid(weight * ratio, grid)), abs=1e-6)


def test_a_policy_stays_what_it_was_made() -> None:
    one = policy(0.3, 0.4)
    with pytest.raises(FrozenInstanceError):
        one.mean = one.mean + 1.0  # type: ignore[misc]
