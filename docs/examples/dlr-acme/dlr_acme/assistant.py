"""An assistant: a policy over latent chains."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from dlr_core.density import TanhGaussian
from dlr_core.protocols import ChainBatch


class Linear(nn.Module):
    """A linear map from the question's last hidden state to all latents, with one standard deviation for each."""

    class Options(BaseModel):
        """Settings."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        initial_scale: float = Field(0.45, gt=0, description="Standard deviation before tanh at the start.")

    def __init__(self, options, hidden_size, num_latents, latent_dim):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.read = nn.Linear(hidden_size, num_latents * latent_dim)
        nn.init.normal_(self.read.weight, std=0.1 / hidden_size**0.5)
        nn.init.zeros_(self.read.bias)
        start = torch.full((num_latents, latent_dim), options.initial_scale)
        self.log_std_TD = nn.Parameter(start.log())

    def policy(self, states_BSH, rows):
        """The Gaussian before tanh, each question's repeated for its chains."""
        mean_BTD = self.read(self.norm(states_BSH[:, -1])).unflatten(1, self.log_std_TD.shape)
        mean_NTD = mean_BTD.repeat_interleave(rows // len(states_BSH), 0)
        return TanhGaussian(mean_NTD, self.log_std_TD.expand_as(mean_NTD))

    def sample(self, states_BSH, mask_BS, noise_NTD):
        """Reparameterised: gradients flow through mean and scale."""
        policy = self.policy(states_BSH, len(noise_NTD))
        return ChainBatch(noise_NTD, policy, policy.mean + policy.log_std.exp() * noise_NTD)

    def evaluate(self, states_BSH, mask_BS, pre_NTD):
        """Latents do not depend on earlier ones here, so this is the same policy."""
        return self.policy(states_BSH, len(pre_NTD))
