"""Latents as superpositions of vocabulary entries at the latent positions.

Latent-SFT (Deng et al. 2025, arXiv 2510.15522) keeps latent tokens in the column space of the vocabulary: what is fed
at a latent position is a mixture of token embeddings, its weights a softmax over the vocabulary. Here a latent leaves
the anchor's token the further, the larger it is; the paper has no anchor, and trains the main model to write mixtures.
"""

import torch
from pydantic import Field
from torch import Tensor

from dlr_core.protocols import Decoder
from dlr_plugins.spaces.input import InputSpace


class VocabSpace(InputSpace):
    """e_t = (1−α)·E[anchor_t] + α·softmax(c·a_t C)E, α = min(1, radius·‖a_t‖_∞): mixtures of token embeddings.

    C = B Eᵀ with B the (D, H) chart, as a language model with tied embeddings makes logits of a hidden state a_t B; it
    is scaled so that a latent of unit variance has logits of standard deviation c. α has a kink at a = 0, so a latent
    that is exactly zero receives no gradient; no policy with noise stands there.
    """

    class Options(InputSpace.Options):
        """Settings of ``vocab``."""

        radius: float = Field(
            0.3, gt=0, description="Share of the mixture in what is fed, per unit of a latent's largest coordinate."
        )
        sharpness: float = Field(
            10.0, gt=0, description="c, standard deviation of the logits of a latent of unit variance."
        )

    def __init__(self, options: Options, decoder: Decoder) -> None:
        super().__init__(options, decoder)
        self.sharpness = options.sharpness / (self.spread * decoder.hidden_size**0.5)

    def _logits(self, actions_NtD: Tensor) -> Tensor:
        """c·a C over the vocabulary (…, t, V); the mean embedding would shift all of a row alike, so it stays in."""
        table = self.decoder[0].embedding_table()
        hidden = self.sharpness * (actions_NtD.float() @ self.chart_DH)
        logits: Tensor = (hidden.to(table.dtype) @ table.T).float()
        return logits

    def _embeds(self, actions_NtD: Tensor) -> Tensor:
        decoder, done = self.decoder[0], actions_NtD.shape[1]
        table = decoder.embedding_table()
        anchor_tH = table[torch.tensor(self.latent_ids[:done], device=table.device)]
        share = (self.options.radius * actions_NtD.abs().amax(-1, keepdim=True)).clamp(max=1.0).to(table.dtype)
        mixture = self._logits(actions_NtD).softmax(-1).to(table.dtype) @ table
        # Both products with the vocabulary cost what logits cost, and their backward passes again.
        decoder.usage.logits += 2 * mixture.shape[0] * done * (1 + mixture.requires_grad)
        return (1.0 - share) * anchor_tH + share * mixture

    @torch.no_grad()
    def nearest_tokens(self, actions_TD: Tensor, count: int = 3) -> list[list[str]]:
        """The heaviest tokens of each latent's mixture."""
        top = self._logits(actions_TD).topk(count, -1).indices
        return [[self.decoder[0].token(int(i)) for i in row] for row in top]
