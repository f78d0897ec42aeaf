"""A run's loggers, held so that none of them can harm it."""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

from dlr_core.errors import DLRError, PluginError, kind_and_line
from dlr_core.host import PluginHost
from dlr_core.plain import plain
from dlr_core.protocols import Logger, RunInfo, RunSummary
from dlr_core.settings import Component

Warn = Callable[[str], None]


class Loggers:
    """Tells every logger of a run, in their order; one that raises is left out from then on.

    Each is given copies, so none changes what is logged or what another one sees. What they print goes to stderr: a
    run's stdout belongs to its table.

    Attributes:
        failed: loggers that were left out, and why (one line), for the manifest.
    """

    def __init__(self, parts: Sequence[tuple[str, Logger]], warn: Warn) -> None:
        self._parts, self._warn = list(parts), warn
        self.failed: dict[str, str] = {}

    @classmethod
    def build(cls, chosen: Sequence[Component], host: PluginHost, warn: Warn) -> "Loggers":
        """Make the chosen ones. Call this before anything slow: a logger that cannot be made refuses the run.

        Raises:
            PluginError: one cannot be made.
        """
        parts = []
        for component in chosen:
            try:
                parts.append((component.name, host.create("logger", component.name, component.options)))
            except DLRError:
                raise
            except Exception as error:
                raise PluginError(f"logger {component.name!r} cannot be made: {_line(error)}") from error
        return cls(parts, warn)

    def begin(self, run: RunInfo) -> None:
        """Training is about to begin."""
        self._tell("before the first step", lambda part: part.begin(copy.deepcopy(run)))

    def step(self, metrics: Mapping[str, Any]) -> str | None:
        """One step was trained.

        Returns:
            None, or which logger wants the run to stop, and why.
        """
        wishes = self._tell(f"in step {metrics['step']}", lambda part: part.step(copy.deepcopy(dict(metrics))))
        return next((f"{name}: {reason}" for name, reason in wishes if reason), None)

    def end(self, summary: RunSummary) -> None:
        """The run has ended."""
        self._tell("at the end", lambda part: part.end(copy.deepcopy(summary)))
        self._parts.clear()

    def _tell(self, when: str, call: Callable[[Logger], Any]) -> list[tuple[str, Any]]:
        """What each answers. One that raises is warned of, and dropped."""
        answers, kept = [], []
        for name, part in self._parts:
            try:
                with redirect_stdout(sys.stderr):
                    answers.append((name, call(part)))
            except Exception as error:  # a stranger's logger may raise anything, and hours of training must survive it
                self.failed[name] = f"{when}: {_line(error)}"
                self._warn(f"logger {name!r} failed {self.failed[name]}; the run goes on without it")
            else:
                kept.append((name, part))
        self._parts = kept
        return answers


def _line(error: Exception) -> str:
    """An error in one line."""
    return plain(kind_and_line(error))
