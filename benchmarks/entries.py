"""What is kept of the benchmarks: results.json, one object each."""

import json
import math
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interleaved import Ratio
from machine import machine

from dlr_core.durable import write_whole

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class About:
    """What an entry's ratio is, and what is aimed at."""

    script: str
    meaning: str
    goal: float


ABOUT = {
    "decode_k8_p200": About(
        "decode.py",
        "completions/s of the vector environment ÷ `model.generate`: 8 chains of one new 200-token prompt, 8 tokens",
        5.0,
    ),
    "decode_roofline_b64": About(
        "roofline.py",
        "seconds of a decoding step's matrix products and cache reads, measured alone ÷ seconds of the step, 64 rows",
        0.7,
    ),
    "env_overhead": About("overhead.py", "seconds in the main model's forward passes ÷ seconds of `step`", 0.97),
    "step_overlap": About(
        "overlap.py",
        "seconds of a training step that judges and then goes on ÷ one that judges beside the main model",
        1.0,
    ),
    "sb3_adapter_n32": About("sb3_adapter.py", "steps/s of `SB3VecEnv` ÷ `DummyVecEnv`, 32 sub-environments", 10.0),
    "memory_vs_grpo": About("memory.py", "peak memory of TRL's full GRPO ÷ ours with full stores, same batch", 3.0),
    "learn_vs_grpo": About(
        "learning.py", "TRL's training time ÷ our time to the accuracy that its better setting ends with", 3.0
    ),
    "filter_total_cost": About(
        "filter_cost.py",
        "FLOPs to a target accuracy, decoding all 16 chains ÷ decoding the 3 that the scorer keeps",
        1.0,
    ),
    "start_up": About("start_up.py", "`python -c 'import torch, transformers'` ÷ `dlr list`", 1.0),
}
"""Every benchmark, in the order in which they are run and shown."""


def record(name: str, found: Ratio, measured: Mapping[str, Any], folder: Path = HERE) -> dict[str, Any]:
    """Put one benchmark's object into results.json; the others stay as they are.

    Args:
        name: one of :data:`ABOUT`.
        found: the ratio with its spread.
        measured: what it was computed from, JSON-ready.
        folder: where results.json is; made if it is not there.

    Raises:
        KeyError: no such benchmark.
        ValueError: a figure that is not finite.
    """
    if name not in ABOUT:
        raise KeyError(f"no benchmark named {name!r}; known: {', '.join(ABOUT)}")
    numbers = asdict(found)
    if not all(math.isfinite(value) for value in numbers.values()):
        raise ValueError(f"{name}: expected finite figures, got {numbers}")
    entry = {
        "name": name,
        **numbers,
        "command": command(),
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "measured": dict(measured),
    }
    known = {**read(folder), name: entry}
    path = folder / "results.json"
    ordered = {key: known[key] for key in ABOUT if key in known}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, text(ordered))
    return entry


def text(known: Mapping[str, Mapping[str, Any]]) -> str:
    """Entries as JSON, one line a value, so that versions can be compared."""

    def block(values: Mapping[str, Any], depth: int) -> str:
        lines = []
        for key, value in values.items():
            nested = depth < 2 and isinstance(value, Mapping)
            shown = block(value, depth + 1) if nested else json.dumps(value, allow_nan=False)
            lines.append(" " * (depth + 1) + f"{json.dumps(key)}: {shown}")
        return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"

    return block(known, 0) + "\n"


def read(folder: Path = HERE) -> dict[str, dict[str, Any]]:
    """results.json; empty if there is none."""
    path = folder / "results.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def command() -> str:
    """The command line that this process was started with, from the root of the repository."""
    given = [argument.replace(f"{HERE.parent}/", "") for argument in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *given])
