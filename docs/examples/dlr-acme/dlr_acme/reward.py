"""A reward: a number for one decoded chain."""

from pydantic import BaseModel, ConfigDict, Field


class Brief:
    """Right answers, worth less the longer they are."""

    class Options(BaseModel):
        """Settings: `--set reward.per_token=0.05`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        per_token: float = Field(0.02, ge=0, description="What one completion token costs.")

    def __init__(self, options):
        self.options = options

    def __call__(self, sample):
        """``sample`` is a dlr_core.records.Sample."""
        return sample.correct / (1 + self.options.per_token * sample.tokens)
