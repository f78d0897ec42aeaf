"""How high the wanted one stands in a ranking."""

import math

from pydantic import BaseModel, ConfigDict, Field

from dlr_core.records import Sample


class Ranking:
    """Discounted gain of the only relevant item, NDCG with one (Järvelin & Kekäläinen 2002): 1 / log2(1 + rank).

    For tasks whose parsed answer is a ranking, one character an item, and whose answer is such a character.
    """

    class Options(BaseModel):
        """Settings of ``ranking``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        cutoff: int = Field(10, ge=1, description="Ranks beyond this one are worth nothing (NDCG@cutoff).")
        format_weight: float = Field(0.1, ge=0, description="Weight of format.")

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, sample: Sample) -> float:
        """1 at the first rank, 0.63 at the second, 0.5 at the third …; 0 if it is not named."""
        rank = (sample.parsed or "").find(sample.answer) + 1
        gain = 1 / math.log2(1 + rank) if 0 < rank <= self.options.cutoff else 0.0
        return gain + self.options.format_weight * sample.format
