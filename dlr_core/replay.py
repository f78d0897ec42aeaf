"""Remembered successes: correct completions of the run's own making, to be made likelier under new latents."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlr_core.records import FindItem, Item


@dataclass(frozen=True)
class Success:
    """One correct completion."""

    item: Item
    ids: tuple[int, ...]
    weight: float
    """Sampling weight: what is rare, or still unlikely, is replayed more."""


class ReplayBuffer:
    """The newest successes, one of each question, sampled in proportion to their weights."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries: list[Success] = []
        self.drawn: list[int] = []
        """Which entries :meth:`sample` last gave."""

    def add(self, success: Success) -> None:
        """Remember one, in the place of its question's last one; the oldest is forgotten when full."""
        others = [entry for entry in self.entries if entry.item.question != success.item.question]
        self.entries = [*others, success][-self.capacity :]

    def sample(self, count: int, generator: torch.Generator) -> list[Success]:
        """``count`` successes, with replacement; they are noted as drawn."""
        weights = torch.tensor([entry.weight for entry in self.entries])
        self.drawn = torch.multinomial(weights, count, replacement=True, generator=generator).tolist()
        return [self.entries[index] for index in self.drawn]

    def reweigh(self, weights: Sequence[float]) -> None:
        """New weights of the entries that were drawn last, one per draw."""
        for index, weight in zip(self.drawn, weights, strict=True):
            self.entries[index] = replace(self.entries[index], weight=weight)

    def state(self) -> list[dict[str, Any]]:
        """JSON-ready: numbers and ids, not tensors."""
        return [{"index": entry.item.index, "ids": list(entry.ids), "weight": entry.weight} for entry in self.entries]

    def restore(self, state: Sequence[dict[str, Any]], item: FindItem) -> None:
        """Rebuild from :meth:`state`."""
        self.entries = [Success(item(saved["index"]), tuple(saved["ids"]), saved["weight"]) for saved in state]


def padded(successes: Sequence[Success], device: torch.device) -> tuple[Tensor, Tensor]:
    """Completion ids (N, L) and their mask, padded on the right."""
    length = max(len(each.ids) for each in successes)
    ids = [[*each.ids, *[each.ids[-1]] * (length - len(each.ids))] for each in successes]
    mask = [[1.0] * len(each.ids) + [0.0] * (length - len(each.ids)) for each in successes]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
