"""Supervised warm start, and the baseline that reinforcement learning must be compared with."""

from collections.abc import Mapping

from torch import Tensor

from dlr_core.batch import StepBatch
from dlr_plugins.estimators.options import per_chain


class Likelihood:
    """Maximise log p_M(gold answer | x, a): dense, without decoding, and not reinforcement learning."""

    needs_completions = False
    needs_gold = True
    needs_sampling = False
    needs_gradient = True

    def __call__(self, batch: StepBatch) -> tuple[Tensor, Mapping[str, float]]:
        """Mean negative log-likelihood of the gold answer in nats, over all chains."""
        latents_NTD = batch.chains.actions_NTD[batch.chosen_rows_N]
        loss = -per_chain(batch.weighted_gold_log_prob(latents_NTD, 1.0 / batch.chosen_inclusion_BK), batch)
        return loss, {"gold_nll": float(loss.detach())}
