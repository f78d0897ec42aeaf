"""Sequential recommendation as ranking by letters, after LatentR3 (arXiv 2505.19092): what will this user choose next?

Of LatentR3 this is the task, not the method: there the items are generated, here they stand in the question.
"""

import random
import re

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dlr_core.errors import DataError
from dlr_core.paths import expanded
from dlr_core.records import Item, Verdict
from dlr_core.splits import SPLITS
from dlr_plugins.tasks.jsonl import objects
from dlr_plugins.tasks.shelved import Shelved

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SHAPE = "expected texts in 'history' and 'candidates' (2 to 26 different ones) and 'chosen' among the candidates"


class Row(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(strict=True)

    history: list[str]
    candidates: list[str] = Field(min_length=2, max_length=len(LETTERS))
    chosen: str

    @model_validator(mode="after")
    def _one_of_them(self) -> "Row":
        if len(set(self.candidates)) < len(self.candidates) or self.chosen not in self.candidates:
            raise ValueError("candidates repeat, or the chosen one is not among them")
        return self

    def posed(self, shown: int) -> tuple[str, str]:
        """The question and the chosen one's letter; candidates are shuffled, for their order may give it away."""
        order = sorted(self.candidates)
        random.Random("\n".join([*self.history, *order])).shuffle(order)
        listed = " ".join(f"{letter}) {text}" for letter, text in zip(LETTERS, order, strict=False))
        past = "; ".join(self.history[-shown:]) or "nothing yet"
        question = f"A user chose: {past}. Rank what comes next, best first, by letter: {listed}"
        return question, LETTERS[order.index(self.chosen)]


class Recommendation(Shelved):
    """Rank candidates, lettered A, B …, best first; right if the chosen one leads.

    Every row is a user's history, some candidates, and which was chosen. Give one row a user: the split is by the
    question's text, and two rows of one user are two texts.
    """

    class Options(BaseModel):
        """Settings of ``recommendation``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: str = Field(description="JSONL file of objects with 'history', 'candidates' (lists of texts), 'chosen'.")
        history: int = Field(10, ge=1, description="Newest items of a history that are shown.")

    def __init__(self, options: Options) -> None:
        super().__init__()
        path = expanded(options.path)
        for number, row in objects(path):
            try:
                read = Row.model_validate(row)
            except ValidationError:
                raise DataError(f"{path}:{number}: {SHAPE}") from None
            question, answer = read.posed(options.history)
            self.shelve(question, answer, {"candidates": len(read.candidates)})
        if not any(map(self.size, SPLITS)):
            raise DataError(f"{path} holds no questions")

    def score(self, item: Item, completion: str, ended: bool) -> Verdict:
        """The candidates' letters in the order in which the completion first names them."""
        known = LETTERS[: item.metadata["candidates"]]
        named = [letter for letter in re.findall(r"\b[A-Z]\b", completion) if letter in known]
        parsed = "".join(dict.fromkeys(named)) or None
        return Verdict(parsed, float((parsed or "")[:1] == item.answer), float(parsed is not None and ended))
