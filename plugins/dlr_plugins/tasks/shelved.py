"""Questions out of a file, each on the shelf of its split."""

from collections.abc import Mapping
from typing import Any

from dlr_core.errors import DataError
from dlr_core.records import Item
from dlr_core.splits import Split, split_of


class Shelved:
    """What tasks that read all their questions at once have in common."""

    def __init__(self) -> None:
        self._items: dict[Split, list[Item]] = {"train": [], "validation": [], "test": []}

    def shelve(self, question: str, answer: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Put a question where its text belongs."""
        shelf = self._items[split_of(question)]
        shelf.append(Item(question, answer, len(shelf), metadata or {}))

    def size(self, split: Split) -> int:
        """Questions in a split."""
        return len(self._items[split])

    def item(self, split: Split, index: int) -> Item:
        """Question ``index`` (wrapping around) of a split.

        Raises:
            DataError: the split is empty.
        """
        shelf = self._items[split]
        if not shelf:
            raise DataError(f"the data has no {split} question (the split is by content: about one in five)")
        return shelf[index % len(shelf)]

    def gold_text(self, item: Item) -> str:
        """The completion that `likelihood` is taught."""
        return f" {item.answer}"
