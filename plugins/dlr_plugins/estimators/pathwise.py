"""Pathwise estimator: reward-weighted likelihood of the decoded text, differentiated through the frozen model."""

from collections.abc import Mapping

from torch import Tensor

from dlr_core.batch import StepBatch
from dlr_plugins.estimators.options import EstimatorOptions, per_chain, success


class Pathwise:
    """(1/G) Σ_i (S_i/π_i)(R_i − c_i) ∇log p_M(y_i|x, a_i(θ)): unbiased when y is sampled at the same temperature."""

    needs_completions = True
    needs_gold = False
    needs_sampling = True

    class Options(EstimatorOptions):
        """Settings of ``pathwise``."""

    def __init__(self, options: EstimatorOptions) -> None:
        self.options = options

    def __call__(self, batch: StepBatch) -> tuple[Tensor, Mapping[str, float]]:
        """Loss with that gradient. A chain's baseline uses the other chains only, never its own text."""
        # For a decoded chain R − c with c the others' mean value; the AIPW form would put R's own π inside.
        values_BG = batch.values_BG()
        others_BG = values_BG - batch.advantages_BG()
        advantage_BK = self.options.advantage * (batch.rewards_BK - others_BG.gather(1, batch.chosen_BK))
        if self.options.normalise and batch.group_size > 1:
            advantage_BK = advantage_BK / (values_BG.std(1, keepdim=True) + 1e-4)
        weights_BK = (advantage_BK + self.success_BK(batch)) / batch.chosen_inclusion_BK
        latents_NTD = batch.chains.actions_NTD[batch.chosen_rows_N]
        return -per_chain(batch.weighted_completion_log_prob(latents_NTD, weights_BK), batch), {}

    def success_BK(self, batch: StepBatch) -> Tensor:
        """Success weights of the decoded chains, before the 1/π correction."""
        return success(batch, self.options)
