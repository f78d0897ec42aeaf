"""Values and baselines of partly decoded groups."""

import torch

from dlr_core.advantages import corrected_values, dead_groups, leave_one_out, success_rate
from dlr_core.selection import inclusion_probabilities, systematic_sample


def test_corrected_values_by_hand() -> None:
    values = corrected_values(
        rewards_BK=torch.tensor([[1.0, 0.0]]),
        chosen_BK=torch.tensor([[0, 2]]),
        predictions_BG=torch.tensor([[0.5, 0.2, 0.4]]),
        inclusion_BG=torch.tensor([[0.5, 0.7, 0.8]]),
    )
    torch.testing.assert_close(values, torch.tensor([[0.5 + 0.5 / 0.5, 0.2, 0.4 - 0.4 / 0.8]]))


def test_with_everything_decoded_values_are_the_rewards() -> None:
    rewards = torch.randn(3, 4)
    chosen = torch.arange(4).expand(3, -1)
    values = corrected_values(rewards, chosen, torch.randn(3, 4), torch.ones(3, 4))
    torch.testing.assert_close(values, rewards)


def test_inputs_are_left_as_they_were() -> None:
    predictions = torch.tensor([[0.5, 0.2]])
    corrected_values(torch.tensor([[1.0]]), torch.tensor([[0]]), predictions, torch.tensor([[0.5, 0.5]]))
    assert predictions.tolist() == torch.tensor([[0.5, 0.2]]).tolist()


def test_values_are_unbiased_over_the_selection_whatever_is_predicted() -> None:
    draws, keep = 5000, 2
    rewards = torch.tensor([1.0, 0.0, 0.3, 1.0, 0.0])
    predictions = torch.tensor([[0.9, 0.6, -0.4, 0.1, 0.2]]).expand(draws, -1)
    inclusion = inclusion_probabilities(predictions, keep)
    chosen = systematic_sample(inclusion, keep, torch.Generator().manual_seed(0))
    values = corrected_values(rewards[chosen], chosen, predictions, inclusion)
    error = values.std(0) / draws**0.5
    assert bool(((values.mean(0) - rewards).abs() < 4.5 * error).all())
    uncorrected = corrected_values(rewards[chosen], chosen, predictions, torch.ones_like(inclusion))
    deviation = (uncorrected.mean(0) - rewards).abs() / (uncorrected.std(0) / draws**0.5)
    assert float(deviation.max()) > 20


def test_the_success_rate_takes_undecoded_chains_for_what_is_predicted_of_them_and_corrects_it() -> None:
    everyone, nothing = torch.arange(4)[None], torch.zeros(1, 4)
    half = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    assert success_rate(half, everyone, nothing + 0.9, nothing + 1.0).tolist() == [0.5]
    some, predicted = torch.tensor([[0, 3]]), torch.tensor([[0.6, 0.2, 0.2, 0.4]])
    certain = torch.tensor([[1.0, 0.5, 0.5, 1.0]])
    rate = success_rate(torch.tensor([[1.0, 0.0]]), some, predicted, certain)
    torch.testing.assert_close(rate, torch.tensor([(1.0 + 0.2 + 0.2 + 0.0) / 4]))
    unlikely = torch.tensor([[0.5, 0.5, 0.5, 0.8]])  # 0.6 + 0.4/0.5, and 0.4 − 0.4/0.8
    rate = success_rate(torch.tensor([[1.0, 0.0]]), some, predicted, unlikely)
    torch.testing.assert_close(rate, torch.tensor([(1.4 + 0.2 + 0.2 - 0.1) / 4]))
    lucky = success_rate(torch.ones(1, 1), some[:, :1], nothing, nothing + 0.1)
    assert lucky.tolist() == [1.0]  # one that stood for ten


def test_a_question_is_not_easy_because_only_what_is_right_was_decoded() -> None:
    kept = torch.arange(3)[None]
    rate = success_rate(torch.ones(1, 3), kept, torch.zeros(1, 16), torch.ones(1, 16))
    torch.testing.assert_close(rate, torch.tensor([3 / 16]))


def test_leave_one_out_is_the_mean_of_the_others() -> None:
    baseline = leave_one_out(torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]))
    torch.testing.assert_close(baseline, torch.tensor([[4.0, 3.5, 1.5], [1.5, 1.5, 0.0]]))


def test_a_baseline_ignores_its_own_value() -> None:
    values = torch.randn(2, 4)
    changed = values.clone()
    changed[:, 1] += 5.0
    torch.testing.assert_close(leave_one_out(values)[:, 1], leave_one_out(changed)[:, 1])


def test_in_a_pair_each_is_the_others_baseline() -> None:
    assert leave_one_out(torch.tensor([[1.0, 3.0]])).tolist() == [[3.0, 1.0]]


def test_a_group_of_one_has_no_baseline() -> None:
    assert leave_one_out(torch.tensor([[3.0], [1.0]])).tolist() == [[0.0], [0.0]]


def test_groups_of_equal_rewards_are_dead() -> None:
    rewards = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.1, 0.1, 0.2]])
    assert dead_groups(rewards).tolist() == [True, True, False, False]
    assert dead_groups(torch.tensor([[0.7]])).tolist() == [True]
