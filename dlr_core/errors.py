"""The errors a caller can cause, and the wording they share."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class DLRError(Exception):
    """Root of every error this project raises on purpose; its text is one line fit for a terminal."""


class ConfigError(DLRError, ValueError):
    """A setting, option or argument has a wrong value.

    Attributes:
        problems: every problem found, one line each.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class ArgumentError(ConfigError, TypeError):
    """A keyword argument that there is not: to Python's callers, and those who look for its words, a TypeError."""


class PluginError(DLRError, RuntimeError):
    """A plugin broke its contract: bad registration, a name clash, or a bad return value."""


class ModelError(DLRError, RuntimeError):
    """A main model could not be had or loaded, or is not the one that was expected."""


class DataError(DLRError, ValueError):
    """Task data is missing or malformed."""


class ActionError(DLRError, ValueError):
    """An action has the wrong shape, or is not finite."""


class RunFolderError(DLRError, OSError):
    """A run folder is missing, taken, or damaged."""


class DivergedError(DLRError, ArithmeticError):
    """Training has no finite loss or gradient any more."""


class RankError(DLRError, RuntimeError):
    """One of several ranks has failed or ended, and the others cannot go on without it.

    Attributes:
        told: another process tells the user; this one has nothing to print.
    """

    exit_code = 3
    """Of a process that ends with it, so that whoever watches it looks for the reason elsewhere."""

    def __init__(self, message: str, *, told: bool = False) -> None:
        self.told = told
        super().__init__(message)


class DLRWarning(UserWarning):
    """A warning of this project's own: one line on the command line's stderr, like its errors."""


class DamageWarning(DLRWarning):
    """Something was damaged, and what is older and intact is used instead."""


class RoomWarning(DLRWarning):
    """There was no room for what is kept to save time: it is made again when it is needed."""


def first_line(error: BaseException) -> str:
    """What an error says, in a line: its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def kind_and_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says, for errors that nobody foresaw."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"


def shown(value: Any, limit: int = 80) -> str:
    """A value as a message shows it: its repr, the middle left out where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; endless nesting
        return f"<{type(value).__name__}>"
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """One line that says a name is unknown and offers the nearest valid one."""
    names = sorted(known)
    folded = {other.casefold(): other for other in reversed(names)}
    close = get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    hint = f"did you mean {folded[close[0]]!r}?" if close else f"known: {', '.join(names) or 'none'}"
    return f"no {what} named {shown(name)}; {hint}"
