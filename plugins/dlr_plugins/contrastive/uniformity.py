"""Spread the chains of a question over the sphere (Wang & Isola 2020, section 4.1.2)."""

from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from dlr_core.batch import StepBatch


def uniformity(unit_BGE: Tensor, sharpness: float) -> Tensor:
    """log mean e^{−t‖z_i − z_j‖²} over the pairs i < j of each group, mean over the groups.

    Args:
        unit_BGE: unit vectors, G of each group.
        sharpness: t.

    Returns:
        A scalar between −4t and 0 nats, lower where chains lie further apart; zero for groups of one.
    """
    group = unit_BGE.shape[1]
    if group < 2:
        return unit_BGE.sum() * 0.0
    first, second = torch.triu_indices(group, group, 1, device=unit_BGE.device)
    apart_BP = (unit_BGE[:, first] - unit_BGE[:, second]).square().sum(-1)
    log_mean_B = (-sharpness * apart_BP).logsumexp(1) - torch.log(torch.tensor(float(len(first))))
    return log_mean_B.mean()


class Uniformity(nn.Module):
    """Chains of one question repel each other: variety for its own sake, blind to what is right.

    It acts on the latents themselves: behind a learned projection the projection alone would spread.
    """

    class Options(BaseModel):
        """Settings of ``uniformity``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        weight: float = Field(0.02, ge=0, description="Weight in the loss.")
        sharpness: float = Field(2.0, gt=0, description="t, how far repulsion reaches.")

    def __init__(self, options: Options, **shape: int) -> None:
        super().__init__()
        self.options = options

    def forward(self, batch: StepBatch) -> tuple[Tensor, Mapping[str, float]]:
        """The weighted objective; logged in nats."""
        rows = len(batch.questions)
        unit_BGE = normalize(batch.chains.actions_NTD.flatten(1), dim=-1).unflatten(0, (rows, -1))
        loss = uniformity(unit_BGE, self.options.sharpness)
        return self.options.weight * loss, {"uniformity": float(loss.detach())}
