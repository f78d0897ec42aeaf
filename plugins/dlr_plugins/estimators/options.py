"""Options that more than one estimator shares. Each of them costs unbiasedness, and is named for it."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dlr_core.batch import StepBatch


class EstimatorOptions(BaseModel):
    """Settings of a reward-driven estimator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    advantage: float = Field(1.0, ge=0, description="Weight of the advantage term.")
    normalise: bool = Field(False, description="Divide advantages by their group's standard deviation (biased).")
    success_weight: float = Field(
        0.0, ge=0, description="Extra weight of every correct chain, without a baseline (biased)."
    )


def advantages(batch: StepBatch, options: EstimatorOptions) -> Tensor:
    """Advantages (B, G), std-normalised where asked."""
    advantages_BG = options.advantage * batch.advantages_BG()
    if options.normalise and batch.group_size > 1:
        advantages_BG = advantages_BG / (batch.values_BG().std(1, keepdim=True) + 1e-4)
    return advantages_BG


def success(batch: StepBatch, options: EstimatorOptions) -> Tensor:
    """Success weights of the decoded chains (B, K), before the 1/π correction."""
    return options.success_weight * batch.correct_BK


def per_chain(total: Tensor, batch: StepBatch) -> Tensor:
    """Mean over the B·G chains of a sum over chains."""
    return total / float(torch.numel(batch.inclusion_BG))
