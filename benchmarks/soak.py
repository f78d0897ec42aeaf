"""A long run and ten thousand episodes: does memory grow, does a file, a thread or a process stay behind?

    python benchmarks/soak.py --minutes 30

A run of the command line on a tiny random model for so many minutes, then episodes on the vector environment, all in
this process. Resident memory is sampled on the way; its slope is that of a line through the second half of the samples,
when everything that is made once has been made. Open files, threads and child processes are counted before and after.
Writes benchmarks/soak.json.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from documented import DOCS, document

RESULT = Path(__file__).resolve().with_name("soak.json")
MEGABYTE = 2**20
ENVS = 16


class Gauge:
    """What this process holds."""

    def __init__(self) -> None:
        self.process, self.samples = psutil.Process(), list[tuple[float, float]]()

    def counts(self) -> dict[str, int]:
        """Open files (descriptors), threads, child processes."""
        gc.collect()
        children = len(self.process.children(recursive=True))
        return {"files": self.process.num_fds(), "threads": threading.active_count(), "children": children}

    def sample(self, at: float) -> None:
        """Note the resident memory."""
        self.samples.append((at, self.process.memory_info().rss / MEGABYTE))

    def slope(self) -> float:
        """Megabytes per unit of what samples are taken at, over their second half."""
        at, memory = np.array(self.samples[len(self.samples) // 2 :]).T
        return float(np.polyfit(at, memory, 1)[0]) if len(at) > 2 else 0.0

    def report(self) -> dict[str, float]:
        """Resident memory at the first sample, half way, at the last, and at its highest."""
        memory = [value for _, value in self.samples]
        return {"first": memory[0], "half": memory[len(memory) // 2], "last": memory[-1], "highest": max(memory)}


def sampled(gauge: Gauge, seconds: float, work: Callable[[], None]) -> None:
    """Do work, and sample the memory every so many seconds meanwhile."""
    began, over = time.monotonic(), threading.Event()

    def watch() -> None:
        while not over.wait(seconds):
            gauge.sample((time.monotonic() - began) / 60)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        over.set()
        thread.join()


def train(model: Path, out: Path, minutes: float) -> dict[str, Any]:
    """A run of so many minutes; what it held before and after, and how its memory went, per minute."""
    from dlr_cli.app import run_program

    small = {"task.pool": 64, "decoder.max_new_tokens": 6, "space.num_latents": 4, "space.latent_dim": 8,
             "assistant.width": 32, "assistant.layers": 1, "batch.questions": 4, "batch.samples": 4,
             "eval.questions": 16,
             "checkpoint.every": 10, "replay.capacity": 64, "replay.frontier": 16}  # fmt: skip
    flags = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    command = ["run", "--main-model", str(model), "--out", str(out), "--overwrite", "--json", *flags]

    def work(limit: list[str]) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run_program([*command, *limit])

    work(["--steps", "3"])  # whatever is made once is made now
    gauge = Gauge()
    before = gauge.counts()
    sampled(gauge, max(0.2, 60 * minutes / 200), lambda: work(["--minutes", str(minutes)]))
    after = gauge.counts()
    steps = len((out / "metrics.jsonl").read_text().splitlines())
    return {"minutes": minutes, "steps": steps, "before": before, "after": after, "memory_mb": gauge.report(),
            "slope_mb_per_minute": gauge.slope()}  # fmt: skip


def play(model: Path, episodes: int) -> dict[str, Any]:
    """So many episodes on the vector environment, one step each; memory per thousand of them."""
    import dlr_envs  # noqa: F401  (registers the ids)
    import gymnasium

    env: Any = gymnasium.make_vec(
        "dlr/ChainSum-v0", num_envs=ENVS, decoder=str(model), num_latents=4, latent_dim=8, max_new_tokens=6,
        task_kwargs={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2, "pool": 256},
    )  # fmt: skip
    rng = np.random.default_rng(0)

    def step() -> int:
        actions = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        return int(env.step(actions)[2].sum())

    env.reset(seed=0)
    for _ in range(5):
        step()
    gauge, played, next_sample = Gauge(), 0, 0
    before = gauge.counts()
    while played < episodes:
        if played >= next_sample:
            gauge.sample(played / 1000)
            next_sample += max(ENVS, episodes // 200)
        played += step()
    gauge.sample(played / 1000)
    after = gauge.counts()
    env.close()
    return {"episodes": played, "before": before, "after": after, "memory_mb": gauge.report(),
            "slope_mb_per_thousand": gauge.slope()}  # fmt: skip


def main() -> None:
    """Run, play, print, write; exit code 1 if something stayed behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    from dlr_core.testing.tiny import tiny_model

    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        model = tiny_model(room / "model")
        trained = train(model, room / "run", args.minutes)
        print(line("run", f"{trained['steps']} steps in {args.minutes:g} min", trained), flush=True)
        played = play(model, args.episodes)
        print(line("environment", f"{played['episodes']} episodes", played), flush=True)
    left = any(part["after"][key] > part["before"][key] for part in (trained, played) for key in part["before"])
    about = {"command": f"python benchmarks/soak.py --minutes {args.minutes:g} --episodes {args.episodes}",
             "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}"}  # fmt: skip
    result = {**about, "left_behind": left, "run": trained, "environment": played}
    args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.json.resolve() == RESULT:
        document(DOCS / "security.md", "soak", as_markdown(result))
    sys.exit(1 if left else 0)


def as_markdown(result: dict[str, Any]) -> str:
    """The result as docs/security.md has it."""
    head = "| | memory MB, half way → end | slope | files | threads | children |\n|---|---:|---:|---:|---:|---:|\n"
    rows = []
    for name, part, per in (
        (f"run of {result['run']['minutes']:g} min, {result['run']['steps']} steps", result["run"], "minute"),
        (f"{result['environment']['episodes']} episodes", result["environment"], "thousand"),
    ):
        memory = f"{part['memory_mb']['half']:.0f} → {part['memory_mb']['last']:.0f}"
        slope = f"{part[f'slope_mb_per_{per}']:+.3f} MB per {per}"
        held = [f"{part['before'][key]} → {part['after'][key]}" for key in ("files", "threads", "children")]
        rows.append("| " + " | ".join([name, memory, slope, *held]) + " |")
    return head + "\n".join(rows) + f"\n\nMade by `{result['command']}`."


def line(name: str, what: str, part: dict[str, Any]) -> str:
    """What a part showed, for people."""
    memory, slope = part["memory_mb"], next(f"{part[key]:+.3f} {key}" for key in part if key.startswith("slope"))
    held = ", ".join(f"{key} {part['before'][key]} → {part['after'][key]}" for key in part["before"])
    return f"{name}: {what}; memory {memory['first']:.0f} → {memory['last']:.0f} MB ({slope}); {held}"


if __name__ == "__main__":
    main()
