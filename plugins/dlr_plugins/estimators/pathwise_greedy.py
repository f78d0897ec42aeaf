"""The pathwise surrogate for greedy decoding."""

from pydantic import Field

from dlr_plugins.estimators.options import EstimatorOptions
from dlr_plugins.estimators.pathwise import Pathwise


class PathwiseGreedy(Pathwise):
    """Pathwise weights on greedily decoded text: a surrogate, not the gradient of the greedy reward."""

    needs_sampling = False

    class Options(EstimatorOptions):
        """Settings of ``pathwise_greedy``; by default every correct chain is reinforced, and no wrong one is pushed away."""

        advantage: float = Field(0.0, ge=0, description="Weight of the advantage term.")
        success_weight: float = Field(1.0, ge=0, description="Weight of every correct chain, without a baseline.")
