"""Remembered successes: correct completions of the run's own making, to be made likelier under new latents."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlr_core.frontier import FindItem, Prefill, Prompt, fill, restore_prompts
from dlr_core.records import PromptCache


@dataclass(frozen=True)
class Success:
    """One correct completion."""

    prompt: Prompt
    ids: tuple[int, ...]
    weight: float
    """Sampling weight: what is rare, or still unlikely, is replayed more."""


def stack(caches: Sequence[PromptCache]) -> PromptCache:
    """One cache of many single rows, padded on the left to one width."""
    width = max(cache.mask_NS.shape[1] for cache in caches)

    def pad(tensor: Tensor, axis: int) -> Tensor:
        missing = width - tensor.shape[axis]
        if not missing:
            return tensor
        shape = list(tensor.shape)
        shape[axis] = missing
        return torch.cat([tensor.new_zeros(shape), tensor], axis)

    layers, ids = range(len(caches[0].keys)), [cache.ids_NS for cache in caches if cache.ids_NS is not None]
    return PromptCache(
        tuple(torch.cat([pad(cache.keys[layer], 2) for cache in caches]) for layer in layers),
        tuple(torch.cat([pad(cache.values[layer], 2) for cache in caches]) for layer in layers),
        torch.cat([pad(cache.mask_NS, 1) for cache in caches]),
        torch.cat([pad(cache.states_NSH, 1) for cache in caches]),
        torch.cat([cache.pending_NPH for cache in caches]),
        caches[0].num_latents,
        ids_NS=torch.cat([pad(row, 1) for row in ids]) if len(ids) == len(caches) else None,
    )


class ReplayBuffer:
    """The newest successes, sampled in proportion to their weights."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries: list[Success] = []
        self.drawn: list[int] = []
        """Which entries :meth:`sample` last gave."""

    def add(self, success: Success) -> None:
        """Remember one; the oldest is forgotten when full."""
        self.entries = [*self.entries, success][-self.capacity :]

    def sample(
        self, count: int, generator: torch.Generator, share: slice | None = None, prefill: Prefill | None = None
    ) -> tuple[PromptCache, Tensor, Tensor]:
        """Prompts of ``count`` successes (with replacement), each held once, their ids (count, L) and mask.

        Args:
            count: how many are drawn.
            generator: what they are drawn from.
            share: which of them are given (None: all); all are noted as drawn.
            prefill: for prompts that nobody has prefilled here.
        """
        weights = torch.tensor([entry.weight for entry in self.entries])
        self.drawn = torch.multinomial(weights, count, replacement=True, generator=generator).tolist()
        chosen = [self.entries[i] for i in (self.drawn if share is None else self.drawn[share])]
        if prefill is not None:
            fill([entry.prompt for entry in chosen], prefill)
        length = max(len(entry.ids) for entry in chosen)
        prompts = {(entry.prompt.cohort, entry.prompt.row): entry.prompt.cache for entry in chosen}
        place = {key: number for number, key in enumerate(prompts)}
        device = chosen[0].prompt.cache.mask_NS.device
        rows = torch.tensor([place[entry.prompt.cohort, entry.prompt.row] for entry in chosen], device=device)
        ids = torch.tensor([[*e.ids, *[e.ids[-1]] * (length - len(e.ids))] for e in chosen], device=device)
        mask = torch.tensor([[1.0] * len(e.ids) + [0.0] * (length - len(e.ids)) for e in chosen], device=device)
        return stack(list(prompts.values())).share(rows), ids, mask

    def reweigh(self, weights: Sequence[float]) -> None:
        """New weights of the entries that were drawn last, one per draw."""
        for index, weight in zip(self.drawn, weights, strict=True):
            self.entries[index] = replace(self.entries[index], weight=weight)

    def state(self) -> list[dict[str, Any]]:
        """JSON-ready: texts and ids, not tensors."""
        return [{**entry.prompt.state(), "ids": list(entry.ids), "weight": entry.weight} for entry in self.entries]

    def restore(self, state: Sequence[dict[str, Any]], prefill: Prefill | None, item: FindItem) -> None:
        """Rebuild from :meth:`state`, prefilling each cohort again (with None: where it is needed)."""
        made = restore_prompts(state, prefill, item)
        self.entries = [
            Success(prompt, tuple(saved["ids"]), saved["weight"]) for prompt, saved in zip(made, state, strict=True)
        ]
