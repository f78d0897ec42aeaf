"""The decoding loop: token by token, rows that end leave the batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dlr_plugins.decoders.drawing import choose, entropy_of


class Stepper(Protocol):
    """Feeds the frozen model what comes next of every row that goes on."""

    def feed(self, embeds_RPH: Tensor) -> Tensor:
        """Logits (R, V) after the last of the P tokens that each of the R rows is fed."""

    def keep(self, rows_M: Tensor) -> None:
        """Go on with these rows only, in this order; one that is named several times goes on in several ways."""


@dataclass(frozen=True)
class Draft:
    """Completions while they are written, N rows."""

    ids_NL: Tensor
    mask_NL: Tensor
    entropy_N: Tensor
    """Sum over tokens, in nats."""

    @classmethod
    def blank(cls, rows: int, limit: int, end: int, device: torch.device) -> "Draft":
        """Nothing written yet."""
        ids_NL = torch.full((rows, limit), end, device=device)
        return cls(ids_NL, torch.zeros(rows, limit, device=device), torch.zeros(rows, device=device))


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen."""

    temperature: float
    """Greedy at 0."""
    generators: Sequence[np.random.Generator] | None
    """One per row of the draft, where tokens are sampled."""
    entropy: bool
    """Whether to add up how undecided every choice was, which costs two more passes over the vocabulary."""


def write(
    draft: Draft,
    rows_R: Tensor,
    stepper: Stepper,
    pending_RPH: Tensor,
    choice: Choice,
    embed: Callable[[Tensor], Tensor],
    end_ids: Tensor,
) -> tuple[int, int]:
    """Complete some rows of a draft; returns how many positions were fed, and of how many the logits were read.

    Args:
        draft: its rows ``rows_R`` are written to, no others.
        rows_R: which they are, in the stepper's order.
        stepper: holds their prompts.
        pending_RPH: what each is fed first.
        choice: how tokens are chosen.
        embed: token ids to input embeddings.
        end_ids: tokens that end a completion.
    """
    alive, embeds, fed, read = rows_R, pending_RPH, 0, 0
    for step in range(draft.ids_NL.shape[1]):
        logits = stepper.feed(embeds).float()
        fed, read = fed + embeds.shape[0] * embeds.shape[1], read + embeds.shape[0]
        if choice.entropy:
            draft.entropy_N[alive] += entropy_of(logits)
        token = choose(logits, choice.temperature, choice.generators, alive.tolist())
        draft.ids_NL[alive, step], draft.mask_NL[alive, step] = token, 1.0
        going = ~torch.isin(token, end_ids)
        if not bool(going.any()):
            break
        if not bool(going.all()):
            alive, token = alive[going], token[going]
            if step + 1 < draft.ids_NL.shape[1]:
                stepper.keep(going.nonzero()[:, 0])
        embeds = embed(token)[:, None]
    return fed, read
