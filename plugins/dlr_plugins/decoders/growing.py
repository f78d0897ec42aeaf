"""A key/value cache with room for the tokens to come: writing one copies that token, not all those before it."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from dlr_core.records import PromptCache


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values (N, heads, length, width) at the front of a larger buffer; for use without gradients.

    Transformers' own layer concatenates, and so copies every prompt again for every token.
    """

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.length = keys.shape[2]
        self.stores = [torch.nn.functional.pad(tensor, (0, 0, 0, room)) for tensor in (keys, values)]
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (store[:, :, : self.length] for store in self.stores)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the next tokens; returns all keys and values so far."""
        end = self.length + key_states.shape[2]
        for store, new in zip(self.stores, (key_states, value_states), strict=True):
            store[:, :, self.length : end] = new
        self.length = end
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only."""
        self.stores = [store[indices.to(store.device)] for store in self.stores]
        self._show()


def growing_cache(cache: PromptCache, room: int) -> DynamicCache:
    """A Transformers cache over copies of a prompt's keys and values, with room for so many tokens."""
    grown = DynamicCache()
    grown.layers = [GrowingLayer(key, value, room) for key, value in zip(cache.keys, cache.values, strict=True)]
    return grown
