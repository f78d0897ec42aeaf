"""Values and baselines of a group of chains when only some of them were decoded."""

from typing import TypeVar

from torch import Tensor

Rate = TypeVar("Rate", float, Tensor)
RARITY_FLOOR = 0.05
"""Weight of a success in a group where every chain succeeded."""


def corrected_values(rewards_BK: Tensor, chosen_BK: Tensor, predictions_BG: Tensor, inclusion_BG: Tensor) -> Tensor:
    """V_i = q_i + S_i (R_i − q_i)/π_i for every chain (B, G): unbiased for R_i whatever q is (DESIGN: doubly robust).

    With everything decoded (π = 1) this is R itself.
    """
    residual_BK = (rewards_BK - predictions_BG.gather(1, chosen_BK)) / inclusion_BG.gather(1, chosen_BK)
    return predictions_BG.scatter_add(1, chosen_BK, residual_BK)


def rarity(success_rate: Rate) -> Rate:
    """Weight of a success in a group that has so many: nearly 1 where it stands alone, the floor where all succeed."""
    return 1.0 + RARITY_FLOOR - success_rate


def leave_one_out(values_BG: Tensor) -> Tensor:
    """b_i: mean value of the *other* chains of the group (B, G); zero for a group of one."""
    return (values_BG.sum(1, keepdim=True) - values_BG) / max(values_BG.shape[1] - 1, 1)


def success_rate(correct_BK: Tensor, chosen_BK: Tensor, predictions_BG: Tensor, inclusion_BG: Tensor) -> Tensor:
    """Share (B,) of a group's G chains that are right: mean of their corrected values, kept within 0 and 1.

    The plain mean of those decoded would call a question easy because the scorer has kept what is right.
    """
    return corrected_values(correct_BK, chosen_BK, predictions_BG, inclusion_BG).mean(1).clamp(0.0, 1.0)


def dead_groups(rewards_BK: Tensor) -> Tensor:
    """bool (B,): groups whose rewards are all equal and so carry no policy gradient."""
    return (rewards_BK - rewards_BK[:, :1]).abs().amax(1) < 1e-8
