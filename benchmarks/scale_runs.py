"""Short runs on several ranks: what they sent and computed, and the CPU time that they took."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from machine import machine, memory_speed, product_speed
from scale_shapes import Learner

LEARNER = Learner()
KEPT = ("seconds", "reduced_bytes", "gathered_bytes", "main_flops", "assistant_flops", "prefilled", "decoded", "scored",
        "backpropagated", "logits", "decodes", "search_decodes", "correct", "replay_nll")  # fmt: skip
"""Of a row of metrics.jsonl."""
QUESTIONS, CHAINS, SEARCH, FRESH, TRIES, REPLAY, UPDATES = 4, 8, 16, 8, 8, 32, 2
"""Of the default run."""
LOOPS, LIMIT = 1, 8
"""Batches of the search; tokens of a completion in ``dlr/ChainSum-v0``."""
LOOPBACK = 1e9
"""Bytes per second between ranks of this machine, assumed: the 15 MB of a step take a hundredth of it at this speed."""
TICK = 0.05
"""Seconds between two looks at a run."""
CPU_POSITIONS = 256
"""Positions scored in one pass on a CPU."""
SQUARE = 1024


def measure(ranks: Sequence[int], steps: int, room: Path) -> dict[str, Any]:
    """The default run on each number of ranks, one thread a rank; every step but the first, which warms up.

    Args:
        ranks: numbers of them.
        steps: of each run.
        room: a folder for the runs.

    Raises:
        RuntimeError: a run fails.
    """
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "machine": machine(),
        "cores": os.cpu_count(),
        "flops": product_speed(SQUARE),
        "memory": memory_speed(),
        "runs": [],
    }
    for count in ranks:
        out = room / f"ranks{count}"
        command = ["run", "--ranks", str(count), "--steps", str(steps), "--set", f"batch.questions={QUESTIONS}",
                   "--set", "eval.questions=0", "--out", str(out), "--overwrite"]  # fmt: skip
        spent = watched(command, out / "metrics.jsonl", room / f"said{count}")
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        manifest = json.loads((out / "manifest.json").read_text())
        kept = [{key: row[key] for key in KEPT if key in row} for row in rows[1:]]
        for row, before, after in zip(kept, spent, spent[1:], strict=False):
            row["cpu_seconds"] = after - before
        load = round(os.getloadavg()[0], 1)
        result["runs"].append({"ranks": count, "load": load, "parameters": manifest["parameters"], "steps": kept})
        took = " and ".join(
            f"{median(row[key] for row in kept if key in row):.2f} {key}" for key in ("seconds", "cpu_seconds")
        )
        print(f"{count} ranks: {took} a step, load {load}", flush=True)
    return result


def watched(command: Sequence[str], metrics: Path, said: Path) -> list[float]:
    """CPU seconds that all processes of a run had taken when it wrote each of its rows.

    Args:
        command: ``dlr``'s arguments.
        metrics: where it writes a row a step.
        said: a file for what it says.

    Raises:
        RuntimeError: it fails.
    """
    spent: list[float] = []
    with said.open("w+") as told:
        started = [sys.executable, "-m", "dlr_cli.app", *command]
        process = psutil.Popen(started, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=told, stderr=told)
        while process.poll() is None:
            if metrics.is_file() and metrics.read_bytes().count(b"\n") > len(spent):
                spent.append(taken(process))
            time.sleep(TICK)
    if process.returncode:
        raise RuntimeError(f"dlr {' '.join(command)}: exit code {process.returncode}\n{said.read_text()[-2000:]}")
    return spent


def taken(process: psutil.Process) -> float:
    """CPU seconds of a process and all that it has started and that still run."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            total += times.user + times.system
    return total
