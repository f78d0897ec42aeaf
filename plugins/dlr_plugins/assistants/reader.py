"""What is particular about a question: its hidden states less what every question has there.

Chat templates and fixed wordings make most of a prompt's states the same for all questions, and far larger than what
tells two questions apart. An assistant that reads raw states learns one static chain; subtracting the mean state of
each position, counted from the end of the question, leaves what is the question's own.
"""

import torch
from torch import Tensor, nn

POSITIONS = 64
SILENT = 1e-2
"""Mean square below which a standardised state is the template's and not the question's."""


def from_end(mask_BS: Tensor, limit: int) -> Tensor:
    """How many real positions follow each one (B, S), capped at ``limit`` − 1."""
    return (mask_BS.flip(1).cumsum(1).flip(1) - 1).clamp(0, limit - 1)


class StateReader(nn.Module):
    """Standardises states by position; the statistics come from :meth:`calibrate` and are saved with the assistant."""

    mean_PH: Tensor
    scale_H: Tensor

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("mean_PH", torch.zeros(POSITIONS, hidden_size))
        self.register_buffer("scale_H", torch.ones(hidden_size))

    @torch.no_grad()
    def calibrate(self, states_BSH: Tensor, mask_BS: Tensor) -> None:
        """Set the mean state of every position and the spread around it, from some training questions' states."""
        places_M, states_MH = from_end(mask_BS, POSITIONS)[mask_BS.bool()], states_BSH[mask_BS.bool()]
        count_P1 = torch.zeros(POSITIONS, 1, device=states_MH.device).index_add_(
            0, places_M, torch.ones(len(places_M), 1, device=states_MH.device)
        )
        total_PH = torch.zeros_like(self.mean_PH).index_add_(0, places_M, states_MH)
        seen_P1 = count_P1.clamp(min=1.0)
        self.mean_PH.copy_(torch.where(count_P1 > 0, total_PH / seen_P1, states_MH.mean(0)))
        left_MH = states_MH - self.mean_PH[places_M]
        # Positions where all questions agree say nothing about the spread.
        varied = left_MH.abs().amax(1) > 1e-3 * states_MH.abs().amax()
        self.scale_H.copy_(left_MH[varied].square().mean(0).sqrt() + 1e-3 if bool(varied.any()) else self.scale_H)

    def forward(self, states_BSH: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised states (B, S, H) and a mask (B, S) of the positions that say something about the question.

        The last position always counts, so that no row is empty.
        """
        standard = (states_BSH - self.mean_PH[from_end(mask_BS, POSITIONS)]) / self.scale_H
        telling_BS = mask_BS * (standard.square().mean(-1) > SILENT)
        telling_BS[:, -1] = 1
        return standard * mask_BS[..., None], telling_BS
