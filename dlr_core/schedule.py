"""When training ends, and how its learning rates rise and fall until then."""

import time
from dataclasses import dataclass

from dlr_core.settings import OptimSettings

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""What a limit in minutes is counted by; readings in seconds."""


@dataclass(frozen=True)
class Schedule:
    """A limit on steps, on training time, or on both; whichever comes first ends the run."""

    optim: OptimSettings
    steps: int | None
    minutes: float | None

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is done, by whichever limit is nearer: rates must have fallen when a run ends."""
        by_steps = 0.0 if self.steps is None else step / max(self.steps, 1)
        by_clock = 0.0 if self.minutes is None else seconds / (60.0 * self.minutes)
        return max(by_steps, by_clock)

    def over(self, step: int, seconds: float) -> bool:
        """Whether a limit has been reached."""
        out_of_time = self.minutes is not None and seconds >= 60.0 * self.minutes
        return out_of_time or (self.steps is not None and step >= self.steps)

    def rate(self, step: int, progress: float) -> float:
        """Factor of every learning rate: up from nothing over ``optim.warmup`` steps, down to a tenth at the end."""
        rise = min(1.0, (step + 1) / max(self.optim.warmup, 1))
        left = (1.0 - progress) / self.optim.decay if self.optim.decay else 1.0
        return rise * max(0.1, min(1.0, left))
