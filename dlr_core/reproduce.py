"""Is a run what its settings and its seed make of it again? Metric by metric, bit by bit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dlr_core.config import RunConfig
from dlr_core.errors import ConfigError, RunFolderError
from dlr_core.saved import TimedStep, read_rows
from dlr_core.schedule import Schedule

CLOCK = ("seconds", "progress")
"""What the clock has a part in."""
ABSENT = "(absent)"


@dataclass(frozen=True)
class Difference:
    """Where two runs part."""

    step: int
    metric: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"step {self.step}, {self.metric}: was {self.was}, is {self.now}"


def first_difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> Difference | None:
    """The first metric, in the order of logging, in which two rows of metrics.jsonl differ; times left out."""
    again = json.loads(json.dumps({key: value for key, value in now.items() if key != "phases"}))
    for key in dict.fromkeys([*was, *again]):
        if key not in CLOCK and json.dumps(was.get(key, ABSENT)) != json.dumps(again.get(key, ABSENT)):
            return Difference(int(was["step"]), key, was.get(key, ABSENT), again.get(key, ABSENT))
    return None


def logged_steps(run: Path, asked: int | None) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl that are to be made again.

    Raises:
        RunFolderError: there are none, or not one for every step.
        ConfigError: more are asked for.
    """
    rows = read_rows(TimedStep, run / "metrics.jsonl")
    if not rows or [row.get("step") for row in rows] != list(range(1, len(rows) + 1)):
        raise RunFolderError(f"{run}: expected metrics of step 1, 2, …, got {len(rows)} rows")
    if asked is not None and not 1 <= asked <= len(rows):
        raise ConfigError(f"--steps: expected 1 to {len(rows)}, which {run} has made, got {asked}")
    return rows[: asked or len(rows)]


def logged_progress(config: RunConfig, rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The share of the run that was done before each step, which the learning rates follow.

    Where minutes are the nearer limit, that is a reading of the clock; it is logged, and given back to the run that is
    made again. Runs from before it was logged went by steps where those were limited, else by the sum of the seconds.
    """
    steps = None if config.steps is None else config.steps + config.warmstart.steps
    schedule, seconds, found = Schedule(config.optim, steps, config.minutes if steps is None else None), 0.0, []
    for number, row in enumerate(rows):
        found.append(row["progress"] if "progress" in row else schedule.progress(number, seconds))
        seconds += row["seconds"]
    return found


def different_weight(was: Path, now: Path) -> str | None:
    """The first tensor in which two checkpoints' weights differ; None if none does.

    Raises:
        RunFolderError: one of them cannot be read.
    """
    try:
        old, new = (load_file(path / "weights.safetensors") for path in (was, now))
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"cannot compare {was} with {now}: {error}") from None
    for name in sorted({*old, *new}):
        if name not in old or name not in new or not torch.equal(old[name], new[name]):
            return name
    return None
