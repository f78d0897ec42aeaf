"""A small table, for the terminal and for the page."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """Headings, and rows of texts."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def print(self) -> None:
        """On the terminal."""
        table = Table(*self.head)
        for row in self.rows:
            table.add_row(*row)
        Console(width=120).print(table, highlight=False)

    def markdown(self) -> str:
        """For the page."""
        lines = ["| " + " | ".join(self.head) + " |", "|---" * len(self.head) + "|"]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows)])


def difference(points: float, interval: tuple[float, float]) -> str:
    """A difference with its interval, signed."""
    low, high = interval
    return f"{points:+.1f} [{low:+.1f}, {high:+.1f}]"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, least and most."""
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} … {max(values):.{digits}f})"
