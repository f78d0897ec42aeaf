"""Frozen linear layers whose weights are kept in 8 or 4 bits.

What a layer keeps are codes, and a scale and a zero point of every group of a row: in 8 bits a whole row is a group, in
4 bits 32 weights are, two codes a byte. They are the codes that torchao's ``IntxWeightOnlyConfig`` chooses. Every pass
makes the layer's weights of them anew, forward and back: so a pass with gradients holds those of one layer at a time,
where autograd would keep every layer's until it has gone back.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlr_core.errors import ConfigError, ModelError

Weights = Literal["full", "int8", "int4"]
GROUP = 32
"""Weights of a row that share a scale, in 4 bits."""


def check_weights(weights: Weights, *, spread: bool) -> None:
    """Refuse what cannot be done, before a model is loaded.

    Raises:
        ConfigError: the model is to be spread, by hooks that know nothing of codes.
    """
    if spread and weights != "full":
        raise ConfigError(f"decoder.weights: expected full with decoder.device_map, got {weights}")


def quantise(model: Any, weights: Weights) -> None:
    """Replace a frozen model's linear layers; its output head, which may be its input table, stays as it is.

    Layers whose rows are no whole number of groups stay too.

    Raises:
        ModelError: no layer can be replaced.
    """
    if weights == "full":
        return
    head, replaced = model.get_output_embeddings(), 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if layer is not head and type(layer) is nn.Linear and fits(layer.in_features, weights):
                setattr(parent, name, QuantisedLinear(layer, weights))
                replaced += 1
    if not replaced:
        raise ModelError(f"decoder.weights: {type(model).__name__} has no linear layer that can be kept in {weights}")


def fits(width: int, weights: Weights) -> bool:
    """Whether rows of so many weights can be kept so."""
    return weights == "int8" or width % GROUP == 0


def kept_bytes(rows: int, width: int, weights: Weights, number: int) -> int:
    """What is kept of a layer: codes, and of every group a scale (``number`` bytes) and a zero point (one)."""
    groups = rows * (1 if weights == "int8" else width // GROUP)
    return rows * width // (1 if weights == "int8" else 2) + groups * (number + 1)


class QuantisedLinear(nn.Module):
    """xWᵀ + b with W = (codes − zero) · scale, differentiable in x alone."""

    def __init__(self, layer: nn.Linear, weights: Weights) -> None:
        super().__init__()
        codes_OI, scale_OG, zero_OG = rounded(layer.weight.detach(), weights)
        self.halves = weights == "int4"
        self.codes = nn.Parameter(paired(codes_OI) if self.halves else codes_OI, requires_grad=False)
        self.scale_OG = nn.Parameter(scale_OG, requires_grad=False)
        self.zero_OG = nn.Parameter(zero_OG, requires_grad=False)
        self.bias = layer.bias

    def weight(self) -> Tensor:
        """The weights (O, I) that the codes stand for."""
        codes_OI = parted(self.codes) if self.halves else self.codes
        groups_OGW = codes_OI.to(self.scale_OG.dtype).unflatten(1, (self.scale_OG.shape[1], -1))
        if self.halves:  # in 8 bits zero is 0
            groups_OGW.sub_(self.zero_OG[..., None])
        found: Tensor = groups_OGW.mul_(self.scale_OG[..., None]).flatten(1)
        return found

    def forward(self, input: Tensor) -> Tensor:
        """The product."""
        if torch.is_grad_enabled() and input.requires_grad:
            found: Tensor = _Through.apply(input, self)  # type: ignore[no-untyped-call]
            return found
        return nn.functional.linear(input, self.weight(), self.bias)


class _Through(torch.autograd.Function):
    """A product that keeps no weights for its way back."""

    @staticmethod
    def forward(ctx: Any, rows_xI: Tensor, linear: QuantisedLinear) -> Tensor:
        ctx.linear = linear
        return nn.functional.linear(rows_xI, linear.weight(), linear.bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] @ ctx.linear.weight(), None


def rounded(weight_OI: Tensor, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (O, I), scales and zero points (O, G), such that (code − zero) · scale is near the weight.

    In 8 bits zero is 0 and the largest weight of a row is the end of the range; in 4 bits the range of a group goes
    from its least weight to its largest, 0 included.
    """
    groups_OGW = weight_OI.float().unflatten(1, (1 if weights == "int8" else -1, -1 if weights == "int8" else GROUP))
    least, most = (-128, 127) if weights == "int8" else (-8, 7)
    low_OG, high_OG = groups_OGW.amin(2).clamp(max=0), groups_OGW.amax(2).clamp(min=0)
    if weights == "int8":
        high_OG = torch.maximum(high_OG, -low_OG)
        low_OG = -high_OG
    scale_OG = ((high_OG - low_OG) / (most - least)).clamp(min=torch.finfo(torch.float32).eps)
    zero_OG = torch.zeros_like(scale_OG) if weights == "int8" else least - (low_OG / scale_OG).round()
    codes_OGW = (groups_OGW * (1 / scale_OG[..., None])).round() + zero_OG[..., None]
    codes_OI = codes_OGW.clamp(least, most).to(torch.int8).flatten(1)
    return codes_OI, scale_OG.to(weight_OI.dtype), zero_OG.clamp(least, most).to(torch.int8)


def paired(codes_OI: Tensor) -> Tensor:
    """Codes from −8 to 7, two a byte: (O, I/2)."""
    pairs_OJ2 = (codes_OI + 8).to(torch.uint8).unflatten(1, (-1, 2))
    found: Tensor = pairs_OJ2[..., 0] | pairs_OJ2[..., 1] << 4
    return found


def parted(bytes_OJ: Tensor) -> Tensor:
    """The codes again."""
    found: Tensor = torch.stack([bytes_OJ & 15, bytes_OJ >> 4], 2).flatten(1).to(torch.int8) - 8
    return found
