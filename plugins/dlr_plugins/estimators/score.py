"""Score-function estimator: REINFORCE, leave-one-out baseline (Kool et al. 2019), clipped per latent as in PPO."""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from dlr_core.batch import StepBatch
from dlr_plugins.estimators.options import EstimatorOptions, advantages, per_chain, success


class Score:
    """Policy gradient through log π(a|x) alone: unbiased for any decoding, needs no gradient of the main model."""

    needs_completions = True
    needs_gold = False
    needs_sampling = False
    needs_gradient = False

    class Options(EstimatorOptions):
        """Settings of ``score``."""

        clip: float = Field(
            0.2, gt=0, description="Bound on |ratio − 1| of a latent; acts from a step's second epoch on."
        )

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, batch: StepBatch) -> tuple[Tensor, Mapping[str, float]]:
        """Loss whose gradient is −(1/G) Σ_i A_i ∇log π(a_i|x), averaged over questions; logs the clip fraction."""
        weights_BG = advantages(batch, self.options)
        weights_BG = weights_BG.scatter_add(
            1, batch.chosen_BK, success(batch, self.options) / batch.chosen_inclusion_BK
        )
        ratio_BGT = (batch.policy_log_prob_BGT() - batch.old_log_prob_BGT).exp()
        clipped_BGT = ratio_BGT.clamp(1 - self.options.clip, 1 + self.options.clip)
        gain_BGT = (ratio_BGT * weights_BG[..., None]).minimum(clipped_BGT * weights_BG[..., None])
        fraction = float((ratio_BGT.detach() != clipped_BGT.detach()).float().mean())
        return -per_chain(gain_BGT.sum(), batch), {"clip_fraction": fraction}
