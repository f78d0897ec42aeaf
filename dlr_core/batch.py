"""One training step's chains and outcomes, as estimators and contrastive objectives see them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlr_core.advantages import corrected_values, leave_one_out, success_rate
from dlr_core.protocols import ChainBatch, Decoder, Space
from dlr_core.records import Completions, PromptCache

WeightedLogProb = Callable[[Tensor, Tensor], Tensor]
Verify = Callable[[Sequence[int], Completions], Tensor]


@dataclass(frozen=True)
class MainModel:
    """The frozen model and a step's questions, for an objective that asks more of it than the step decoded."""

    decoder: Decoder
    space: Space
    questions: list[str]
    """B texts, as they are asked."""
    cache: PromptCache
    """Prompts of the distinct ones, with the anchor and without latents."""
    rows_B: Tensor
    """Which prompt each question has."""
    max_new_tokens: int
    verify: Verify
    """(the question each row answers, completions) → 1.0 where right and in format, else 0.0; no answer is told."""
    generator: torch.Generator
    """The run's own, on the CPU: what is drawn from it comes out again when the run is resumed."""


@dataclass(frozen=True)
class Decodes:
    """Outcomes of single completions: chain k of question b has M of them."""

    rewards_BKM: Tensor
    correct_BKM: Tensor
    """1.0 where the answer was right *and* kept the format, else 0.0."""
    repeat_BKM: Tensor
    """bool: an earlier completion of the same question, of whichever chain, had the same text."""


@dataclass(frozen=True)
class StepBatch:
    """B questions, G chains each, K of them decoded, M times each. Rows of ``chains`` are grouped: row b·G + g."""

    chains: ChainBatch
    """All B·G chains, attached to the graph through their reparameterisation."""
    states_BSH: Tensor
    mask_BS: Tensor
    questions: list[str]
    """Normalised question texts, B of them."""
    chosen_BK: Tensor
    """Which chains of each group were decoded, ascending."""
    inclusion_BG: Tensor
    """π: probability that each chain was decoded."""
    predictions_BG: Tensor
    """q: the scorer's prediction of each reward, fixed before decoding."""
    rewards_BK: Tensor
    """Of a chain: the mean over its M completions."""
    correct_BK: Tensor
    """1.0 where the answer was right *and* kept the format, else 0.0; the share of its completions where M > 1."""
    repeat_BK: Tensor
    """bool: earlier completions of the same question had the texts of all of the chain's."""
    policy_log_prob_BGT: Callable[[], Tensor]
    """log π(a|x) of every latent, differentiable in the assistant, the latents held fixed."""
    old_log_prob_BGT: Tensor
    """The same when the chains were sampled, detached."""
    weighted_completion_log_prob: WeightedLogProb
    """(latents_NTD, weights) → Σ w·log p_M(completion | x, a): completions of weight 0 cost nothing.

    Weights (B, K, M) weigh each completion. Weights (B, K) weigh a chain's completions together: the product of their
    probabilities, the chain's reward being the mean.
    """
    weighted_gold_log_prob: WeightedLogProb
    """(latents_NTD, weights_BK) → Σ w·log p_M(gold answer | x, a). Never called unless gold answers may be seen."""
    main: MainModel | None = None
    """Always there in a run; None where a batch is made up without a model."""
    decodes: Decodes | None = None
    """Outcomes one by one where chains are decoded several times; see :attr:`each`."""

    @property
    def group_size(self) -> int:
        """G."""
        return int(self.inclusion_BG.shape[1])

    @property
    def chosen_rows_N(self) -> Tensor:
        """Row numbers (B·K,) of the decoded chains within ``chains``."""
        offsets = torch.arange(len(self.chosen_BK), device=self.chosen_BK.device)[:, None] * self.group_size
        return (self.chosen_BK + offsets).flatten()

    @property
    def each(self) -> Decodes:
        """Outcomes of single completions, of which a chain has but one unless the run says otherwise (M = 1)."""
        single = Decodes(self.rewards_BK[..., None], self.correct_BK[..., None], self.repeat_BK[..., None])
        return self.decodes or single

    @property
    def chosen_inclusion_BK(self) -> Tensor:
        """π of the decoded chains."""
        return self.inclusion_BG.gather(1, self.chosen_BK)

    @property
    def success_rate_B(self) -> Tensor:
        """Share of each question's chains that are right (:func:`dlr_core.advantages.success_rate`)."""
        return success_rate(self.correct_BK, self.chosen_BK, self.predictions_BG, self.inclusion_BG)

    def values_BG(self) -> Tensor:
        """Corrected values of all chains (:func:`dlr_core.advantages.corrected_values`)."""
        return corrected_values(self.rewards_BK, self.chosen_BK, self.predictions_BG, self.inclusion_BG)

    def advantages_BG(self) -> Tensor:
        """Values minus their leave-one-out baselines."""
        values = self.values_BG()
        return values - leave_one_out(values)
