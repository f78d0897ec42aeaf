"""The frontier: training questions whose right answer the search has not found yet, with their prompts prefilled.

The main model is frozen, so a prompt's cache stays valid: trying a question again costs decoding alone. What is easy
leaves at once; what stays is what is worth trying again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlr_core.records import Item, PromptCache

Prefill = Callable[[Sequence[str]], PromptCache]
FindItem = Callable[[int], Item]


@dataclass(eq=False)
class Prompt:
    """One training question, prefilled."""

    item: Item
    cohort: tuple[str, ...]
    """Questions that were prefilled together: prefilling them again gives the same bits."""
    row: int
    held: PromptCache | None = None
    """One row; None where another rank has prefilled it, and this one has not needed it so far (:func:`fill`)."""

    @property
    def cache(self) -> PromptCache:
        """The prefilled prompt."""
        if self.held is None:
            raise RuntimeError(f"nobody has prefilled {self.item.question!r} on this rank")
        return self.held

    def state(self) -> dict[str, Any]:
        """JSON-ready: texts and numbers, not tensors."""
        return {"index": self.item.index, "cohort": list(self.cohort), "row": self.row}


def prompts(items: Sequence[Item], cache: PromptCache, rows_N: Tensor) -> list[Prompt]:
    """A prompt for every item, one object for equal questions.

    Args:
        items: N questions.
        cache: prompts of the distinct ones, in the items' order, without latents.
        rows_N: which prompt each item has.
    """
    cohort = tuple(dict.fromkeys(item.question for item in items))
    made: dict[int, Prompt] = {}
    for number, row in enumerate(rows_N.tolist()):
        if row not in made:
            made[row] = Prompt(items[number], cohort, row, cache.select(rows_N[number : number + 1]))
    return [made[row] for row in rows_N.tolist()]


def unfilled(states: Sequence[Mapping[str, Any]], item: FindItem) -> list[Prompt]:
    """Prompts from :meth:`Prompt.state`, to be prefilled where they are needed."""
    return [Prompt(item(state["index"]), tuple(state["cohort"]), state["row"]) for state in states]


def fill(prompts: Sequence[Prompt], prefill: Prefill) -> None:
    """Prefill those that are not yet, all at once."""
    missing = [prompt for prompt in prompts if prompt.held is None]
    if not missing:
        return
    place = {text: row for row, text in enumerate(dict.fromkeys(prompt.item.question for prompt in missing))}
    cache = prefill(list(place))
    for prompt in missing:
        prompt.held = cache.select(torch.tensor([place[prompt.item.question]], device=cache.mask_NS.device))


def restore_prompts(states: Sequence[Mapping[str, Any]], prefill: Prefill | None, item: FindItem) -> list[Prompt]:
    """Prompts from :meth:`Prompt.state`, each cohort prefilled once more; with None nothing is prefilled yet."""
    if prefill is None:
        return unfilled(states, item)
    cohorts: dict[tuple[str, ...], list[int]] = {}
    for number, state in enumerate(states):
        cohorts.setdefault(tuple(state["cohort"]), []).append(number)
    found: dict[int, Prompt] = {}
    for cohort, numbers in cohorts.items():
        cache = prefill(cohort)
        for number in numbers:
            row = torch.tensor([states[number]["row"]], device=cache.mask_NS.device)
            found[number] = Prompt(item(states[number]["index"]), cohort, int(row), cache.select(row))
    return [found[number] for number in range(len(states))]


class Frontier:
    """The newest unsolved questions."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.waiting: dict[str, Prompt] = {}

    def add(self, prompt: Prompt) -> None:
        """Keep a question; the one that has waited longest is dropped when full."""
        self.waiting.setdefault(prompt.item.question, prompt)
        while len(self.waiting) > self.capacity:
            self.waiting.pop(next(iter(self.waiting)))

    def solve(self, question: str) -> None:
        """It has been answered."""
        self.waiting.pop(question, None)

    def draw(self, count: int, generator: torch.Generator) -> list[Prompt]:
        """Up to ``count`` different questions, uniformly; they stay."""
        order = torch.randperm(len(self.waiting), generator=generator).tolist()[: max(count, 0)]
        waiting = list(self.waiting.values())
        return [waiting[number] for number in order]
