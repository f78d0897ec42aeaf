"""Decoding chains whose prompts are held once."""

from typing import Any

import torch
from torch import Tensor

from dlr_core.records import PromptCache
from dlr_plugins.decoders.shared_prompts import Chains


class SharedStepper:
    """Feeds rows token by token; those of one prompt share it."""

    def __init__(self, model: Any, cache: PromptCache, room: int) -> None:
        self.model, self.chains = model, Chains(cache, room)

    def feed(self, embeds_RPH: Tensor) -> Tensor:
        """Logits (R, V) after the last of the tokens that each row is fed."""
        rows, width = embeds_RPH.shape[:2]
        last: Any = 0 if width == 1 else torch.arange(1, rows + 1, device=embeds_RPH.device) * width - 1
        out = self.chains.read(self.model, embeds_RPH.flatten(0, 1), width, logits_to_keep=last)
        logits: Tensor = out.logits[0]
        return logits

    def keep(self, rows_M: Tensor) -> None:
        """Go on with these rows only, in this order; one that is named several times goes on in several ways."""
        self.chains.keep(rows_M)
