"""The frontier: training questions whose right answer the search has not found yet.

What is easy leaves at once; what stays is what is worth trying again.
"""

import torch

from dlr_core.records import Item


class Frontier:
    """The newest unsolved questions."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.waiting: dict[str, Item] = {}

    def add(self, item: Item) -> None:
        """Keep a question; the one that has waited longest is dropped when full."""
        self.waiting.setdefault(item.question, item)
        while len(self.waiting) > self.capacity:
            self.waiting.pop(next(iter(self.waiting)))

    def solve(self, question: str) -> None:
        """It has been answered."""
        self.waiting.pop(question, None)

    def draw(self, count: int, generator: torch.Generator) -> list[Item]:
        """Up to ``count`` different questions, uniformly; they stay."""
        order = torch.randperm(len(self.waiting), generator=generator).tolist()[: max(count, 0)]
        waiting = list(self.waiting.values())
        return [waiting[number] for number in order]
