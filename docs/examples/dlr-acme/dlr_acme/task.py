"""A task: questions and a verifier."""

import re

from pydantic import BaseModel, ConfigDict, Field

from dlr_core.records import Item, Verdict
from dlr_core.splits import split_of

VALUES = ((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"),
          (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))  # fmt: skip


def roman(number):
    """A positive integer in Roman numerals."""
    text = ""
    for value, letters in VALUES:
        text += letters * (number // value)
        number %= value
    return text


class Roman:
    """Read a Roman numeral."""

    class Options(BaseModel):
        """Settings: `--set task.largest=100`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        largest: int = Field(399, ge=50, le=3999, description="Largest number asked for.")

    def __init__(self, options):
        self.shelves = {"train": [], "validation": [], "test": []}
        for number in range(1, options.largest + 1):
            question = f"Write the Roman numeral {roman(number)} in digits. Answer with the number only."
            shelf = self.shelves[split_of(question)]
            shelf.append(Item(question, str(number), len(shelf)))

    def size(self, split):
        """Questions in a split."""
        return len(self.shelves[split])

    def item(self, split, index):
        """Question ``index``, wrapping around."""
        return self.shelves[split][index % len(self.shelves[split])]

    def gold_text(self, item):
        """What `likelihood` teaches; nothing else reads it."""
        return f" {item.answer}"

    def score(self, item, completion, ended):
        """The last number of the completion against the answer."""
        numbers = re.findall(r"\d+", completion)
        parsed = str(int(numbers[-1])) if numbers else None
        return Verdict(parsed, float(parsed == item.answer), float(parsed is not None and ended))
