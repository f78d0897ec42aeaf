"""Pre-decode scorers."""

import pytest
import torch
from dlr_plugins.scorers.learned import LearnedScorer
from dlr_plugins.scorers.likelihood import LikelihoodScorer
from dlr_plugins.scorers.none import NoScorer
from dlr_plugins.scorers.random import RandomScorer
from torch import Tensor

SHAPE = {"hidden_size": 6, "num_latents": 3, "latent_dim": 2}


def learned(**options: float) -> LearnedScorer:
    torch.manual_seed(0)
    return LearnedScorer(LearnedScorer.Options(**options), **SHAPE)


def toy(rows: int, group: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A chain earns 1 where one of its coordinates outweighs one of the question's last state."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(rows, 5, 6, generator=generator)
    latents = torch.rand(rows, group, 3, 2, generator=generator) * 2 - 1
    rewards = (latents[:, :, 0, 0] > 0.3 * states[:, -1, :1]).float()
    return states, torch.ones(rows, 5, dtype=torch.int64), latents, rewards


def test_the_learned_scorer_learns_a_separable_toy() -> None:
    scorer = learned(lr=3e-3, passes=4)
    errors = [scorer.update(*toy(32, 4, seed))["scorer_mse"] for seed in range(80)]
    states, mask, latents, rewards = toy(200, 4, 999)
    predicted = scorer.predict(states, mask, latents)
    assert float(((predicted > 0.5) == (rewards > 0.5)).float().mean()) > 0.85
    assert errors[-1] < 0.5 * errors[0]


def test_the_logged_error_is_that_before_learning() -> None:
    scorer = learned()
    states, mask, latents, rewards = toy(8, 4, 0)
    expected = float((scorer.predict(states, mask, latents) - rewards).square().mean())
    assert abs(scorer.update(states, mask, latents, rewards)["scorer_mse"] - expected) < 1e-6


def test_an_unlearned_scorer_predicts_nothing() -> None:
    states, mask, latents, _ = toy(4, 3, 0)
    assert not learned().predict(states, mask, latents).any()


def test_a_prediction_reads_the_last_state_the_mean_state_and_the_chain() -> None:
    scorer = learned(lr=1e-2, width=7)
    for seed in range(3):
        scorer.update(*toy(8, 4, seed))
    states, mask, latents, _ = toy(4, 3, 1)
    states, mask[1, :2] = 0.01 * states, 0  # so small that its normalisation does not hide a sum from a mean
    for b in range(4):
        mean = states[b][mask[b].bool()].mean(0)
        question = scorer.read_question(states[b, -1]) + scorer.read_question(mean)
        for g in range(3):
            expected = scorer.out(scorer.head(question + scorer.read_chain(latents[b, g].flatten())))
            torch.testing.assert_close(scorer.predict(states, mask, latents)[b, g : g + 1], expected)


def test_the_learned_scorer_is_as_large_as_its_width_says() -> None:
    sizes = sorted(tuple(weight.shape) for weight in learned(width=7).parameters())
    assert sizes == sorted([(6,), (6,), (7, 6), (7,), (7, 6), (7,), (7, 7), (7,), (1, 7), (1,)])


def test_a_pass_is_one_step_of_adam_at_the_given_rate() -> None:
    one, two = learned(passes=1, lr=0.03), learned(passes=2, lr=0.03)
    batch = toy(8, 4, 0)
    one.update(*batch)
    assert float(one.out.bias.detach().abs()) == pytest.approx(0.03, rel=1e-4)  # the first step is the rate itself
    first, second = one.update(*batch)["scorer_mse"], two.update(*batch)["scorer_mse"]
    assert first != second
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, two.state_dict()[name])
    assert not torch.allclose(one.out.bias, torch.full((1,), 0.03), atol=1e-4)


def test_predictions_have_no_gradient_and_change_no_weight() -> None:
    scorer = learned()
    scorer.update(*toy(8, 4, 0))
    before = {name: value.clone() for name, value in scorer.state_dict().items()}
    states, mask, latents, _ = toy(4, 3, 1)
    predicted = scorer.predict(states, mask, latents.requires_grad_())
    assert predicted.shape == (4, 3)
    assert not predicted.requires_grad
    assert all(torch.equal(before[name], value) for name, value in scorer.state_dict().items())


def test_predictions_do_not_depend_on_the_rest_of_the_batch_or_on_padding() -> None:
    scorer = learned(lr=1e-2)
    for seed in range(5):
        scorer.update(*toy(8, 4, seed))
    states, mask, latents, _ = toy(4, 3, 1)
    whole = scorer.predict(states, mask, latents)
    torch.testing.assert_close(scorer.predict(states[2:3], mask[2:3], latents[2:3]), whole[2:3])
    padded = torch.cat([torch.full((4, 2, 6), 7.0), states], 1)
    padded_mask = torch.cat([torch.zeros(4, 2, dtype=torch.int64), mask], 1)
    torch.testing.assert_close(scorer.predict(padded, padded_mask, latents), whole)


def test_learning_is_deterministic_and_its_state_can_be_restored() -> None:
    one, two = learned(), learned()
    for scorer in (one, two):
        scorer.update(*toy(8, 4, 0))
    states, mask, latents, _ = toy(4, 3, 1)
    expected = one.predict(states, mask, latents)
    assert expected.any()
    assert torch.equal(expected, two.predict(states, mask, latents))
    fresh = learned()
    fresh.load_state_dict(one.state_dict())
    assert torch.equal(expected, fresh.predict(states, mask, latents))


def test_none_and_random_predict_zeros_and_learn_nothing() -> None:
    states, mask, latents, rewards = toy(4, 3, 0)
    for scorer in (NoScorer(**SHAPE), RandomScorer(**SHAPE)):
        assert torch.equal(scorer.predict(states, mask, latents), torch.zeros(4, 3))
        assert scorer.update(states, mask, latents, rewards) == {}
        assert scorer.state_dict() == {}
        scorer.load_state_dict({})


def test_only_none_needs_every_chain_decoded() -> None:
    assert NoScorer.decodes_all
    assert not RandomScorer.decodes_all
    assert not LearnedScorer.decodes_all
    assert not LikelihoodScorer.decodes_all


def test_the_likelihood_scorer_alone_sees_gold_and_predicts_its_probability() -> None:
    assert [getattr(kind, "needs_gold", False) for kind in (LikelihoodScorer, NoScorer, LearnedScorer)] == [True, 0, 0]
    predicted = LikelihoodScorer(**SHAPE).predict_from_gold(torch.tensor([[0.0, 0.25], [0.5, 1.0]]).log())
    torch.testing.assert_close(predicted, torch.tensor([[0.0, 0.25], [0.5, 1.0]]))
