"""Inclusion probabilities and the fixed-size sample that obeys them."""

import math
from itertools import combinations

import pytest
import torch

from dlr_core.selection import inclusion_probabilities, systematic_sample

SHAPES = [(4, 1), (6, 3), (8, 7), (16, 3)]


def random_predictions(rows: int, group: int, spread: float) -> torch.Tensor:
    return torch.randn(rows, group, generator=torch.Generator().manual_seed(group)) * spread


@pytest.mark.parametrize(("group", "keep"), SHAPES)
@pytest.mark.parametrize("spread", [0.01, 0.5, 3.0])
def test_probabilities_lie_in_the_unit_interval_and_sum_to_keep(group: int, keep: int, spread: float) -> None:
    inclusion = inclusion_probabilities(random_predictions(50, group, spread), keep)
    assert bool((inclusion > 0).all())
    assert bool((inclusion <= 1).all())
    torch.testing.assert_close(inclusion.sum(1), torch.full((50,), float(keep)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [20.0, 100.0, 1e4])
def test_probabilities_sum_to_keep_however_far_apart_predictions_are(scale: float) -> None:
    predictions = torch.tensor([[scale, 0.0, 0.0, 0.0], [scale, 2 * scale, 0.0, -scale]])
    inclusion = inclusion_probabilities(predictions, 2)
    torch.testing.assert_close(inclusion.sum(1), torch.full((2,), 2.0), rtol=1e-5, atol=1e-5)
    assert bool((inclusion > 0).all())


@pytest.mark.parametrize(("group", "keep"), SHAPES)
def test_a_higher_prediction_is_never_less_likely_to_be_decoded(group: int, keep: int) -> None:
    predictions = random_predictions(50, group, 1.0).sort(1).values
    inclusion = inclusion_probabilities(predictions, keep)
    assert bool((inclusion.diff(dim=1) >= -1e-6).all())
    assert bool((inclusion[:, -1] > inclusion[:, 0] + 1e-3).all())


@pytest.mark.parametrize(("group", "keep"), SHAPES)
def test_equal_predictions_give_equal_chances(group: int, keep: int) -> None:
    inclusion = inclusion_probabilities(torch.full((2, group), 0.7), keep)
    torch.testing.assert_close(inclusion, torch.full((2, group), keep / group))


def test_the_same_difference_counts_more_where_success_is_rare() -> None:
    rare, even = torch.tensor([[0.1, 0.0, 0.0, 0.0]]), torch.tensor([[0.6, 0.5, 0.5, 0.5]])
    assert float(inclusion_probabilities(rare, 1)[0, 0]) > float(inclusion_probabilities(even, 1)[0, 0]) + 0.1


def test_differences_that_are_only_rounding_choose_nothing() -> None:
    for level in (0.0, 0.2, 1.0):
        inclusion = inclusion_probabilities(torch.tensor([[level, level + 1e-6, level, level - 1e-6]]), 2)
        torch.testing.assert_close(inclusion, torch.full((1, 4), 0.5), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("keep", [4, 5])
def test_keeping_everything_or_more_is_certain(keep: int) -> None:
    assert bool((inclusion_probabilities(random_predictions(3, 4, 1.0), keep) == 1).all())


def test_exploration_bounds_every_probability_from_below() -> None:
    predictions = torch.tensor([[2.0, 0.0, 0.0, -2.0]])
    assert float(inclusion_probabilities(predictions, 2, explore=0.4).min()) >= 0.4 * 2 / 4
    everyone = inclusion_probabilities(predictions, 2, explore=1.0)
    torch.testing.assert_close(everyone, torch.full((1, 4), 0.5))


def test_probabilities_by_hand() -> None:
    # at a mean of 1/5 the deviation is 0.4: weights e^2.5, 1, 1, 1, 1 of sharpness 1; the first would get 2·0.75 > 1
    predictions = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]])
    inclusion = inclusion_probabilities(predictions, 2, explore=0.0, sharpness=1.0)
    torch.testing.assert_close(inclusion, torch.tensor([[1.0, 0.25, 0.25, 0.25, 0.25]]))
    mixed = inclusion_probabilities(predictions, 2, explore=0.3, sharpness=1.0)
    torch.testing.assert_close(mixed, 0.3 * torch.full((1, 5), 0.4) + 0.7 * inclusion)


