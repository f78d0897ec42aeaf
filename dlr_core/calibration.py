"""Is the filter any good? What a scorer predicted against what decoding showed, over the newest chains."""

from typing import Any

import torch
from torch import Tensor

BINS = 10


def auroc(score_N: Tensor, positive_N: Tensor, weight_N: Tensor) -> float | None:
    """P(a positive scores above a negative), ties counting half; None unless both kinds are there."""
    right, wrong = positive_N > 0.5, positive_N <= 0.5
    if not bool(right.any()) or not bool(wrong.any()):
        return None
    ahead = (score_N[right][:, None] - score_N[wrong][None]).sign() * 0.5 + 0.5
    weight = weight_N[right][:, None] * weight_N[wrong][None]
    return float((ahead * weight).sum() / weight.sum())


def calibration_error(predicted_N: Tensor, reward_N: Tensor, weight_N: Tensor, bins: int = BINS) -> float:
    """Mean |predicted − realised reward| of bins that hold equally many chains (Naeini et al. 2015)."""
    order = predicted_N.argsort(stable=True)
    total = weight_N.sum()
    error = torch.zeros((), dtype=predicted_N.dtype)
    for part in order.tensor_split(min(bins, len(order))):
        share = weight_N[part]
        gap = ((predicted_N[part] - reward_N[part]) * share).sum() / share.sum()
        error += gap.abs() * share.sum() / total
    return float(error)


class ScorerMonitor:
    """Predictions made before decoding, and outcomes, of the newest decoded chains.

    Only decoded chains have outcomes, and the scorer chose them: each counts 1/π times, so the figures are those of all
    chains.
    """

    def __init__(self, window: int = 512) -> None:
        self.window = window
        self.rows_N4 = torch.zeros(0, 4)

    def add(self, predicted: Tensor, reward: Tensor, correct: Tensor, inclusion: Tensor) -> dict[str, Any]:
        """Remember a step's decoded chains, tensors of one shape; returns the figures to log."""
        new = torch.stack([x.detach().flatten().float().cpu() for x in (predicted, reward, correct, inclusion)], 1)
        self.rows_N4 = torch.cat([self.rows_N4, new])[-self.window :]
        guess, reward_N, correct_N, inclusion_N = self.rows_N4.unbind(1)
        weight = 1.0 / inclusion_N
        found = auroc(guess, correct_N, weight)
        logs = {"scorer_calibration": calibration_error(guess, reward_N, weight)}
        return logs if found is None else {**logs, "scorer_auroc": found}

    def state(self) -> list[list[float]]:
        """JSON-ready."""
        rows: list[list[float]] = self.rows_N4.tolist()
        return rows

    def restore(self, state: list[list[float]]) -> None:
        """From :meth:`state`."""
        self.rows_N4 = torch.tensor(state).view(-1, 4)
