"""Estimators on a toy whose policy gradient is known exactly, and their weights by hand.

The toy: two latents of width one, u_t ~ N(mean_t, exp(log_std_t)), a = tanh(u); the main model says one of three
words with logits linear in the latents; each word has its reward. The exact gradient of the expected reward comes
from a two-dimensional Gauss-Hermite quadrature. Every question has its own copy of the parameters, so that one batch
gives thousands of independent gradient estimates.
"""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from dlr_plugins.estimators.hybrid import Hybrid
from dlr_plugins.estimators.likelihood import Likelihood
from dlr_plugins.estimators.pathwise import Pathwise
from dlr_plugins.estimators.pathwise_greedy import PathwiseGreedy
from dlr_plugins.estimators.score import Score
from torch import Tensor

from dlr_core.batch import Decodes, StepBatch
from dlr_core.cost import TokenFlops, Usage
from dlr_core.density import TanhGaussian
from dlr_core.protocols import ChainBatch
from dlr_core.rollout import Collector
from dlr_core.selection import inclusion_probabilities, systematic_sample

QUESTIONS, GROUP, KEEP = 12_000, 4, 2
WEIGHT = torch.tensor([[1.5, -1.0], [-0.5, 1.2], [0.3, 0.4]], dtype=torch.float64)
BIAS = torch.tensor([0.2, 0.0, -0.3], dtype=torch.float64)
REWARDS = torch.tensor([1.0, 0.3, 0.0], dtype=torch.float64)
MEAN = torch.tensor([0.4, -0.2], dtype=torch.float64)
LOG_STD = torch.tensor([-0.5, -0.9], dtype=torch.float64)


def word_log_probs(latents_NTD: Tensor) -> Tensor:
    return (latents_NTD[..., 0] @ WEIGHT.T + BIAS).log_softmax(-1)


def exact_gradient() -> Tensor:
    """∂E[R]/∂(mean, log_std), (2, T)."""
    nodes, weights = (torch.tensor(x) for x in np.polynomial.hermite_e.hermegauss(60))
    weights = weights / weights.sum()
    mean, log_std = MEAN.clone().requires_grad_(), LOG_STD.clone().requires_grad_()
    grid = torch.stack(torch.meshgrid(nodes, nodes, indexing="ij"), -1).flatten(0, 1)
    latents = (mean + log_std.exp() * grid).tanh()[..., None]
    expected = (weights[:, None] * weights[None]).flatten() @ (word_log_probs(latents).exp() @ REWARDS)
    return torch.stack(torch.autograd.grad(expected, [mean, log_std]))


@dataclass
class Toy:
    mean_BT1: Tensor
    log_std_BT1: Tensor
    batch: StepBatch

    def gradients(self, estimator: Any, **changes: Any) -> Tensor:
        """One estimate of the gradient (ascent) per question, (B, 2, T)."""
        loss, _ = estimator(replace(self.batch, **changes))
        found = torch.autograd.grad(loss, [self.mean_BT1, self.log_std_BT1], retain_graph=True)
        return -QUESTIONS * torch.stack([part[..., 0] for part in found], 1)


@pytest.fixture(scope="module")
def toy() -> Toy:
    generator = torch.Generator().manual_seed(0)
    mean = MEAN.expand(QUESTIONS, 2)[..., None].clone().requires_grad_()
    log_std = LOG_STD.expand(QUESTIONS, 2)[..., None].clone().requires_grad_()
    rows_mean, rows_log_std = mean.repeat_interleave(GROUP, 0), log_std.repeat_interleave(GROUP, 0)
    noise = torch.randn(QUESTIONS * GROUP, 2, 1, generator=generator, dtype=torch.float64)
    policy = TanhGaussian(rows_mean, rows_log_std)
    pre = rows_mean + rows_log_std.exp() * noise
    latents = pre.detach().tanh()
    # a prediction that is badly wrong and goes with the latents: without a correction the selection would bias
    predictions = (0.2 + 0.8 * latents[:, 0, 0] - 0.5 * latents[:, 1, 0]).view(QUESTIONS, GROUP)
    inclusion = inclusion_probabilities(predictions, KEEP)
    chosen = systematic_sample(inclusion, KEEP, generator)
    words = torch.multinomial(word_log_probs(latents).exp(), 1, generator=generator)[:, 0]
    kept = words.view(QUESTIONS, GROUP).gather(1, chosen)

    def weighted(latents_NTD: Tensor, weights_BK: Tensor) -> Tensor:
        log_prob_N = word_log_probs(latents_NTD).gather(1, kept.flatten()[:, None])[:, 0]
        return (log_prob_N * weights_BK.flatten()).sum()

    def policy_log_prob() -> Tensor:
        return policy.log_prob(pre.detach()).unflatten(0, (QUESTIONS, GROUP))

    batch = StepBatch(
        chains=ChainBatch(noise, policy, pre),
        states_BSH=torch.zeros(QUESTIONS, 1, 1),
        mask_BS=torch.ones(QUESTIONS, 1, dtype=torch.int64),
        questions=[""] * QUESTIONS,
        chosen_BK=chosen,
        inclusion_BG=inclusion,
        predictions_BG=predictions,
        rewards_BK=REWARDS[kept],
        correct_BK=(kept == 0).double(),
        repeat_BK=torch.zeros_like(kept, dtype=torch.bool),
        policy_log_prob_BGT=policy_log_prob,
        old_log_prob_BGT=policy_log_prob().detach(),
        weighted_completion_log_prob=weighted,
        weighted_gold_log_prob=weighted,
    )
    return Toy(mean, log_std, batch)


