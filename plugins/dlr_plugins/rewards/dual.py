"""The dual reward: correctness and format."""

from pydantic import BaseModel, ConfigDict, Field

from dlr_core.records import Sample


class Dual:
    """Correctness and format: a weighted sum, or correctness gated by format."""

    class Options(BaseModel):
        """Settings of ``dual``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        correct_weight: float = Field(1.0, ge=0, description="Weight of correctness.")
        format_weight: float = Field(0.1, ge=0, description="Weight of format; a large one is climbed first.")
        gate: bool = Field(False, description="Count correctness only where the format is kept.")

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, sample: Sample) -> float:
        """Weighted sum of ``sample.correct`` and ``sample.format``."""
        correct = sample.correct * sample.format if self.options.gate else sample.correct
        return self.options.correct_weight * correct + self.options.format_weight * sample.format
