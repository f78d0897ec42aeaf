"""An end to runs that have stopped getting better."""

from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dlr_core.errors import ConfigError, unknown_name
from dlr_core.protocols import RunInfo, RunSummary


class EarlyStop:
    """Stops the run when a metric's running mean has not improved for some steps."""

    class Options(BaseModel):
        """Settings of ``early-stop``."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        metric: str = Field("reward", description="A key of metrics.jsonl.")
        mode: Literal["max", "min"] = Field("max", description="Whether more or less of it is better.")
        patience: int = Field(30, ge=1, description="Steps without improvement after which the run stops.")
        window: int = Field(
            10,
            ge=1,
            description="Steps whose mean is judged: a step has few questions, and a lucky one would never be beaten.",
        )

    def __init__(self, options: Options) -> None:
        self.options = options
        self._recent: deque[float] = deque(maxlen=options.window)
        self._best: tuple[float, int] | None = None
        self._unseen = 0

    def begin(self, run: RunInfo) -> None:
        """Take the steps of a resumed run into account, as if it had never been interrupted."""
        for metrics in run.earlier:
            self._take(metrics)

    def step(self, metrics: Mapping[str, Any]) -> str | None:
        """The reason to stop, once there is one.

        Raises:
            ConfigError: no step so far has had the metric.
        """
        self._take(metrics)
        chosen, number = self.options, int(metrics["step"])
        if self._unseen >= chosen.patience:
            numbers = [key for key, value in metrics.items() if isinstance(value, int | float)]
            raise ConfigError(f"{unknown_name('metric', chosen.metric, numbers)} (waited {self._unseen} steps)")
        if self._best is None or number - self._best[1] < chosen.patience:
            return None
        best, at = self._best
        return f"{chosen.metric} has not improved for {number - at} steps (best mean {best:.4g} at step {at})"

    def _take(self, metrics: Mapping[str, Any]) -> None:
        """Count one step. A warm start is none: it has other figures, or none."""
        if metrics.get("phase") == "warmstart":
            return
        value = metrics.get(self.options.metric)
        if value is None:
            self._unseen += not self._recent
            return
        self._unseen = 0
        self._recent.append(float(value))
        if len(self._recent) < self.options.window:
            return
        mean = sum(self._recent) / len(self._recent)
        sign = 1 if self.options.mode == "max" else -1
        if self._best is None or sign * mean > sign * self._best[0]:
            self._best = mean, int(metrics["step"])

    def end(self, summary: RunSummary) -> None:
        """Nothing is kept."""
