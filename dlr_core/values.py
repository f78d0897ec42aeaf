"""What no setting may hold, wherever it stands: numbers nobody can count with, text that is none, endless nesting."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from dlr_core.errors import shown

LARGEST = 2**53
"""Whole numbers up to here are exact as floating-point numbers too."""
DEPTH = 16


def unusable(value: Any, path: str = "", depth: int = 0) -> Iterator[str]:
    """One line for every such value inside a tree of tables and lists, with its path."""
    if depth > DEPTH:
        yield f"{path[:80]}…: nested more than {DEPTH} deep"
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from unusable(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for number, inner in enumerate(value):
            yield from unusable(inner, f"{path}.{number}", depth + 1)
    elif isinstance(value, str):
        if not is_text(value):
            yield f"{path}: expected text, got {shown(value)}"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path}: expected a finite number, got {value}"
    elif isinstance(value, int) and abs(value) > LARGEST:
        yield f"{path}: expected a number within ±2**53, got {shown(value)}"


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8 and named to the system: no half of a surrogate pair, no NUL."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
