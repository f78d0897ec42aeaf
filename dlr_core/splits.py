"""Train, validation and test, told apart by what a question says and never by a seed.

Procedural generators repeat themselves: reasoning-gym draws item ``i`` from ``Random(seed + i)``, so one seed is
another one shifted, and small generators have few distinct questions. The split is therefore a function of the text.
"""

from hashlib import blake2b
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def normalise(question: str) -> str:
    """Case-folded text with single spaces: two questions that differ only in layout are the same question."""
    return " ".join(question.casefold().split())


def split_of(question: str) -> Split:
    """The split a question belongs to: test iff blake2b(normalised text) mod 5 is 0, validation iff it is 1."""
    bucket = int.from_bytes(blake2b(normalise(question).encode()).digest(), "big") % 5
    if bucket == 0:
        return "test"
    return "validation" if bucket == 1 else "train"
