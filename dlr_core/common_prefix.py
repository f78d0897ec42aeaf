"""What token sequences begin with."""

from collections.abc import Sequence


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens all rows share."""
    columns = zip(*rows, strict=False)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), min(map(len, rows)))
