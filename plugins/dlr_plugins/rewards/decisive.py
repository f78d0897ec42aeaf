"""Right answers, worth less the more undecided the model was while it wrote them.

Negative token entropy as a reward needs no verifier, and alone improves reasoning where a model already knows much
(EM-RL, Agarwal et al. 2025, arXiv 2505.15134). There it is the only reward and trains the model's weights; here it is a
small term beside the verifier's, and latents are all that can make the frozen model more decided. An estimator that
reads nothing but successes, as the default does, never sees it: give it an advantage's weight.
"""

from pydantic import Field

from dlr_core.errors import ConfigError
from dlr_core.records import Sample
from dlr_plugins.rewards.dual import Dual


class Decisive(Dual):
    """`dual` minus the mean entropy, in nats, of the distributions that the completion's tokens came from."""

    needs_entropy = True

    class Options(Dual.Options):
        """Settings of ``decisive``."""

        entropy_weight: float = Field(0.1, ge=0, description="Reward lost per nat of mean token entropy.")

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.entropy_weight = options.entropy_weight

    def __call__(self, sample: Sample) -> float:
        """The dual reward less the weighted ``sample.entropy``.

        Raises:
            ConfigError: the decoder does not say how undecided it was.
        """
        if sample.entropy is None:
            raise ConfigError("reward decisive needs a decoder that reports entropy_N with its completions")
        return super().__call__(sample) - self.entropy_weight * sample.entropy
