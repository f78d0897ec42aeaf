"""What every assistant's policy has in common: the scale at which it starts to explore."""

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dlr_core.density import TanhGaussian


class PolicyOptions(BaseModel):
    """Settings of the policy's spread."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    initial_scale: float = Field(0.45, gt=0, lt=2, description="σ₀: standard deviation of u = atanh(a) at the start.")
    initial_mean: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Size of the means at the start: 0 begins at the anchor, but reads no question yet.",
    )
    smallest_scale: float = Field(0.4, gt=0, lt=2, description="σ never falls below this, so exploration goes on.")


class Spread(nn.Module):
    """A learned log σ per latent coordinate, the same for every question."""

    def __init__(self, options: PolicyOptions, num_latents: int, latent_dim: int) -> None:
        super().__init__()
        self.floor = math.log(min(options.smallest_scale, options.initial_scale))
        self.log_std_TD = nn.Parameter(torch.full((num_latents, latent_dim), math.log(options.initial_scale)))

    def policy(self, mean_NTD: Tensor) -> TanhGaussian:
        """The density around given means."""
        bounded_TD = self.log_std_TD.clamp(min=self.floor, max=0.7)
        log_std_TD = self.log_std_TD + (bounded_TD - self.log_std_TD).detach()  # a clamp alone would hold it for ever
        return TanhGaussian(mean_NTD, log_std_TD.expand_as(mean_NTD))
