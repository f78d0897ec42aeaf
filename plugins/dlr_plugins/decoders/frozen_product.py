"""The product of a frozen linear layer, which keeps no tensor for its way back."""

from typing import Any, Protocol

import torch
from torch import Tensor


class FrozenLinear(Protocol):
    """A linear layer that knows its product, forward and back."""

    def product(self, rows_xI: Tensor) -> Tensor:
        """xWᵀ + b."""

    def back(self, grad_xO: Tensor) -> Tensor:
        """The gradient in x, of one in the product."""


def frozen_product(rows_xI: Tensor, linear: FrozenLinear) -> Tensor:
    """xWᵀ + b, differentiable in x alone."""
    if torch.is_grad_enabled() and rows_xI.requires_grad:
        found: Tensor = _Through.apply(rows_xI, linear)  # type: ignore[no-untyped-call]
        return found
    return linear.product(rows_xI)


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_xI: Tensor, linear: FrozenLinear) -> Tensor:
        ctx.linear = linear
        return linear.product(rows_xI)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.linear.back(grads[0]), None
