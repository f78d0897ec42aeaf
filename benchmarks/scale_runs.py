"""Runs of one, two and four ranks, and what the model on paper says of them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from machine import machine, memory_speed, product_speed
from scale_device import Device
from scale_methods import SINGLE, assistant_flops, gathered, ours
from scale_shapes import SMALL, Learner
from scale_step import Work

LEARNER = Learner()
KEPT = ("seconds", "reduced_bytes", "gathered_bytes", "main_flops", "assistant_flops", "prefilled", "decoded", "scored",
        "backpropagated", "logits", "decodes", "search_decodes", "correct", "replay_nll")  # fmt: skip
"""Of a row of metrics.jsonl."""
QUESTIONS, CHAINS, SEARCH, FRESH, TRIES, REPLAY, UPDATES = 4, 8, 16, 8, 4, 32, 2
"""Of the default run."""
LOOPS, LIMIT = 3, 8
"""``dlr/ChainSum-v0``: the search decodes new questions, then old ones under two openings; tokens of a completion."""
LOOPBACK = 1e9
"""Bytes per second between ranks of this machine, assumed: the 15 MB of a step take a hundredth of it at this speed."""
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
        started = [sys.executable, "-m", "dlr_cli.app", *command]
        done = subprocess.run(started, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"dlr {' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][1:]
        manifest = json.loads((out / "manifest.json").read_text())
        kept = [{key: row[key] for key in KEPT if key in row} for row in rows]
        load = round(os.getloadavg()[0], 1)
        result["runs"].append({"ranks": count, "load": load, "parameters": manifest["parameters"], "steps": kept})
        print(f"{count} ranks: {median(row['seconds'] for row in rows):.2f} s a step, load {load}", flush=True)
    return result


def updates(row: Mapping[str, Any]) -> int:
    """Updates of a step: one, and with something to replay the others."""
    return UPDATES if "replay_nll" in row else 1


def main_flops(row: Mapping[str, Any]) -> int:
    """FLOPs of the positions that a step has counted."""
    positions = sum(int(row[key]) for key in ("prefilled", "decoded", "scored", "backpropagated"))
    return 2 * (positions * SMALL.matrices + int(row["logits"]) * SMALL.head)


def reduced(row: Mapping[str, Any]) -> int:
    """Bytes of gradients: four a parameter and update."""
    return SINGLE * LEARNER.trained(SMALL) * updates(row)


def states(row: Mapping[str, Any]) -> float:
    """Positions of the step's widest question, from what was gathered: a whole number if the formula is right."""
    work = Work(questions=QUESTIONS, chains=CHAINS)
    rest = gathered(SMALL, LEARNER, work, 0)
    return (float(row["gathered_bytes"]) - rest) / (gathered(SMALL, LEARNER, work, 1) - rest)


def work_of(result: Mapping[str, Any]) -> Work:
    """What the run on one rank did in a mean step; how wide its questions are, from one on several."""
    (alone,) = (run for run in result["runs"] if run["ranks"] == 1)
    several = [states(row) for run in result["runs"] if run["ranks"] > 1 for row in run["steps"]]
    rows = alone["steps"]
    right = mean(row["correct"] for row in rows)
    taught = right * QUESTIONS * CHAINS + UPDATES * REPLAY
    return Work(
        questions=QUESTIONS, chains=CHAINS,
        prompt=mean(several) if several else 64,
        own=mean(row["prefilled"] for row in rows) / (QUESTIONS + FRESH),
        completion=sum(row["decoded"] for row in rows) / sum(row["decodes"] + row["search_decodes"] for row in rows),
        longest=LIMIT,
        search=SEARCH, fresh=FRESH, tries=TRIES, loops=LOOPS, replay=REPLAY, updates=UPDATES,
        right=right,
        lesson=mean(row["scored"] for row in rows) / taught,
    )  # fmt: skip


def device_of(result: Mapping[str, Any]) -> Device:
    """One core of the machine, at the speeds measured before the runs."""
    return Device(
        "core", result["flops"], result["flops"], result["memory"], LOOPBACK, LOOPBACK, 64, SINGLE, CPU_POSITIONS
    )


def on_core(result: Mapping[str, Any], ranks: int) -> float:
    """Seconds of a step by the roofline, where ranks take turns on the machine's cores."""
    core = device_of(result)
    step = ours(SMALL, LEARNER, work_of(result), ranks, core.number, core.positions)
    return step.seconds(core.shared_by(ranks, result["cores"]), ranks)


def predicted(result: Mapping[str, Any]) -> dict[int, float]:
    """Seconds of a step by the number of ranks: the roofline's, times one factor that fits the run on one rank."""
    factor = seconds(result, 1) / on_core(result, 1)
    return {run["ranks"]: factor * on_core(result, run["ranks"]) for run in result["runs"]}


def seconds(result: Mapping[str, Any], ranks: int) -> float:
    """Median of a run's steps."""
    (run,) = (run for run in result["runs"] if run["ranks"] == ranks)
    return float(median(row["seconds"] for row in run["steps"]))


def assistant_share(result: Mapping[str, Any]) -> float:
    """The assistant's FLOPs on paper over those that the run on one rank counted."""
    (alone,) = (run for run in result["runs"] if run["ranks"] == 1)
    counted = float(mean(row["assistant_flops"] for row in alone["steps"]))
    return assistant_flops(SMALL, LEARNER, work_of(result)) / counted
