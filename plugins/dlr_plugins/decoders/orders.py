"""Frozen weights in the order of the library that multiplies by them: oneDNN's, or FBGEMM's for float16."""

from functools import cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

ROWS = 64
"""Rows of a product that oneDNN's order is chosen for."""
STEPS, WIDEST_STEP = ((8, 1), (256, 8)), 32
"""Up to so many rows their number is rounded up to a multiple of this; beyond, of the widest."""
INPUTS, OUTPUTS = 512, 16
"""FBGEMM holds weights in blocks of so many."""


class Ordered(Protocol):
    """Weights (O, I) and a bias, in some order.

    Attributes:
        dtype: of the weights.
        nbytes: they take.
    """

    dtype: torch.dtype
    nbytes: int

    def product(self, rows_xI: Tensor) -> Tensor:
        """xWᵀ + b, in the rows' dtype."""

    def dense(self) -> Tensor:
        """The weights (O, I) in a row, made anew."""


def ordered(weight_OI: Tensor, dtype: torch.dtype, bias_O: Tensor | None = None) -> Ordered:
    """A copy of weights in the order of the library for a dtype."""
    return FBGEMM(weight_OI, bias_O) if dtype == torch.float16 else OneDNN(weight_OI, dtype, bias_O)


class FBGEMM:
    """Weights in float16, each made float32 where it is multiplied: rows, sums and what comes out are float32."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        self.dtype, self.nbytes = torch.float16, half_bytes(*weight_OI.shape)
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight_OI.float().contiguous(), bias_O)

    def product(self, rows_xI: Tensor) -> Tensor:
        """xWᵀ + b, in float32."""
        found: Tensor = torch.ops.quantized.linear_dynamic_fp16(rows_xI, self._packed)
        return found

    def dense(self) -> Tensor:
        """The weights (O, I) in a row, in float32."""
        found: Tensor = torch.ops.quantized.linear_unpack_fp16(self._packed)[0]
        return found


def half_bytes(outputs: int, inputs: int) -> int:
    """What FBGEMM holds of a layer: blocks are held whole, so 576 inputs take what 1,024 would."""
    return 2 * (-(-outputs // OUTPUTS) * OUTPUTS) * (-(-inputs // INPUTS) * INPUTS)


class OneDNN:
    """Weights in float32 or bfloat16; rows and what comes out are rounded to theirs."""

    def __init__(self, weight_OI: Tensor, dtype: torch.dtype, bias_O: Tensor | None = None) -> None:
        self._weight_OI: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI.to(dtype).contiguous(), ROWS)
        self._bias_O = bias_O
        self.dtype, self.nbytes = dtype, self._weight_OI.nbytes

    def product(self, rows_xI: Tensor) -> Tensor:
        """xWᵀ + b, given back in the rows' dtype."""
        return product(rows_xI, self._weight_OI, self._bias_O)

    def dense(self) -> Tensor:
        """The weights (O, I) in a row."""
        found: Tensor = self._weight_OI.to_dense()
        return found


def product(rows_xI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """oneDNN's xWᵀ + b, rounded to the weights' dtype, given back in the rows'; weights in order, or as they are."""
    if rows_xI.dtype != weight_OI.dtype:
        found_xO = product(rows_xI.to(weight_OI.dtype), weight_OI).to(rows_xI.dtype)
        return found_xO if bias_O is None else found_xO.add_(bias_O)
    count = rows_xI.numel() // rows_xI.shape[-1]
    found: Tensor
    if not (more := rounded(count) - count):
        found = torch.ops.mkldnn._linear_pointwise(rows_xI, weight_OI, bias_O, "none", [], "")
        return found
    rows_NI = pad(rows_xI.reshape(count, -1), (0, 0, 0, more))
    found = torch.ops.mkldnn._linear_pointwise(rows_NI, weight_OI, bias_O, "none", [], "")
    return found[:count].view(*rows_xI.shape[:-1], found.shape[1])


@cache
def rounded(count: int) -> int:
    """How many rows so many are multiplied as, by oneDNN.

    It compiles a kernel of half a megabyte for every number of rows that it meets, and keeps a thousand; how many
    rows a batch of chains has changes from pass to pass.
    """
    step = next((step for most, step in STEPS if count <= most), WIDEST_STEP)
    return -(-count // step) * step
