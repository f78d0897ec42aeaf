"""What the first layer of a model writes to its key/value cache, without running the others."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache


class Captured(Exception):
    """Carries the first layer's values out of a forward pass that need go no further."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values


class FirstLayer(DynamicCache):  # type: ignore[misc]
    """A cache that ends the forward pass at the first write."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """Raise what was to be written."""
        raise Captured(value_states)
