"""Choosing tokens: the likeliest, or one per row from one uniform draw per row."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dlr_core.errors import ConfigError

Generators = Sequence[np.random.Generator]


def check_generators(temperature: float, generators: Generators | None, rows: int) -> None:
    """Refuse to sample without one generator per row: ConfigError."""
    if temperature > 0 and (generators is None or len(generators) != rows):
        raise ConfigError(f"sampling needs one generator per row: expected {rows}")


def choose(logits_MV: Tensor, temperature: float, generators: Generators | None, rows: Sequence[int]) -> Tensor:
    """The next token (M,) of some rows; greedy at temperature 0, else by each row's own generator."""
    if temperature == 0 or generators is None:
        return likeliest(logits_MV)
    draws = torch.tensor([generators[row].random() for row in rows], device=logits_MV.device)
    return inverse_cdf(logits_MV / temperature, draws)


def likeliest(logits_MV: Tensor) -> Tensor:
    """The first of each row's greatest logits (M,); on a CPU by NumPy, whose argmax takes a tenth of PyTorch's time."""
    if logits_MV.device.type == "cpu" and logits_MV.dtype == torch.float32:
        return torch.from_numpy(logits_MV.detach().numpy().argmax(-1))
    return logits_MV.argmax(-1)


def entropy_of(logits_MV: Tensor) -> Tensor:
    """Entropy (M,) of each choice, in nats, at temperature 1."""
    log_prob_MV = logits_MV.log_softmax(-1)
    return -(log_prob_MV.exp() * log_prob_MV).sum(-1)


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
