"""reasoning-gym's procedural generators as tasks: ``reasoning-gym:<name>``."""

import random
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import reasoning_gym
from pydantic import BaseModel, ConfigDict
from reasoning_gym.factory import DATASETS
from reasoning_gym.utils import extract_answer

from dlr_core.errors import ConfigError, DataError, unknown_name
from dlr_core.records import Item, Verdict
from dlr_core.splits import Split, split_of
from dlr_plugins.tasks.answers import last_number, normalise_number

SIZE = 100_000
"""Items drawn from a generator. Some allocate in proportion to it."""
PATIENCE = 400


class ReasoningGym:
    """Any reasoning-gym generator; options are the generator's own settings (``min_terms``, ``max_digits`` …)."""

    class Options(BaseModel):
        """Passed to the generator as they are; it names the ones it knows."""

        model_config = ConfigDict(extra="allow")

    def __init__(self, options: Options, argument: str = "") -> None:
        if argument not in DATASETS:
            raise ConfigError(unknown_name("reasoning-gym generator", argument, DATASETS))
        self.name, self.kwargs = argument, dict(options.model_extra or {})
        known = [field.name for field in fields(DATASETS[argument][1]) if field.name not in ("seed", "size")]
        wrong = [unknown_name(f"option of {argument}", key, known) for key in self.kwargs if key not in known]
        if wrong:
            raise ConfigError(*wrong)
        try:
            self._dataset = reasoning_gym.create_dataset(argument, seed=0, size=SIZE, **self.kwargs)
        except (AssertionError, ValueError, TypeError) as error:
            raise ConfigError(f"task reasoning-gym:{argument}: {error or type(error).__name__}") from None

    def size(self, split: Split) -> int | None:
        """Unbounded."""
        return None

    def item(self, split: Split, index: int) -> Item:
        """Question ``index`` of a split: the first of a fixed random walk over the generator that falls into it.

        Raises:
            DataError: the generator has (nearly) no questions of that split.
        """
        walk = random.Random(index)
        for _ in range(PATIENCE):
            entry = self._dataset[walk.randrange(SIZE)]
            question = str(entry["question"])
            if split_of(question) == split:
                return Item(question, str(entry["answer"]), index, dict(entry))
        raise DataError(f"reasoning-gym:{self.name} gave no {split} question in {PATIENCE} draws; set other options")

    def gold_text(self, item: Item) -> str:
        """The completion that `likelihood` is taught."""
        return f" {item.answer}"

    def score(self, item: Item, completion: str, ended: bool) -> Verdict:
        """reasoning-gym's own verifier on the parsed answer; format is an answer, ended within the token limit.

        Where the gold answer is a number the parsed answer is the completion's last number; else it is the text inside
        ``<answer>``, or all of it.
        """
        if normalise_number(item.answer) is not None:
            parsed = last_number(completion)
        else:
            parsed = (extract_answer(completion) or completion).strip() or None
        keeps = float(parsed is not None and ended)
        return Verdict(parsed, self._verify(item.metadata, parsed), keeps)

    def _verify(self, entry: Mapping[str, Any], parsed: str | None) -> float:
        """The verifier's score; its consolation for a wrong answer (a few hundredths) is no score."""
        if parsed is None:
            return 0.0
        try:
            score = float(self._dataset.score_answer(answer=parsed, entry=dict(entry)))
        except Exception:  # some of the generators' verifiers raise on text they cannot read: that is a wrong answer
            return 0.0
        return score if score > 0.05 else 0.0
