"""A scorer that has seen the answer: how likely the frozen model makes it under each chain."""

from torch import Tensor

from dlr_plugins.scorers.none import NoScorer


class LikelihoodScorer(NoScorer):
    """Keeps chains under which the *gold* answer is likely: an upper mark for filters, and not a run without gold."""

    decodes_all = False
    needs_gold = True

    def predict_from_gold(self, log_prob_BG: Tensor) -> Tensor:
        """q (B, G) = p_M(gold answer | question, chain): what sampling it once would earn on average."""
        return log_prob_BG.exp()
