"""The pathwise surrogate for greedy decoding."""

from pydantic import Field
from torch import Tensor

from dlr_core.advantages import rarity
from dlr_core.batch import StepBatch
from dlr_plugins.estimators.options import EstimatorOptions
from dlr_plugins.estimators.pathwise import Pathwise


class PathwiseGreedy(Pathwise):
    """Pathwise weights on greedily decoded text: a surrogate, not the gradient of the greedy reward."""

    needs_sampling = False

    class Options(EstimatorOptions):
        """Settings of ``pathwise_greedy``: correct chains are reinforced, no wrong one is pushed away."""

        advantage: float = Field(0.0, ge=0, description="Weight of the advantage term.")
        success_weight: float = Field(1.0, ge=0, description="Weight of correct chains, without a baseline.")
        rarity: bool = Field(
            True,
            description="A question's successes weigh as much as success is rare in its group, shared by its distinct "
            "correct texts, whichever of its chains were decoded; each text is taught once. False: every correct chain "
            "weighs the same.",
        )

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.rarity = options.rarity

    def success_BKM(self, batch: StepBatch) -> Tensor:
        """Success weights; with ``rarity`` a question's sum to G·(1.05 − success rate) once they are divided by π.

        They do so whichever chains the scorer kept: dividing alone would make a lucky success of a chain that was
        hardly ever decoded many times as heavy, and what it keeps nearly always light.
        """
        if not self.rarity:
            return super().success_BKM(batch)
        each = batch.each
        first_BKM = each.correct_BKM * (~each.repeat_BKM)
        rare_B11 = rarity(batch.success_rate_B)[:, None, None]
        distinct_B11 = first_BKM.sum((1, 2), keepdim=True).clamp(min=1.0)
        share_BKM = first_BKM * batch.group_size * batch.chosen_inclusion_BK[..., None] / distinct_B11
        return self.options.success_weight * rare_B11 * share_BKM
