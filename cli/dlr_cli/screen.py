"""Where the program writes for people: text appears as it is, whoever it came from."""

import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text

from dlr_core.plain import one_line, plain

WIDTH = 132
"""Columns where there is no terminal to ask: the control table fits."""


class Screen(Console):
    """A console without markup, emoji codes or control sequences: what a model or a stranger's file says stays text."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)
        if not self.is_terminal:
            self.width = WIDTH

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string that is printed, in tables too, comes through here."""
        return super().render_str(plain(text), **options)

    def status(self, status: RenderableType, **options: Any) -> "Spoken":
        """A spinner beside a text."""
        return Spoken(status, console=self, **options)


class Spoken(Status):
    """A status whose text is no markup either."""

    def __init__(self, status: RenderableType, **options: Any) -> None:
        super().__init__(_text(status), **options)

    def update(self, status: RenderableType | None = None, **options: Any) -> None:
        """Show another text."""
        super().update(None if status is None else _text(status), **options)


def _text(status: RenderableType) -> RenderableType:
    return Text(one_line(status)) if isinstance(status, str) else status


def complain(kind: str, text: str) -> None:
    """One line on stderr: ``error: …`` or ``warning: …``."""
    print(f"{kind}: {one_line(text)}", file=sys.stderr)
