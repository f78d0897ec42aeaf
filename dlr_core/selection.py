"""Choosing which K of G chains to decode, with known inclusion probabilities.

π_i = ε·K/G + (1 − ε)·p_i, where Σp_i = K and 0 ≤ p_i ≤ 1: an exploring mixture, so every chain can be chosen and the
choice can be corrected for (Horvitz & Thompson 1952). The sample has fixed size: systematic sampling after a random
permutation (Madow 1949).
"""

import torch
from torch import Tensor

SURE = 0.01
"""A group's mean prediction counts as at least so far from 0 and from 1."""


def inclusion_probabilities(predictions_BG: Tensor, keep: int, explore: float = 0.2, sharpness: float = 6.0) -> Tensor:
    """π (B, G): chains with a higher prediction are likelier to be decoded; each row sums to ``keep``.

    p is proportional to exp(sharpness · q/s), capped at 1, the excess shared among the rest until none exceeds it; s is
    the standard deviation of being right or wrong at the group's mean prediction, √(q̄(1 − q̄)). So where success is
    rare a small difference is much, and a calibrated scorer that cannot tell chains apart chooses nearly at random.
    """
    group = predictions_BG.shape[1]
    if keep >= group:
        return torch.ones_like(predictions_BG)
    mean_B1 = predictions_BG.mean(1, keepdim=True).clamp(SURE, 1.0 - SURE)
    logits = sharpness * predictions_BG / (mean_B1 * (1.0 - mean_B1)).sqrt()
    share = torch.zeros_like(logits)
    full = torch.zeros_like(logits, dtype=torch.bool)
    for _ in range(group):
        room = keep - full.sum(1, keepdim=True)
        share = torch.where(full, 1.0, room * logits.masked_fill(full, -torch.inf).softmax(1))
        over = (share > 1.0) & ~full
        if not bool(over.any()):
            break
        full |= over
    return explore * keep / group + (1.0 - explore) * share


STEPS = 2**32
"""The random offset is a multiple of 1 / STEPS: ticks lie exactly 1 apart, none is rounded up to the next number."""


def systematic_sample(inclusion_BG: Tensor, keep: int, generator: torch.Generator) -> Tensor:
    """Indices (B, keep) of distinct chains, chain i being among them with probability π_i exactly."""
    rows = []
    for inclusion_G in inclusion_BG.double().cpu():
        order = torch.randperm(len(inclusion_G), generator=generator)
        edges = inclusion_G[order].cumsum(0)
        edges = edges * (keep / edges[-1])  # removes rounding: the total is exactly `keep`
        offset = (torch.rand(1, generator=generator, dtype=torch.float64) * STEPS).floor() / STEPS
        ticks = offset + torch.arange(keep)
        rows.append(order[torch.searchsorted(edges, ticks, right=True).clamp(max=len(order) - 1)].sort().values)
    return torch.stack(rows).to(inclusion_BG.device)
