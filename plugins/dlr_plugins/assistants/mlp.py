"""A feed-forward assistant: all latents at once from the question's last and mean state."""

import torch
from pydantic import Field
from torch import Tensor, nn

from dlr_core.density import TanhGaussian
from dlr_plugins.assistants.at_once import AtOnce
from dlr_plugins.assistants.options import PolicyOptions, Spread
from dlr_plugins.assistants.reader import StateReader


class MLP(AtOnce):
    """An MLP over the question's last and mean hidden state; latents are independent given the question."""

    class Options(PolicyOptions):
        """Settings of ``mlp``."""

        width: int = Field(256, gt=0, description="Hidden width.")

    def __init__(self, options: Options, hidden_size: int, num_latents: int, latent_dim: int) -> None:
        super().__init__()
        self.shape = (num_latents, latent_dim)
        self.spread = Spread(options, num_latents, latent_dim)
        self.reader = StateReader(hidden_size)
        self.net = nn.Sequential(
            nn.Linear(2 * hidden_size, options.width), nn.GELU(),
            nn.Linear(options.width, options.width), nn.GELU(),
        )  # fmt: skip
        self.head = nn.Linear(options.width, num_latents * latent_dim)
        nn.init.normal_(self.head.weight, std=options.initial_mean / options.width**0.5)
        nn.init.zeros_(self.head.bias)

    def calibrate(self, states_BSH: Tensor, mask_BS: Tensor) -> None:
        """Learn what all questions have in common, from training questions' states, before training begins."""
        self.reader.calibrate(states_BSH, mask_BS)

    def evaluate(self, states_BSH: Tensor, mask_BS: Tensor, pre_NTD: Tensor) -> TanhGaussian:
        """The policy at given latents; it does not depend on them."""
        states_BSH, weight_BS = self.reader(states_BSH, mask_BS)
        mean_BH = (states_BSH * weight_BS[..., None]).sum(1) / weight_BS.sum(1, keepdim=True)
        features = torch.cat([states_BSH[:, -1], mean_BH], -1)
        mean_BTD = self.head(self.net(features)).unflatten(-1, self.shape)
        return self.spread.policy(mean_BTD.repeat_interleave(len(pre_NTD) // len(states_BSH), 0))
