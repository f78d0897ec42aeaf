"""Frozen linear layers whose weights are rounded to float16, or kept in 8 or 4 bits.

Rounded to float16 they stay numbers of the model's dtype, until they are packed as what they were rounded to
(``packed_linear``).

In 8 bits a row has one scale, as in torchao's ``IntxWeightOnlyConfig``. In 4 bits 32 weights of a row share a scale and
a least value, both in float16, and a byte holds two codes: that is GGUF's Q4_1, so that weights which come from such a
file are kept exactly. Every pass makes the layer's weights of the codes anew, forward and back: so a pass with
gradients holds those of one layer at a time, where autograd would keep every layer's until it has gone back.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlr_core.errors import ConfigError, ModelError
from dlr_plugins.decoders.frozen_product import frozen_product

Weights = Literal["full", "float16", "int8", "int4"]
GROUP = 32
"""Weights of a row that share a scale, in 4 bits."""
SMALLEST = 2.0**-24
"""Above 0, of float16."""


def check_weights(weights: Weights, *, spread: bool) -> None:
    """Refuse what cannot be done, before a model is loaded.

    Raises:
        ConfigError: the model is to be spread, by hooks that know nothing of codes.
    """
    if spread and weights != "full":
        raise ConfigError(f"decoder.weights: expected full with decoder.device_map, got {weights}")


def quantise(model: Any, weights: Weights) -> None:
    """Round a frozen model's linear layers to float16, its output head's too, or replace them for the other kinds.

    The head, which may be the input table, is not replaced, nor are layers whose rows are no whole number of groups.

    Raises:
        ModelError: no layer can be replaced, or a weight is beyond float16.
    """
    if weights == "full":
        return
    if weights == "float16":
        halve(model)
        return
    chosen = quantisable(model, weights)
    if not chosen:
        raise ModelError(f"decoder.weights: {type(model).__name__} has no linear layer that can be kept in {weights}")
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if layer in chosen:
                setattr(parent, name, QuantisedLinear(layer, weights))


def halve(model: nn.Module) -> None:
    """Round the weights of every linear layer to float16.

    Raises:
        ModelError: one of them is beyond float16.
    """
    for name, layer in model.named_modules():
        if type(layer) is nn.Linear:
            half_OI = layer.weight.detach().to(torch.float16)
            if not half_OI.isfinite().all():
                most = torch.finfo(torch.float16).max
                raise ModelError(f"decoder.weights=float16: {name} has weights beyond ±{most:.0f}")
            layer.weight.copy_(half_OI)


def quantisable(model: Any, weights: Weights) -> list[nn.Linear]:
    """The layers of a model whose weights are kept in codes."""
    if weights in ("full", "float16"):
        return []
    head, linears = model.get_output_embeddings(), [part for part in model.modules() if type(part) is nn.Linear]
    return [part for part in linears if part is not head and (weights == "int8" or part.in_features % GROUP == 0)]


def kept_bytes(rows: int, width: int, weights: Weights, number: int) -> int:
    """What is kept of a layer: a code a weight, and a scale a row of ``number`` bytes, or four bytes a group."""
    if weights == "int8":
        return rows * width + rows * number
    return rows * width // 2 + rows * (width // GROUP) * 4


class QuantisedLinear(nn.Module):
    """xWᵀ + b, differentiable in x alone."""

    def __init__(self, layer: nn.Linear, weights: Weights) -> None:
        super().__init__()
        weight_OI = layer.weight.detach()
        self.dtype = weight_OI.dtype
        codes, scale, least = eight_bits(weight_OI) if weights == "int8" else four_bits(weight_OI)
        self.codes, self.scale = _frozen(codes), _frozen(scale)
        self.least = None if least is None else _frozen(least)
        self.bias = layer.bias

    def weight(self) -> Tensor:
        """The weights (O, I) that the codes stand for."""
        if self.least is None:
            return self.codes.to(self.dtype).mul_(self.scale)
        codes_OGW = parted(self.codes).to(self.dtype).unflatten(1, (self.scale.shape[1], GROUP))
        found: Tensor = codes_OGW.mul_(self.scale[..., None]).add_(self.least[..., None]).flatten(1)
        return found

    def forward(self, input: Tensor) -> Tensor:
        """The product."""
        return frozen_product(input, self)

    def product(self, rows_xI: Tensor) -> Tensor:
        """xWᵀ + b."""
        return nn.functional.linear(rows_xI, self.weight(), self.bias)

    def back(self, grad_xO: Tensor) -> Tensor:
        """The gradient in x."""
        return grad_xO @ self.weight()


def _frozen(part: Tensor) -> nn.Parameter:
    return nn.Parameter(part, requires_grad=False)


def eight_bits(weight_OI: Tensor) -> tuple[Tensor, Tensor, None]:
    """Codes (O, I) from −128 to 127, scales (O, 1): weight ≈ code · scale, a row's largest at the end of the range."""
    single_OI = weight_OI.float()
    scale_O1 = (single_OI.abs().amax(1, keepdim=True) / 127.5).clamp(min=torch.finfo(torch.float32).eps)
    codes_OI = (single_OI * (1 / scale_O1)).round().clamp(-128, 127)
    return codes_OI.to(torch.int8), scale_O1.to(weight_OI.dtype), None


def four_bits(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes from 0 to 15, two a byte (O, I/2), scales and least values (O, G): weight ≈ code · scale + least."""
    groups_OGW = weight_OI.float().unflatten(1, (-1, GROUP))
    low_OG, high_OG = groups_OGW.amin(2), groups_OGW.amax(2)
    least_OG = low_OG.to(torch.float16)
    scale_OG = ((high_OG - low_OG) / 15).clamp(min=SMALLEST).to(torch.float16)
    above_OGW = groups_OGW - least_OG.float()[..., None]
    codes_OGW = (above_OGW / scale_OG.float()[..., None]).round().clamp(0, 15)
    return paired(codes_OGW.to(torch.uint8).flatten(1)), scale_OG, least_OG


def paired(codes_OI: Tensor) -> Tensor:
    """Codes from 0 to 15, two a byte: (O, I/2)."""
    pairs_OJ2 = codes_OI.unflatten(1, (-1, 2))
    found: Tensor = pairs_OJ2[..., 0] | pairs_OJ2[..., 1] << 4
    return found


def parted(bytes_OJ: Tensor) -> Tensor:
    """The codes again (O, I)."""
    return torch.stack([bytes_OJ & 15, bytes_OJ >> 4], 2).flatten(1)
