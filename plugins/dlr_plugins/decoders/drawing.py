"""Drawing tokens: one per row, from one uniform draw per row."""

import math

import torch
from torch import Tensor


def inverse_cdf(logits_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """One token per row from one uniform draw per row: first its block of the vocabulary, then its place there."""
    block = math.isqrt(logits_NV.shape[1]) + 1
    missing = -logits_NV.shape[1] % block
    weights_NCW = torch.nn.functional.pad(logits_NV.softmax(-1), (0, missing)).unflatten(1, (-1, block))
    sums_NC = weights_NCW.sum(-1, dtype=torch.float64)
    ends_NC = sums_NC.cumsum(1)
    wanted_N1 = uniform_N[:, None] * ends_NC[:, -1:]
    chosen_N1 = torch.searchsorted(ends_NC, wanted_N1, right=True).clamp(max=sums_NC.shape[1] - 1)
    rows = torch.arange(len(logits_NV), device=logits_NV.device)
    inside_NW = weights_NCW[rows, chosen_N1[:, 0]].double().cumsum(1)
    left_N1 = wanted_N1 - (ends_NC - sums_NC).gather(1, chosen_N1)
    place_N1 = torch.searchsorted(inside_NW, left_N1, right=True).clamp(max=block - 1)
    return (chosen_N1 * block + place_N1)[:, 0].clamp(max=logits_NV.shape[1] - 1)
