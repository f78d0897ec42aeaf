"""Contrastive objectives against slow loops and by hand."""

import math
from typing import Any

import pytest
import torch
from dlr_plugins.contrastive.bidirectional import Bidirectional, info_nce
from dlr_plugins.contrastive.none import NoContrast
from torch import Tensor
from torch.nn.functional import cosine_similarity

from dlr_core.batch import StepBatch
from dlr_core.density import TanhGaussian
from dlr_core.protocols import ChainBatch


def slow_info_nce(scores: list[list[float]], owner: list[int], correct: list[float], texts: list[str]) -> float:
    """The definition, one chain at a time."""
    distinct = list(dict.fromkeys(texts))
    per_question = []
    for b in range(len(texts)):
        terms = []
        for p, owned in enumerate(owner):
            if owned != b or not correct[p]:
                continue
            own = math.exp(scores[b][p])
            chains = sum(math.exp(scores[b][n]) for n in range(len(owner)) if texts[owner[n]] != texts[b])
            questions = sum(math.exp(scores[texts.index(text)][p]) for text in distinct if text != texts[b])
            terms.append(-math.log(own / (own + chains)) - math.log(own / (own + questions)))
        if terms:
            per_question.append(sum(terms) / len(terms))
    return sum(per_question) / len(per_question) if per_question and len(distinct) > 1 else 0.0


@pytest.mark.parametrize("texts", [["a", "b", "c", "d"], ["a", "b", "a", "c"], ["a", "a", "b", "b"], ["a"] * 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_info_nce_is_what_slow_loops_compute(texts: list[str], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(4, 12, generator=generator, dtype=torch.float64) * 2
    owner = torch.arange(4).repeat_interleave(3)
    correct = (torch.rand(12, generator=generator) < 0.4).double()
    expected = slow_info_nce(scores.tolist(), owner.tolist(), correct.tolist(), texts)
    assert float(info_nce(scores, owner, correct, texts)) == pytest.approx(expected, abs=1e-12)


def test_info_nce_of_two_questions_by_hand() -> None:
    scores = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    first = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))
    second = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-3))
    both = info_nce(scores, torch.tensor([0, 1]), torch.tensor([1.0, 1.0]), ["a", "b"])
    assert float(both) == pytest.approx((first + second) / 2)
    # a question without a correct chain is skipped, but its chain still is a negative
    one = info_nce(scores, torch.tensor([0, 1]), torch.tensor([1.0, 0.0]), ["a", "b"])
    assert float(one) == pytest.approx(first)


@pytest.mark.parametrize(("correct", "texts"), [([0.0, 0.0], ["a", "b"]), ([1.0, 1.0], ["a", "a"])])
def test_nothing_correct_or_nothing_to_tell_apart_is_zero_with_zero_gradient(
    correct: list[float], texts: list[str]
) -> None:
    scores = torch.randn(2, 2, requires_grad=True)
    loss = info_nce(scores, torch.tensor([0, 1]), torch.tensor(correct), texts)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not scores.grad.any()


def test_info_nce_pulls_a_chain_to_its_question_and_away_from_others() -> None:
    scores = torch.zeros(2, 2, requires_grad=True)
    info_nce(scores, torch.tensor([0, 1]), torch.tensor([1.0, 1.0]), ["a", "b"]).backward()
    assert (scores.grad.diagonal() < 0).all()
    assert scores.grad[0, 1] > 0
    assert scores.grad[1, 0] > 0
    assert torch.isfinite(scores.grad).all()


def step_batch(correct: list[list[float]], questions: list[str], chosen: list[list[int]], group: int) -> Any:
    """A batch (T=2, D=3, H=4) and the leaf tensor of its log-probabilities."""
    torch.manual_seed(0)
    rows = len(questions)
    pre = torch.randn(rows * group, 2, 3).requires_grad_()
    log_prob = (torch.randn(rows, group, 2) * 4).requires_grad_()
    correct_BK = torch.tensor(correct)

    def unused(latents_NTD: Tensor, weights_BK: Tensor) -> Tensor:
        raise AssertionError("a contrastive objective needs no main model")

    batch = StepBatch(
        chains=ChainBatch(pre.detach(), TanhGaussian(pre, torch.zeros_like(pre)), pre),
        states_BSH=torch.randn(rows, 5, 4),
        mask_BS=torch.ones(rows, 5, dtype=torch.int64),
        questions=questions,
        chosen_BK=torch.tensor(chosen),
        inclusion_BG=torch.full((rows, group), 0.5),
        predictions_BG=torch.zeros(rows, group),
        rewards_BK=correct_BK,
        correct_BK=correct_BK,
        repeat_BK=torch.zeros_like(correct_BK, dtype=torch.bool),
        policy_log_prob_BGT=lambda: log_prob,
        old_log_prob_BGT=log_prob.detach(),
        weighted_completion_log_prob=unused,
        weighted_gold_log_prob=unused,
    )
    return batch, log_prob, pre


