"""Live progress of a run: a panel on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

PLAIN_SECONDS = 15.0
SHARES = ("reward", "correct", "format", "gold_nll")


class RunProgress:
    """Shows step, reward, correct, format, tokens/s and time left."""

    def __init__(self, console: Console, *, steps: int | None, minutes: float | None, done: int = 0) -> None:
        self.console, self.steps, self.minutes = console, steps, minutes
        self.live = console.is_terminal
        self._last = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TextColumn("{task.fields[line]}", markup=False),
            console=console, disable=not self.live, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("training", total=1.0, line="")
        self._smooth: dict[str, float] = {}
        self._done = done

    def __enter__(self) -> "RunProgress":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, metrics: Mapping[str, Any], seconds: float) -> None:
        """Show one step; ``seconds`` is training time so far."""
        for key in (*SHARES, "seconds", "tokens"):
            value = metrics.get(key)
            if value is not None:
                self._smooth[key] = 0.8 * self._smooth.get(key, value) + 0.2 * value
        shown = self._smooth
        left = self._left(metrics["step"], seconds)
        shares = "  ".join(f"{key} {shown[key]:.2f}" for key in SHARES if key in shown)
        rate = shown.get("tokens", 0.0) / max(shown["seconds"], 1e-9)
        speed = f"{rate:.0f} tokens/s  " if rate else ""
        line = f"{metrics['phase']} step {metrics['step']}  {shares}  {speed}{left / 60:.1f} min left"
        share = seconds / max(seconds + left, 1e-9)
        self._progress.update(self._task, completed=share, line=line)
        if not self.live and (time.monotonic() - self._last > PLAIN_SECONDS or metrics["step"] == self._done + 1):
            self._last = time.monotonic()
            self.console.print(line, highlight=False)

    def _left(self, step: int, seconds: float) -> float:
        """Seconds left by whichever limit comes first."""
        limits = []
        if self.steps is not None:
            limits.append((self.steps - step) * self._smooth["seconds"])
        if self.minutes is not None:
            limits.append(60.0 * self.minutes - seconds)
        return max(0.0, min(limits))
