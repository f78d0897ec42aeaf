"""A scorer trained online to predict a chain's reward from the question and the latents alone."""

from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import mse_loss


class LearnedScorer(nn.Module):
    """Predicts reward before decoding; learns from decoded outcomes only."""

    decodes_all = False

    class Options(BaseModel):
        """Settings of ``learned``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        width: int = Field(128, gt=0, description="Hidden width.")
        lr: float = Field(1e-3, gt=0, description="Adam's learning rate.")
        passes: int = Field(2, gt=0, description="Gradient steps on each batch of outcomes.")

    def __init__(self, options: Options, hidden_size: int, num_latents: int, latent_dim: int) -> None:
        super().__init__()
        self.options = options
        self.read_question = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, options.width))
        self.read_chain = nn.Linear(num_latents * latent_dim, options.width)
        self.head = nn.Sequential(nn.GELU(), nn.Linear(options.width, options.width), nn.GELU())
        self.out = nn.Linear(options.width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=options.lr)

    def forward(self, states_BSH: Tensor, mask_BS: Tensor, latents_BGTD: Tensor) -> Tensor:
        """Predicted reward (B, G) from the question's last state, its mean state and the chain."""
        weight_BS = mask_BS.to(states_BSH.dtype)
        mean_BH = (states_BSH * weight_BS[..., None]).sum(1) / weight_BS.sum(1, keepdim=True)
        question_BW = self.read_question(states_BSH[:, -1]) + self.read_question(mean_BH)
        hidden = self.head(question_BW[:, None] + self.read_chain(latents_BGTD.flatten(2)))
        return self.out(hidden)[..., 0]  # type: ignore[no-any-return]

    @torch.no_grad()
    def predict(self, states_BSH: Tensor, mask_BS: Tensor, latents_BGTD: Tensor) -> Tensor:
        """q (B, G), fixed before the group is decoded."""
        return self(states_BSH, mask_BS, latents_BGTD)  # type: ignore[no-any-return]

    def update(
        self, states_BSH: Tensor, mask_BS: Tensor, latents_BKTD: Tensor, rewards_BK: Tensor
    ) -> Mapping[str, float]:
        """Least squares on the decoded chains; logs the error before learning from them."""
        error = 0.0
        for number in range(self.options.passes):
            loss = mse_loss(self(states_BSH, mask_BS, latents_BKTD), rewards_BK)
            error = float(loss.detach()) if number == 0 else error
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return {"scorer_mse": error}
