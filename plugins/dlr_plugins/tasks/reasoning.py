"""reasoning-gym's procedural generators as tasks: ``reasoning-gym:<name>``."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import reasoning_gym
from pydantic import BaseModel, ConfigDict, Field
from reasoning_gym.factory import DATASETS
from reasoning_gym.utils import extract_answer

from dlr_core.errors import ConfigError, DataError, first_line, unknown_name
from dlr_core.records import Item, Verdict
from dlr_core.splits import Split, normalise, split_of
from dlr_plugins.tasks.answers import last_number, normalise_number
from dlr_plugins.tasks.gymcheck import SYMBOLIC, defuse, judged
from dlr_plugins.tasks.unhashed import HASHED, drawn

defuse(DATASETS)
SIZE = 100_000
"""Items a generator is made for. Some allocate in proportion to it."""
LIMITS = {"acre": 2_000, "word_ladder": 20_000}
"""Generators that cannot be made for so many: one allocates for half a minute, one refuses."""
MIXTURES = ("composite",)
"""Generators of other generators: each of those is a task of its own."""
PATIENCE = 400
"""Draws in a row without a new question of the split, after which a generator counts as exhausted."""


class ReasoningGym:
    """Any reasoning-gym generator; options are the generator's own settings (``min_terms``, ``max_digits`` …)."""

    class Options(BaseModel):
        """``pool``; all else is passed to the generator, which names what it knows."""

        model_config = ConfigDict(extra="allow")

        pool: int = Field(512, ge=1, description="Distinct questions of each split, generated when first needed.")

    def __init__(self, options: Options, argument: str = "") -> None:
        self.check(options, argument)
        self.name, self.kwargs = argument, dict(options.model_extra or {})
        self.pool, self.limit = options.pool, LIMITS.get(argument, SIZE)
        self._shelves: dict[Split, list[Item]] = {}
        try:
            self._dataset = reasoning_gym.create_dataset(argument, seed=0, size=self.limit, **self.kwargs)
        except Exception as error:  # a generator may make anything of settings that it did not expect
            raise ConfigError(f"task reasoning-gym:{argument}: {first_line(error)}") from None

    @classmethod
    def check(cls, options: Options, argument: str) -> None:
        """Refuse a generator, or options of it, that there are not.

        Raises:
            ConfigError: each with the nearest name.
        """
        known = [name for name in DATASETS if name not in MIXTURES]
        if argument not in known:
            raise ConfigError(unknown_name("reasoning-gym generator", argument, known))
        own = [field.name for field in fields(DATASETS[argument][1]) if field.name not in ("seed", "size")]
        wrong = [unknown_name(f"option of {argument}", key, own) for key in options.model_extra or {} if key not in own]
        if wrong:
            raise ConfigError(*wrong)

    def size(self, split: Split) -> int:
        """Distinct questions kept of a split.

        Raises:
            DataError: the generator gives none, or fails.
        """
        return len(self._shelf(split))

    def item(self, split: Split, index: int) -> Item:
        """Question ``index`` (wrapping around) of a split."""
        shelf = self._shelf(split)
        return shelf[index % len(shelf)]

    def _shelf(self, split: Split) -> list[Item]:
        """The first distinct questions of a split, in the generator's order."""
        if split not in self._shelves:
            found: dict[str, Item] = {}
            idle = 0
            for entry in self._entries():
                question = str(entry["question"])
                key = normalise(question)
                if split_of(question) == split and key not in found:
                    found[key] = Item(question, str(entry["answer"] or ""), len(found), dict(entry))
                    idle = 0
                else:
                    idle += 1
                if len(found) == self.pool or idle > PATIENCE:
                    break
            if not found:
                raise DataError(f"reasoning-gym:{self.name} gave no {split} question in {PATIENCE} draws")
            self._shelves[split] = list(found.values())
        return self._shelves[split]

    def _entries(self) -> Iterator[Mapping[str, Any]]:
        """What the generator draws, in its order."""
        if self.name in HASHED:
            yield from drawn(self.name, self.limit, self.kwargs)
            return
        for number in range(self.limit):
            try:
                yield self._dataset[number]
            except IndexError:  # some run dry before their size
                return
            except Exception as error:  # settings that it took, but cannot draw with
                raise DataError(
                    f"reasoning-gym:{self.name} cannot draw with its settings: {first_line(error)}"
                ) from None

    def gold_text(self, item: Item) -> str:
        """The completion that `likelihood` is taught.

        Raises:
            DataError: the generator states no answer, only a verifier.
        """
        if not item.answer:
            raise DataError(f"reasoning-gym:{self.name} states no gold answer, so no likelihood can be trained on it")
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
        if self.name in SYMBOLIC:
            score = judged(self.name, self.kwargs, entry, parsed)
            return score if score > 0.05 else 0.0
        try:
            score = float(self._dataset.score_answer(answer=parsed, entry=dict(entry)))
        except Exception:  # some of the generators' verifiers raise on text they cannot read: that is a wrong answer
            return 0.0
        return score if score > 0.05 else 0.0