@pytest.fixture(scope="module")
def marginal_toy(toy: Toy) -> Toy:
    """The same chains, the kept ones decoded three times."""
    latents = toy.batch.chains.actions_NTD.detach()[toy.batch.chosen_rows_N]
    chances = word_log_probs(latents).exp()
    words_NM = torch.multinomial(chances, 3, replacement=True, generator=torch.Generator().manual_seed(1))
    words_BKM = words_NM.unflatten(0, (QUESTIONS, KEEP))
    each = Decodes(REWARDS[words_BKM], (words_BKM == 0).double(), torch.zeros_like(words_BKM, dtype=torch.bool))

    def weighted(latents_NTD: Tensor, weights: Tensor) -> Tensor:
        log_prob_NM = word_log_probs(latents_NTD).gather(1, words_NM)
        weights_NM = weights.flatten(0, 1) if weights.dim() == 3 else weights.flatten()[:, None]
        return (log_prob_NM * weights_NM).sum()

    changes = {"rewards_BK": each.rewards_BKM.mean(-1), "correct_BK": each.correct_BKM.mean(-1), "decodes": each}
    return replace(toy, batch=replace(toy.batch, **changes, weighted_completion_log_prob=weighted))


def deviation(estimates_B2T: Tensor) -> Tensor:
    """How many standard errors the mean estimate is away from the exact gradient, (2, T)."""
    error = estimates_B2T.std(0) / len(estimates_B2T) ** 0.5
    return (estimates_B2T.mean(0) - exact_gradient()).abs() / error


