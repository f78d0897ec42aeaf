"""The errors a caller can cause, and the wording they share."""

from collections.abc import Iterable
from difflib import get_close_matches


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


class DamageWarning(UserWarning):
    """Something was damaged, and what is older and intact is used instead."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """One line that says a name is unknown and offers the nearest valid one."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"
    return f"no {what} named {name!r}; {hint}"
