"""A contrastive objective: a scalar loss over a step's chains."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn


class Margin(nn.Module):
    """The mean right chain of a question should differ from its mean wrong one by a margin."""

    class Options(BaseModel):
        """Settings."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        weight: float = Field(0.02, ge=0, description="Weight in the loss.")
        margin: float = Field(0.5, gt=0, description="Wanted root-mean-square difference.")

    def __init__(self, options, **shape):
        super().__init__()
        self.options = options

    def forward(self, batch):
        """``batch`` is a dlr_core.batch.StepBatch; rows of its chains are grouped by question."""
        decoded = batch.chains.pre_NTD[batch.chosen_rows_N].flatten(1)
        decoded = decoded.unflatten(0, batch.correct_BK.shape)
        right, wrong = batch.correct_BK[..., None], 1.0 - batch.correct_BK[..., None]
        both = (right.sum(1) > 0) & (wrong.sum(1) > 0)
        mean_right = (decoded * right).sum(1) / right.sum(1).clamp(min=1)
        gap = mean_right - (decoded * wrong).sum(1) / wrong.sum(1).clamp(min=1)
        short = (self.options.margin - (gap.square().mean(1) + 1e-8).sqrt()).clamp(min=0)
        loss = torch.where(both[:, 0], short, 0.0).mean()
        return self.options.weight * loss, {"acme_margin": float(loss.detach())}