def build(**options: float) -> Bidirectional:
    torch.manual_seed(1)
    return Bidirectional(Bidirectional.Options(**options), hidden_size=4, num_latents=2, latent_dim=3)


CORRECT = [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
CHOSEN = [[0, 1, 3], [1, 2, 3]]


def test_ranking_is_the_mean_over_correct_and_wrong_pairs_of_a_group() -> None:
    batch, log_prob, _ = step_batch(CORRECT, ["a", "b"], CHOSEN, group=4)
    total = log_prob.detach().sum(-1)
    gaps = [float(total[0, good] - total[0, 1]) * 2.0 / 6 for good in (0, 3)]
    expected = sum(math.log(1 + math.exp(-gap)) for gap in gaps) / 2
    assert float(build(beta=2.0).ranking(batch, 6).detach()) == pytest.approx(expected, rel=1e-5)


def test_ranking_raises_correct_chains_and_lowers_wrong_ones_and_leaves_the_rest() -> None:
    batch, log_prob, _ = step_batch(CORRECT, ["a", "b"], CHOSEN, group=4)
    (slope,) = torch.autograd.grad(build().ranking(batch, 6), log_prob)
    assert (slope[0, [0, 3]] < 0).all()
    assert (slope[0, 1] > 0).all()
    assert not slope[0, 2].any()  # never decoded
    assert not slope[1].any()  # a group without a pair
    assert float(slope.sum()) == pytest.approx(0.0, abs=1e-6)


def test_a_single_pair_is_ranked_by_its_own_gap() -> None:
    batch, log_prob, _ = step_batch([[1.0, 0.0]], ["a"], [[2, 1]], group=3)
    gap = float((log_prob[0, 2] - log_prob[0, 1]).sum().detach()) / 6
    assert float(build().ranking(batch, 6).detach()) == pytest.approx(math.log(1 + math.exp(-gap)), rel=1e-5)


def test_ranking_without_pairs_is_zero() -> None:
    batch, _, _ = step_batch([[1.0, 1.0], [0.0, 0.0]], ["a", "b"], [[0, 1], [0, 1]], group=2)
    assert float(build().ranking(batch, 6).detach()) == 0.0


def test_the_objective_is_the_weighted_sum_of_its_logged_terms() -> None:
    batch, _, pre = step_batch(CORRECT, ["a", "b"], CHOSEN, group=4)
    objective = build(weight=0.5, rank_weight=3.0, temperature=0.7, beta=2.0)
    loss, logs = objective(batch)
    question = objective.read_question(batch.states_BSH[:, -1])
    chain = objective.read_chain(pre[[0, 1, 3, 5, 6, 7]].flatten(1))
    scores = torch.stack([cosine_similarity(q[None], chain) for q in question]) / 0.7
    match = slow_info_nce(scores.tolist(), [0, 0, 0, 1, 1, 1], [1.0, 0.0, 1.0, 0.0, 0.0, 0.0], ["a", "b"])
    assert logs["match"] == pytest.approx(match, rel=1e-5)
    assert logs["rank"] == pytest.approx(float(objective.ranking(batch, 6).detach()))
    assert float(loss.detach()) == pytest.approx(0.5 * (logs["match"] + 3.0 * logs["rank"]), rel=1e-5)


def test_the_objective_reaches_the_decoded_latents_and_its_own_weights_only() -> None:
    batch, log_prob, pre = step_batch(CORRECT, ["a", "b"], CHOSEN, group=4)
    objective = build()
    objective(batch)[0].backward()
    assert pre.grad[[0, 1, 3]].abs().sum() > 0
    assert not pre.grad[[2, 4]].any()
    assert log_prob.grad.abs().sum() > 0
    assert all(weight.grad.abs().sum() > 0 for weight in objective.parameters())


def test_training_the_objective_separates_questions_of_a_toy() -> None:
    batch, _, _ = step_batch([[1.0, 1.0], [1.0, 1.0]], ["a", "b"], [[0, 1], [0, 1]], group=2)
    objective = build()
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.02)
    first = objective(batch)[1]["match"]
    for _ in range(60):
        optimizer.zero_grad()
        objective(batch)[0].backward()
        optimizer.step()
    assert objective(batch)[1]["match"] < 0.1 * first


def test_no_contrast_is_zero_and_has_no_weights() -> None:
    batch, _, _ = step_batch(CORRECT, ["a", "b"], CHOSEN, group=4)
    objective = NoContrast(hidden_size=4, num_latents=2, latent_dim=3)
    loss, logs = objective(batch)
    assert float(loss) == 0.0
    assert logs == {}
    assert list(objective.parameters()) == []
