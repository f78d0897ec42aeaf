"""Pathwise estimator: reward-weighted likelihood of the decoded text, differentiated through the frozen model."""

from collections.abc import Mapping

from torch import Tensor

from dlr_core.batch import StepBatch
from dlr_plugins.estimators.options import EstimatorOptions, per_chain


class Pathwise:
    """(1/G) Σ_i (S_i/π_i)(R_i − c_i) ∇log p_M(y_i|x, a_i(θ)): unbiased when y is sampled at the same temperature.

    A chain that was decoded M times counts each of its completions 1/M, with that completion's own reward.
    """

    needs_completions = True
    needs_gold = False
    needs_sampling = True
    needs_gradient = True

    class Options(EstimatorOptions):
        """Settings of ``pathwise``."""

    def __init__(self, options: EstimatorOptions) -> None:
        self.options = options

    def __call__(self, batch: StepBatch) -> tuple[Tensor, Mapping[str, float]]:
        """Loss with that gradient. A chain's baseline uses the other chains only, never its own text."""
        # For a decoded chain R − c with c the others' mean value; the AIPW form would put R's own π inside.
        values_BG, rewards_BKM = batch.values_BG(), batch.each.rewards_BKM
        others_BG = values_BG - batch.advantages_BG()
        others_BK1 = others_BG.gather(1, batch.chosen_BK)[..., None]
        advantage_BKM = self.options.advantage * (rewards_BKM - others_BK1) / rewards_BKM.shape[-1]
        if self.options.normalise and batch.group_size > 1:
            advantage_BKM = advantage_BKM / (values_BG.std(1)[:, None, None] + 1e-4)
        weights_BKM = (advantage_BKM + self.success_BKM(batch)) / batch.chosen_inclusion_BK[..., None]
        latents_NTD = batch.chains.actions_NTD[batch.chosen_rows_N]
        return -per_chain(batch.weighted_completion_log_prob(latents_NTD, weights_BKM), batch), {}

    def success_BKM(self, batch: StepBatch) -> Tensor:
        """Success weights of the completions, before the 1/π correction."""
        correct_BKM = batch.each.correct_BKM
        return self.options.success_weight * correct_BKM / correct_BKM.shape[-1]