def test_sharpness_is_the_log_odds_that_one_standard_deviation_of_being_right_is_worth() -> None:
    pair = torch.tensor([[0.75, 0.25]])  # one deviation apart: at a mean of 1/2 it is 1/2
    nine_to_one = inclusion_probabilities(pair, 1, explore=0.0, sharpness=math.log(9.0))
    torch.testing.assert_close(nine_to_one, torch.tensor([[0.9, 0.1]]))
    # by default it is 6, and a fifth of the choice is left to chance
    odds = math.exp(6.0)
    share = torch.tensor([[odds / (1 + odds), 1 / (1 + odds)]])
    torch.testing.assert_close(inclusion_probabilities(pair, 1), 0.2 * torch.tensor([[0.5, 0.5]]) + 0.8 * share)


@pytest.mark.parametrize(("group", "keep"), [*SHAPES, (5, 5)])
def test_a_sample_has_fixed_size_and_distinct_ascending_chains(group: int, keep: int) -> None:
    inclusion = inclusion_probabilities(random_predictions(200, group, 1.0), keep)
    chosen = systematic_sample(inclusion, keep, torch.Generator().manual_seed(0))
    assert chosen.shape == (200, keep)
    assert bool((chosen.diff(dim=1) > 0).all())
    assert int(chosen.min()) >= 0
    assert int(chosen.max()) < group


def test_frequencies_match_the_inclusion_probabilities() -> None:
    draws = 6000
    inclusion = inclusion_probabilities(torch.tensor([[1.2, 0.1, 0.4, -0.5, 0.0, 0.3]]), 3)
    chosen = systematic_sample(inclusion.expand(draws, -1), 3, torch.Generator().manual_seed(3))
    frequency = torch.zeros(draws, 6).scatter_(1, chosen, 1.0).mean(0)
    error = (inclusion[0] * (1 - inclusion[0]) / draws).sqrt()
    assert bool(((frequency - inclusion[0]).abs() < 4.5 * error).all())
    # so sharp a test tells these probabilities from equal ones
    assert bool(((frequency - 0.5).abs() > 4.5 * error).any())


def test_every_pair_of_chains_can_be_decoded_together() -> None:
    chosen = systematic_sample(torch.full((500, 6), 0.5), 3, torch.Generator().manual_seed(4))
    seen = {pair for row in chosen.tolist() for pair in combinations(row, 2)}
    assert seen == set(combinations(range(6), 2))


def test_the_same_generator_state_draws_the_same_sample() -> None:
    inclusion = inclusion_probabilities(random_predictions(20, 6, 1.0), 3)
    first, again, other = (systematic_sample(inclusion, 3, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_common_factor_of_the_probabilities_changes_no_sample() -> None:
    inclusion = inclusion_probabilities(random_predictions(20, 6, 1.0), 3)
    drawn = [systematic_sample(inclusion * factor, 3, torch.Generator().manual_seed(7)) for factor in (1.0, 0.5, 2.0)]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


CERTAIN, EQUAL = [1.0, 0.5, 0.5, 0.5, 0.5], [0.75] * 4


@pytest.mark.parametrize(
    ("inclusion", "draw"),
    [(CERTAIN, 0.0), (CERTAIN, 1.0 - 2.0**-40), (CERTAIN, 1.0 - 2.0**-53), (EQUAL, 0.0), (EQUAL, 1.0 - 2.0**-53)],
)
def test_the_least_and_the_greatest_draw_take_distinct_chains_too(
    inclusion: list[float], draw: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, draw, dtype=torch.float64))
    chosen = systematic_sample(torch.tensor([inclusion] * 50), 3, torch.Generator().manual_seed(8))
    assert bool((chosen.diff(dim=1) > 0).all())
    assert int(chosen.max()) < len(inclusion)
    if inclusion is CERTAIN:
        assert bool((chosen[:, 0] == 0).all())