UNBIASED = {
    "score": Score(Score.Options()),
    "pathwise": Pathwise(Pathwise.Options()),
    "hybrid": Hybrid(Hybrid.Options(mix=0.3)),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_the_filtered_gradient_is_unbiased(name: str, toy: Toy) -> None:
    estimates = toy.gradients(UNBIASED[name])
    assert float(deviation(estimates).max()) < 4.5
    signal = exact_gradient().abs() / (estimates.std(0) / QUESTIONS**0.5)
    assert float(signal.max()) > 15  # precise enough to see a gradient a few tenths off


@pytest.mark.parametrize("name", UNBIASED)
def test_several_decodes_per_chain_leave_the_gradient_unbiased_and_lower_its_variance(
    name: str, toy: Toy, marginal_toy: Toy
) -> None:
    estimates = marginal_toy.gradients(UNBIASED[name])
    assert float(deviation(estimates).max()) < 4.5
    assert bool((estimates.std(0) < toy.gradients(UNBIASED[name]).std(0)).all())


def test_a_chains_completions_may_be_weighed_together_by_its_mean_reward(marginal_toy: Toy) -> None:
    """Reward and likelihood of M completions as those of one long one: unbiased too, and noisier."""

    def together(batch: StepBatch) -> tuple[Tensor, dict[str, float]]:
        weights_BK = batch.rewards_BK / batch.chosen_inclusion_BK
        latents_NTD = batch.chains.actions_NTD[batch.chosen_rows_N]
        return -batch.weighted_completion_log_prob(latents_NTD, weights_BK) / batch.inclusion_BG.numel(), {}

    estimates = marginal_toy.gradients(together)
    assert float(deviation(estimates).max()) < 4.5
    assert bool((estimates.std(0) > marginal_toy.gradients(UNBIASED["pathwise"]).std(0)).all())


@pytest.mark.parametrize("name", UNBIASED)
def test_without_the_inclusion_correction_the_gradient_is_wrong(name: str, toy: Toy) -> None:
    uniform = torch.full_like(toy.batch.inclusion_BG, KEEP / GROUP)
    for inclusion in (torch.ones_like(uniform), uniform):
        assert float(deviation(toy.gradients(UNBIASED[name], inclusion_BG=inclusion)).max()) > 8


@pytest.mark.parametrize("name", ["score", "pathwise"])
def test_the_baseline_lowers_the_variance(name: str, toy: Toy) -> None:
    shifted = {"rewards_BK": toy.batch.rewards_BK + 3.0, "predictions_BG": toy.batch.predictions_BG + 3.0}
    estimates = toy.gradients(UNBIASED[name], **shifted)
    assert float(deviation(estimates).max()) < 4.5
    plain = toy.gradients(UNBIASED[name])
    torch.testing.assert_close(estimates.mean(0), plain.mean(0), atol=0.05, rtol=0)


def test_hybrid_mixes_the_two_losses_linearly(toy: Toy) -> None:
    score, pathwise = toy.gradients(UNBIASED["score"]), toy.gradients(UNBIASED["pathwise"])
    for mix in (0.0, 0.25, 1.0):
        mixed = toy.gradients(Hybrid(Hybrid.Options(mix=mix)))
        torch.testing.assert_close(mixed, mix * score + (1 - mix) * pathwise)


# Weights by hand.


class Recorder:
    """Stands for the main model: remembers what it was asked to weigh."""

    def __init__(self, log_prob_N: Tensor) -> None:
        self.log_prob_N = log_prob_N

    def __call__(self, latents_NTD: Tensor, weights_BK: Tensor) -> Tensor:
        self.latents_NTD, self.weights_BK = latents_NTD, weights_BK
        return (self.log_prob_N * weights_BK.flatten()).sum() + latents_NTD.sum() * 0.0


def small_batch(
    rewards: list[list[float]],
    *,
    correct: list[list[float]] | None = None,
    repeat: list[list[bool]] | None = None,
    group: int | None = None,
    chosen: list[list[int]] | None = None,
    inclusion: float = 1.0,
    log_prob_BGT: Tensor | None = None,
) -> StepBatch:
    rewards_BK = torch.tensor(rewards)
    rows, keep = rewards_BK.shape
    group = group or keep
    pre = torch.arange(rows * group * 2, dtype=torch.float32).view(rows * group, 2, 1) / 10
    policy = TanhGaussian(torch.zeros_like(pre), torch.zeros_like(pre))
    log_prob = torch.zeros(rows, group, 2) if log_prob_BGT is None else log_prob_BGT
    recorder = Recorder(-torch.arange(1.0, rows * keep + 1))
    return StepBatch(
        chains=ChainBatch(pre, policy, pre),
        states_BSH=torch.zeros(rows, 1, 1),
        mask_BS=torch.ones(rows, 1, dtype=torch.int64),
        questions=[f"q{b}" for b in range(rows)],
        chosen_BK=torch.tensor(chosen) if chosen else torch.arange(keep).expand(rows, -1),
        inclusion_BG=torch.full((rows, group), inclusion),
        predictions_BG=torch.zeros(rows, group),
        rewards_BK=rewards_BK,
        correct_BK=torch.tensor(correct) if correct else (rewards_BK == 1.0).float(),
        repeat_BK=torch.tensor(repeat) if repeat else torch.zeros(rows, keep, dtype=torch.bool),
        policy_log_prob_BGT=lambda: log_prob,
        old_log_prob_BGT=torch.zeros(rows, group, 2),
        weighted_completion_log_prob=recorder,
        weighted_gold_log_prob=recorder,
    )


def pathwise_weights(estimator: Any, batch: StepBatch) -> Tensor:
    loss, _ = estimator(batch)
    recorder: Any = batch.weighted_completion_log_prob
    expected = -(recorder.log_prob_N * recorder.weights_BK.flatten()).sum() / batch.inclusion_BG.numel()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(recorder.latents_NTD, batch.chains.actions_NTD[batch.chosen_rows_N])
    return recorder.weights_BK.flatten(1)


def score_weights(estimator: Any, batch: StepBatch) -> Tensor:
    """Weights (B, G) on ∇log π, the same for every latent of a chain."""
    log_prob = torch.zeros_like(batch.old_log_prob_BGT).requires_grad_()
    loss, logs = estimator(replace(batch, policy_log_prob_BGT=lambda: log_prob))
    (slope,) = torch.autograd.grad(loss, log_prob)
    assert logs == {"clip_fraction": 0.0}
    torch.testing.assert_close(slope[..., 0], slope[..., 1])
    return -slope[..., 0] * batch.inclusion_BG.numel()


REWARD_ROWS = [[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]]
ADVANTAGES = torch.tensor([[0.75, -0.75, 0.0], [0.0, 0.0, 0.0]])


def test_weights_are_rewards_less_the_mean_of_the_others() -> None:
    torch.testing.assert_close(pathwise_weights(Pathwise(Pathwise.Options()), small_batch(REWARD_ROWS)), ADVANTAGES)
    torch.testing.assert_close(score_weights(Score(Score.Options()), small_batch(REWARD_ROWS)), ADVANTAGES)


def test_normalised_weights_are_divided_by_the_groups_standard_deviation() -> None:
    expected = ADVANTAGES / (0.5 + 1e-4)  # the standard deviation of 1, 0, 0.5
    batch = small_batch(REWARD_ROWS)
    torch.testing.assert_close(pathwise_weights(Pathwise(Pathwise.Options(normalise=True)), batch), expected)
    torch.testing.assert_close(score_weights(Score(Score.Options(normalise=True)), batch), expected)


def test_two_chains_can_be_normalised_and_a_lone_one_is_left_as_it_is() -> None:
    for rewards, expected in (([[1.0, 0.0]], torch.tensor([[1.0, -1.0]]) / (0.5**0.5 + 1e-4)), ([[0.5]], [[0.5]])):
        batch, options = small_batch(rewards), {"normalise": True}
        want = torch.as_tensor(expected)
        torch.testing.assert_close(pathwise_weights(Pathwise(Pathwise.Options(**options)), batch), want)
        torch.testing.assert_close(score_weights(Score(Score.Options(**options)), batch), want)


def test_success_weight_is_added_to_correct_chains_without_a_baseline() -> None:
    expected = 2.0 * ADVANTAGES + torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    options = {"advantage": 2.0, "success_weight": 0.5}
    batch = small_batch(REWARD_ROWS)
    torch.testing.assert_close(pathwise_weights(Pathwise(Pathwise.Options(**options)), batch), expected)
    torch.testing.assert_close(score_weights(Score(Score.Options(**options)), batch), expected)


def test_partly_decoded_weights_by_hand() -> None:
    # q = 0, π = 1/2: V = (2, 0, 0, 0); the decoded chains are 0 and 2
    batch = small_batch([[1.0, 0.0]], group=4, chosen=[[0, 2]], inclusion=0.5)
    assert batch.chosen_rows_N.tolist() == [0, 2]
    torch.testing.assert_close(
        score_weights(Score(Score.Options()), batch), torch.tensor([[2.0, -2 / 3, -2 / 3, -2 / 3]])
    )
    torch.testing.assert_close(pathwise_weights(Pathwise(Pathwise.Options()), batch), torch.tensor([[2.0, -4 / 3]]))
    options = {"advantage": 0.0, "success_weight": 1.0}
    torch.testing.assert_close(
        score_weights(Score(Score.Options(**options)), batch), torch.tensor([[2.0, 0.0, 0.0, 0.0]])
    )


def test_score_stops_at_the_clip_per_latent_and_logs_how_often() -> None:
    # two chains with advantages 1 and -1; ratios of their two latents
    ratio = torch.tensor([[[1.5, 1.1], [0.5, 1.5]]])
    log_prob = ratio.log().requires_grad_()
    batch = small_batch([[1.0, 0.0]], log_prob_BGT=log_prob)
    loss, logs = Score(Score.Options(clip=0.2))(batch)
    (slope,) = torch.autograd.grad(loss, log_prob)
    # a gain is capped for good chains above 1.2 and for bad ones below 0.8; the rest moves by ratio × advantage
    torch.testing.assert_close(-2 * slope, torch.tensor([[[0.0, 1.1], [0.0, -1.5]]]))
    assert logs["clip_fraction"] == pytest.approx(3 / 4)
    assert float(loss.detach()) == pytest.approx(-(1.2 + 1.1 - 0.8 - 1.5) / 2, abs=1e-6)


def test_greedy_pathwise_teaches_each_distinct_success_by_its_rarity() -> None:
    batch = small_batch(
        [[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]],
        repeat=[[False, True, False, False], [False] * 4, [False, True, True, True], [False, True, True, True]],
    )
    weights = pathwise_weights(PathwiseGreedy(PathwiseGreedy.Options()), batch)
    expected = torch.tensor(
        [
            [0.3 * 4 / 2, 0.0, 0.3 * 4 / 2, 0.0],  # success rate 3/4, two distinct correct texts
            [0.8 * 4, 0.0, 0.0, 0.0],  # 1/4, one text
            [0.0, 0.0, 0.0, 0.0],
            [0.05 * 4, 0.0, 0.0, 0.0],  # everything right: nearly nothing to teach
        ]
    )
    torch.testing.assert_close(weights, expected)
    halved = pathwise_weights(PathwiseGreedy(PathwiseGreedy.Options(success_weight=0.5)), batch)
    torch.testing.assert_close(halved, expected / 2)


def test_greedy_pathwise_shares_a_group_among_texts_that_do_not_divide_it() -> None:
    weights = pathwise_weights(PathwiseGreedy(PathwiseGreedy.Options()), small_batch([[1.0, 0.0, 1.0]]))
    torch.testing.assert_close(weights, (1.05 - 2 / 3) * torch.tensor([[1.5, 0.0, 1.5]]))


def test_greedy_pathwise_weighs_a_question_by_its_rate_however_likely_its_successes_were_to_be_decoded() -> None:
    """Four chains, two decoded: one that nearly always is, one that hardly ever is; either may be the right one."""
    unequal = torch.tensor([[0.9, 0.25, 0.5, 0.5]]).expand(2, -1)
    batch = replace(small_batch([[1.0, 0.0], [0.0, 1.0]], group=4), inclusion_BG=unequal)
    rate_B = torch.tensor([1 / 0.9, 1 / 0.25]) / 4  # nothing being predicted
    torch.testing.assert_close(batch.success_rate_B, rate_B)
    weights = pathwise_weights(PathwiseGreedy(PathwiseGreedy.Options()), batch)
    torch.testing.assert_close(weights, (4 * (1.05 - rate_B))[:, None] * torch.eye(2))
    both = replace(small_batch([[1.0, 1.0]], group=4), inclusion_BG=unequal[:1])
    # together they stand for more than all four chains: the rate is 1, and each text has half of what is left
    torch.testing.assert_close(
        pathwise_weights(PathwiseGreedy(PathwiseGreedy.Options()), both), torch.full((1, 2), 4 * 0.05 / 2)
    )


def test_greedy_pathwise_weighs_a_question_alike_whether_all_or_some_of_its_chains_were_decoded() -> None:
    some = pathwise_weights(PathwiseGreedy(PathwiseGreedy.Options()), small_batch([[1.0, 0.0]], group=4, inclusion=0.5))
    every = pathwise_weights(PathwiseGreedy(PathwiseGreedy.Options()), small_batch([[1.0, 0.0, 0.0, 1.0]]))
    torch.testing.assert_close(some.sum(), every.sum())


def test_greedy_pathwise_without_rarity_weighs_every_success_alike() -> None:
    batch = small_batch([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]], repeat=[[False, True, False], [False] * 3])
    weights = pathwise_weights(PathwiseGreedy(PathwiseGreedy.Options(rarity=False)), batch)
    assert torch.equal(weights, batch.correct_BK)


