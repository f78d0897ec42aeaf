"""One learned Gaussian for all questions: reinforcement learning over a soft prompt."""

import torch
from torch import Tensor, nn

from dlr_core.density import TanhGaussian
from dlr_plugins.assistants.at_once import AtOnce
from dlr_plugins.assistants.options import PolicyOptions, Spread


class Prior(AtOnce):
    """A learned Gaussian that ignores the question."""

    class Options(PolicyOptions):
        """Settings of ``prior``."""

    def __init__(self, options: Options, hidden_size: int, num_latents: int, latent_dim: int) -> None:
        super().__init__()
        self.spread = Spread(options, num_latents, latent_dim)
        self.mean_TD = nn.Parameter(torch.zeros(num_latents, latent_dim))

    def evaluate(self, states_BSH: Tensor, mask_BS: Tensor, pre_NTD: Tensor) -> TanhGaussian:
        """The one Gaussian, for every row."""
        return self.spread.policy(self.mean_TD.expand_as(pre_NTD))
