"""No scorer: with nothing predicted, every chain is as promising as any other."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class NoScorer:
    """Decodes every chain (K = G is required)."""

    decodes_all = True

    def __init__(self, **shape: int) -> None:
        pass

    def predict(self, states_BSH: Tensor, mask_BS: Tensor, latents_BGTD: Tensor) -> Tensor:
        """Zeros (B, G)."""
        return torch.zeros(latents_BGTD.shape[:2], device=latents_BGTD.device)

    def update(self, states_BSH: Tensor, mask_BS: Tensor, latents_BKTD: Tensor, rewards_BK: Tensor) -> dict[str, float]:
        """Nothing to learn."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