def test_greedy_pathwise_never_pushes_a_wrong_chain_away() -> None:
    batch = small_batch([[1.0, 0.1, 0.0]])
    weights = pathwise_weights(PathwiseGreedy(PathwiseGreedy.Options()), batch)
    assert (weights[0, 1:] == 0).all()


def test_likelihood_is_the_mean_negative_log_likelihood() -> None:
    batch = small_batch([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    loss, logs = Likelihood()(batch)
    assert float(loss) == pytest.approx(3.5)  # of log-probabilities -1 … -6
    assert logs == {"gold_nll": pytest.approx(3.5)}


@pytest.mark.parametrize("inclusion", [0.5, 0.4])
def test_likelihood_of_a_part_of_the_chains_estimates_the_mean_over_all(inclusion: float) -> None:
    batch = small_batch([[0.0, 0.0], [0.0, 0.0]], group=4, chosen=[[0, 2], [1, 3]], inclusion=inclusion)
    loss, logs = Likelihood()(batch)
    expected = (1 + 2 + 3 + 4) / inclusion / 8  # of log-probabilities -1 … -4
    assert float(loss) == pytest.approx(expected)
    assert logs == {"gold_nll": pytest.approx(expected)}


@pytest.mark.parametrize(
    ("estimator", "sampling"),
    [(UNBIASED["score"], False), (UNBIASED["pathwise"], True), (UNBIASED["hybrid"], True),
     (PathwiseGreedy(PathwiseGreedy.Options()), False), (Likelihood(), False)],
)  # fmt: skip
def test_an_estimator_says_what_it_reads_and_what_it_has_differentiated(estimator: Any, sampling: bool) -> None:
    asked = []

    def asks(what: str) -> Any:
        return lambda latents, weights: asked.append(what) or latents.sum() * 0.0 + weights.sum()

    moved = torch.tensor([[[0.1, 0.1], [0.0, 0.0], [0.0, 0.0]]])
    batch = replace(
        small_batch([[1.0, 0.0, 0.0]], log_prob_BGT=moved),
        weighted_completion_log_prob=asks("said"), weighted_gold_log_prob=asks("gold"),
    )  # fmt: skip
    right, wrong = torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1, 3)
    won, lost = (float(estimator(replace(batch, rewards_BK=of, correct_BK=of))[0]) for of in (right, wrong))
    assert estimator.needs_gold == ("gold" in asked)
    assert estimator.needs_completions == ("said" in asked or won != lost)
    assert estimator.needs_gradient == bool(asked)
    assert estimator.needs_sampling == sampling  # unbiased for text drawn as likely as the weights have it


class CountingEnv:
    """Of an environment only what the collector asks for when it weighs completions."""

    def __init__(self) -> None:
        done = SimpleNamespace(
            ids_NL=torch.arange(12).view(4, 3), mask_NL=torch.tensor([[1.0, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0]])
        )
        self.finished = SimpleNamespace(completions=done)
        decoder = SimpleNamespace(device=torch.device("cpu"), usage=Usage(), flops_per_token=TokenFlops(1, 1))
        self.engine = SimpleNamespace(space=None, decoder=decoder)
        self.asked: list[tuple[list[int], tuple[int, ...]]] = []

    def log_prob(self, actions_NTD: Tensor, ids_NL: Tensor, rows: Tensor) -> Tensor:
        self.asked.append((rows.tolist(), tuple(ids_NL.shape)))
        return actions_NTD.flatten(1).sum(1)


def test_rows_of_weight_zero_cost_nothing() -> None:
    env: Any = CountingEnv()
    collector = Collector(env, None, None, samples=2, decodes=2, generator=torch.Generator())  # type: ignore[arg-type]
    latents = torch.ones(4, 2, 1, requires_grad=True)
    total = collector._weighted_completion(latents, torch.tensor([[0.0, 2.0], [0.0, -1.0]]))
    assert env.asked == [([1, 3], (2, 2))]  # nor are the columns read that only longer rows have
    assert float(total.detach()) == 2.0
    nothing = collector._weighted_completion(latents, torch.zeros(2, 2))
    assert len(env.asked) == 1
    (slope,) = torch.autograd.grad(nothing, latents)
    assert float(nothing.detach()) == 0.0
    assert not slope.any()


def test_of_several_completions_each_distinct_success_is_taught_and_no_wrong_one() -> None:
    """Two chains, two completions each: two right with one text, one right with another, one wrong."""
    correct_BKM = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    repeat_BKM = torch.tensor([[[False, False], [True, False]]])
    batch = replace(
        small_batch([[0.5, 1.0]], correct=[[0.5, 1.0]]), decodes=Decodes(correct_BKM, correct_BKM, repeat_BKM)
    )
    recorder: Any = batch.weighted_completion_log_prob
    recorder.log_prob_N = -torch.arange(1.0, 5.0)
    weights = pathwise_weights(PathwiseGreedy(PathwiseGreedy.Options()), batch)
    share = 1.05 - 3 / 4
    torch.testing.assert_close(weights, torch.tensor([[share, 0.0, 0.0, share]]))  # together K · share
    alike = pathwise_weights(PathwiseGreedy(PathwiseGreedy.Options(rarity=False)), batch)
    torch.testing.assert_close(alike, correct_BKM.flatten(1) / 2)
    # advantages: each completion's own reward less the other chain's mean
    plain = pathwise_weights(Pathwise(Pathwise.Options()), batch)
    torch.testing.assert_close(plain, torch.tensor([[0.0, -1.0, 0.5, 0.5]]) / 2)
