"""No contrastive objective."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dlr_core.batch import StepBatch


class NoContrast(nn.Module):
    """Adds nothing: the control for every contrastive objective."""

    def __init__(self, **shape: int) -> None:
        super().__init__()

    def forward(self, batch: StepBatch) -> tuple[Tensor, Mapping[str, float]]:
        """Zero."""
        return torch.zeros((), device=batch.rewards_BK.device), {}
