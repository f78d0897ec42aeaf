"""A convex mix of the score and pathwise estimators."""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from dlr_core.batch import StepBatch
from dlr_plugins.estimators.pathwise import Pathwise
from dlr_plugins.estimators.score import Score


class Hybrid:
    """λ·score + (1−λ)·pathwise: each alone estimates the whole gradient, so the weights sum to one."""

    needs_completions = True
    needs_gold = False
    needs_sampling = True
    needs_gradient = True

    class Options(Score.Options):
        """Settings of ``hybrid``."""

        mix: float = Field(0.5, ge=0, le=1, description="λ, the share of the score estimator.")

    def __init__(self, options: Options) -> None:
        self.options = options
        self._score, self._pathwise = Score(options), Pathwise(options)

    def __call__(self, batch: StepBatch) -> tuple[Tensor, Mapping[str, float]]:
        """The mixed loss; logs what ``score`` logs."""
        score, logs = self._score(batch)
        pathwise, _ = self._pathwise(batch)
        return self.options.mix * score + (1.0 - self.options.mix) * pathwise, logs
