"""Latents as gates between a token and the hidden state before it, which a thought mixes.

HRPO (Yue et al. 2025, arXiv 2505.18454) feeds, while a model thinks, a·ê + √(1 − a²)·(i·h), coordinate by coordinate: ê
embeds the token just sampled, h is the state before it, brought among the embeddings by the model's own next-token
probabilities p as pE/‖p‖, and the gate a begins near 1. There gates are functions of the token, trained with the model,
and chance comes from sampling tokens. Here the model is frozen and zero latents must leave the anchor as it is: the
token is the anchor's, and the gates are the latents, written by the assistant, from which chance comes as well.
"""

import torch
from pydantic import Field
from torch import Tensor

from dlr_core.protocols import Decoder
from dlr_plugins.spaces.anchor import SpaceOptions
from dlr_plugins.spaces.handback import HandBack


def gates(openness: Tensor) -> tuple[Tensor, Tensor]:
    """What is kept of the token, a = exp(−x²/2), and let in of the state, i·√(1 − a²) with i the sign of x.

    Smooth everywhere: near x = 0 they are 1 and x.
    """
    square = openness.square().clamp(min=1e-8)  # 0/0 below
    return torch.exp(-0.5 * openness.square()), openness * (-torch.expm1(-square) / square).sqrt()


class HRPOSpace(HandBack):
    """e_t = a ⊙ E[anchor_t] + i·√(1 − a²) ⊙ pE/‖p‖, a = exp(−x²/2), x = radius · a_t W, p the model's next-token odds.

    W is a (D, H) chart, so that the gates are learned where it is joint. A latent of unit variance opens a coordinate
    by ``radius`` or so: small ones keep the token, as the paper's gates do at first.
    """

    class Options(SpaceOptions):
        """Settings of ``hrpo``."""

        radius: float = Field(1.0, gt=0, description="How far a latent of unit variance opens the gates to the state.")
        temperature: float = Field(
            0.5, gt=0, description="Of the next-token probabilities that bring a state among the embeddings."
        )

    def __init__(self, options: Options, decoder: Decoder) -> None:
        super().__init__(options, decoder)
        self.temperature = options.temperature

    def fed(self, state_NH: Tensor, token_H: Tensor, action_ND: Tensor) -> Tensor:
        """The anchor's token and what the model would have said next, mixed by the gates."""
        decoder = self.decoder[0]
        odds_NV: Tensor = (decoder.logits(state_NH[:, None])[:, 0] / self.temperature).softmax(-1)
        handed_NH = (odds_NV.to(token_H.dtype) @ decoder.embedding_table()).float() / odds_NV.norm(dim=-1, keepdim=True)
        # The product with the table costs what logits cost, and its backward pass again.
        decoder.usage.logits += len(state_NH) * (1 + handed_NH.requires_grad)
        kept_NH, let_in_NH = gates(self.options.radius * (action_ND @ self.chart_DH))
        mixed_NH: Tensor = kept_NH * token_H.float() + let_in_NH * handed_NH
        return mixed_NH
