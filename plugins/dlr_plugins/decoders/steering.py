"""Seeing and changing the hidden states that enter a model's layers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dlr_core.protocols import Steer


@contextmanager
def steered(
    layers: Callable[[], Iterable[torch.nn.Module]], device: torch.device, steer: Steer | None
) -> Iterator[None]:
    """Let ``steer`` see and replace the hidden states that enter every layer, while inside.

    Args:
        layers: gives the model's layers in their order; not asked where there is nothing to steer.
        device: where ``steer`` is given the states.
        steer: (layer number, states) → states; None leaves everything as it is.
    """
    if steer is None:
        yield
        return

    def before(number: int) -> Any:
        def change(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (steer(number, args[0].to(device)), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": steer(number, kwargs["hidden_states"].to(device))}

        return change

    handles = [
        layer.register_forward_pre_hook(before(number), with_kwargs=True) for number, layer in enumerate(layers())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
