"""A task whose prompts are as long as wanted, and which calls a fixed share of completions right.

What is right decides how much there is to learn from in a step. An untrained policy is right so seldom, and so
irregularly, that its steps would not compare.
"""

import random
from zlib import crc32

from pydantic import BaseModel

from dlr_core import API_VERSION, hookimpl
from dlr_core.protocols import EnvSpec
from dlr_core.records import Item, Verdict

RIGHT = 0.4
"""Share of the completions, as in the middle of a default run."""
SIZE = 4096
FILLER = ("one", "red", "sun", "day", "dog", "tree", "book", "hand")
"""Words of one token each. Every question has its own: what all prompts begin with is prefilled once for all."""
FEW = 8
"""Questions that there are while a run is put together: it calibrates on all, up to 128, which no step does again."""


class GrowthTask:
    """Sums, with words before them."""

    class Options(BaseModel):
        """None."""

    def __init__(self, options: Options) -> None:
        self.words, self.available = 0, FEW

    def size(self, split: str) -> int:
        """Questions of a split."""
        return self.available

    def item(self, split: str, index: int) -> Item:
        """A question: all of equally many words, other ones before each."""
        first, second = 10 + index % 64, 10 + index // 64 % 64
        text = f"State the final answer to the following arithmetic problem: {first} + {second} ="
        words = "".join(f" {word}" for word in random.Random(index).choices(FILLER, k=self.words))
        return Item(words + " " * bool(words) + text, str(first + second), index)

    def gold_text(self, item: Item) -> str:
        """A right answer."""
        return f" {item.answer}"

    def score(self, item: Item, completion: str, ended: bool) -> Verdict:
        """Right in a fixed share of cases, which the text alone decides."""
        right = crc32(f"{item.index} {completion}".encode()) < RIGHT * 2**32
        return Verdict(completion, float(right), 1.0)


class GrowthPlugin:
    """Registers the task, and an environment like the default one."""

    DLR_API_VERSION = API_VERSION

    @hookimpl
    def dlr_register_task(self, register):  # type: ignore[no-untyped-def]
        """The task."""
        register("growth", GrowthTask)

    @hookimpl
    def dlr_register_env(self, register):  # type: ignore[no-untyped-def]
        """Eight tokens a completion, and two openings of the search."""
        register("dlr/Growth-v0", lambda: EnvSpec("growth", {}, 8, openings=("", " -")))
