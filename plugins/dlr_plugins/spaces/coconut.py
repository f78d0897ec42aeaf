"""Latents that hand the model's last hidden state back to it as the next input, and correct it.

Coconut (Hao et al. 2024, arXiv 2412.06769): between question and answer the last hidden state is the next input
embedding, so that thoughts need not pass through words. There the model is trained to read its own states, stage by
stage, on written reasoning. Here it is frozen and has never seen one: states are brought to the size of token
embeddings, and the assistant decides, thought by thought, how much of the state is handed back in the anchor's place,
and adds a correction. Nothing is trained on written reasoning.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from dlr_core.protocols import Decoder
from dlr_plugins.spaces.anchor import SpaceOptions
from dlr_plugins.spaces.handback import HandBack


class CoconutSpace(HandBack):
    """e_t = E[anchor_t] + radius · (a_t0 · (κ·h − E[anchor_t]) + s · a_t1…B), h the last state before position t.

    A latent (1, 0, …, 0) at radius 1 is a Coconut thought, (1, …) one with a correction; zero is the anchor. κ is the
    ratio of sizes (root mean square) of token embeddings and of training questions' last states, s the spread of token
    embeddings, B a (D − 1, H) chart.
    """

    reserved = 1
    scale: Tensor

    class Options(SpaceOptions):
        """Settings of ``coconut``."""

        latent_dim: int = Field(
            64, ge=2, le=4096, description="D: one coordinate for the share of the state, the others to correct it."
        )
        radius: float = Field(
            1.0,
            gt=0,
            description="Scale of all that is put in the anchor's place: at 1 a latent can hand the whole state back.",
        )

    def __init__(self, options: Options, decoder: Decoder) -> None:
        super().__init__(options, decoder)
        table = decoder.embedding_table().float()
        self.size = float(table.square().mean().sqrt())
        self.spread = float(table.std(0).square().mean().sqrt())
        self.register_buffer("scale", torch.ones((), device=decoder.device))

    @torch.no_grad()
    def calibrate(self, questions: Sequence[str]) -> None:
        """Measure κ on the states from which training questions' first thoughts begin."""
        cache = self.decoder[0].prefill(questions, self.anchor_ids, self.pending_ids, self.num_latents)
        states_BSH, _ = cache.question_states()
        self.scale.copy_(self.size / states_BSH[:, -1].float().square().mean().sqrt())

    def fed(self, state_NH: Tensor, token_H: Tensor, action_ND: Tensor) -> Tensor:
        """The anchor's token, moved towards the state that is handed back, and corrected."""
        handed_NH = action_ND[:, :1] * (self.scale * state_NH.float() - token_H.float())
        correction_NH = self.spread * (action_ND[:, 1:] @ self.chart_DH)
        return token_H.float() + self.options.radius * (handed_NH + correction_NH)
