"""Reading a JSONL file of objects, with errors that name the line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlr_core.errors import DataError


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of every line that is not blank.

    Raises:
        DataError: no such file, not UTF-8, or a line that is no JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read task.path {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not JSON: {getattr(error, 'msg', error)}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected an object, got {type(row).__name__}")
        yield number, row
