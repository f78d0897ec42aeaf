"""Remembered successes: correct completions of the run's own making, to be made likelier under new latents."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlr_core.records import Beginning, FindItem, Item, PromptCache


@dataclass(frozen=True)
class Success:
    """One correct completion."""

    item: Item
    ids: tuple[int, ...]
    weight: float
    """Sampling weight: what is rare, or still unlikely, is replayed more."""


def stack(caches: Sequence[PromptCache], beginnings: Sequence[Beginning | None] | None = None) -> PromptCache:
    """One cache of many single rows, padded to one width: on the left, but for their beginnings, which stay in front.

    Args:
        caches: one row each.
        beginnings: of each what its keys, values and states lack (None: nothing); it is put in front of them.
    """
    width = max(cache.mask_NS.shape[1] for cache in caches)
    pairs = list(zip(caches, beginnings or [None] * len(caches), strict=True))

    def pad(tensor: Tensor, axis: int, start: Tensor | None = None) -> Tensor:
        """Beginning, padding, and what is a row's own."""
        missing = width - tensor.shape[axis] - (0 if start is None else start.shape[axis])
        parts = [] if start is None else [start]
        if missing:
            shape = list(tensor.shape)
            shape[axis] = missing
            parts.append(tensor.new_zeros(shape))
        return torch.cat([*parts, tensor], axis) if parts else tensor

    def pad_whole(tensor_1S: Tensor, start: Beginning | None) -> Tensor:
        fixed = start.length if start else 0
        return pad(tensor_1S[:, fixed:], 1, tensor_1S[:, :fixed])

    layers, ids = range(len(caches[0].keys)), [(c.ids_NS, start) for c, start in pairs if c.ids_NS is not None]
    return PromptCache(
        tuple(torch.cat([pad(c.keys[layer], 2, b.keys[layer] if b else None) for c, b in pairs]) for layer in layers),
        tuple(
            torch.cat([pad(c.values[layer], 2, b.values[layer] if b else None) for c, b in pairs]) for layer in layers
        ),
        torch.cat([pad_whole(cache.mask_NS, start) for cache, start in pairs]),
        torch.cat([pad(cache.states_NSH, 1, start.states_1PH if start else None) for cache, start in pairs]),
        torch.cat([cache.pending_NPH for cache in caches]),
        caches[0].num_latents,
        ids_NS=torch.cat([pad_whole(*pair) for pair in ids]) if len(ids) == len(caches) else None,
    )


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
