"""A frozen model whose prompts begin under something that was learned."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dlr_core.records import PromptCache

Prefill = Callable[[Sequence[str], Sequence[int]], PromptCache]


class AdaptedDecoder:
    """Another decoder's prompts prefilled in a way of one's own; all else is that decoder's: weights, loop, account."""

    def __init__(self, decoder: Any, prefill: Prefill) -> None:
        self._decoder, self._prefill = decoder, prefill

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    @torch.no_grad()
    def prefill(
        self, questions: Sequence[str], anchor: Sequence[int], pending: Sequence[int], latents: int
    ) -> PromptCache:
        """Questions, each followed by the given tokens, the last of which is left to be fed; there are no latents."""
        return self._prefill(questions, [*anchor, *pending])
