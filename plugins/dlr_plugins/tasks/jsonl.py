"""Reading a JSONL file of objects, with errors that name the line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlr_core.errors import DataError
from dlr_core.values import is_text

LONGEST = 1_000_000
"""Characters of a line: no main model reads a longer question."""


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of every line that is not blank.

    Raises:
        DataError: no such file, not UTF-8, a line that is too long, no JSON object, or holds what is no text.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), ""), 1):
                if len(line) > LONGEST:
                    raise DataError(f"{path}:{number}: expected lines of at most {LONGEST} characters")
                if line.strip():
                    yield number, _object(line, f"{path}:{number}")
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read task.path {path}: {error}") from None


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError: also a number without end
        raise DataError(f"{where}: not JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, got {type(row).__name__}")
    if "\\u" in line and not is_text(json.dumps(row, ensure_ascii=False)):
        raise DataError(f"{where}: half of a surrogate pair is no text")
    return row
