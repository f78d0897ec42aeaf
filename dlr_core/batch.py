"""One training step's chains and outcomes, as estimators and contrastive objectives see them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlr_core.advantages import corrected_values, leave_one_out
from dlr_core.protocols import ChainBatch

WeightedLogProb = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class StepBatch:
    """B questions, G chains each, K of them decoded. Rows of ``chains`` are grouped: row b·G + g."""

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
    correct_BK: Tensor
    """1.0 where the answer was right *and* kept the format, else 0.0."""
    repeat_BK: Tensor
    """bool: an earlier chain of the same question was decoded to the same text."""
    policy_log_prob_BGT: Callable[[], Tensor]
    """log π(a|x) of every latent, differentiable in the assistant, the latents held fixed."""
    old_log_prob_BGT: Tensor
    """The same when the chains were sampled, detached."""
    weighted_completion_log_prob: WeightedLogProb
    """(latents_NTD, weights_BK) → Σ w·log p_M(completion | x, a): rows of weight 0 cost nothing."""
    weighted_gold_log_prob: WeightedLogProb
    """(latents_NTD, weights_BK) → Σ w·log p_M(gold answer | x, a). Never called unless gold answers may be seen."""

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
    def chosen_inclusion_BK(self) -> Tensor:
        """π of the decoded chains."""
        return self.inclusion_BG.gather(1, self.chosen_BK)

    def values_BG(self) -> Tensor:
        """Corrected values of all chains (:func:`dlr_core.advantages.corrected_values`)."""
        return corrected_values(self.rewards_BK, self.chosen_BK, self.predictions_BG, self.inclusion_BG)

    def advantages_BG(self) -> Tensor:
        """Values minus their leave-one-out baselines."""
        values = self.values_BG()
        return values - leave_one_out(values)
