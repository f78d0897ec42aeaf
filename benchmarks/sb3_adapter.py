"""Stable-Baselines3 stepping through our adapter, against SB3's DummyVecEnv of single environments.

python benchmarks/sb3_adapter.py --json sb3_adapter.json

One process, one loaded model and one latent space for all, the same questions and the same actions; both sides take
turns, and every step of theirs is timed next to ours. An episode is one latent chain: a step decodes the current
question's and, as both restart ended episodes in the same step, prefills the next question. DummyVecEnv does both one
by one, the adapter in one batch. Completions that differ (near-ties of logits may) are counted and shown.

--shared N puts N consecutive sub-environments on one question, as learners that compare chains of a question do: the
adapter then prefills it once.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
import torch
from dlr_envs.sb3 import SB3VecEnv
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

ENV = "dlr/ChainSum-v0"
LATENTS = {"num_latents": 4, "latent_dim": 8, "space": {"name": "kv", "chart": "principal", "radius": 0.5}}


def both_sides(count: int, shared: int, decoder: Any) -> tuple[VecEnv, VecEnv]:
    """The adapter, and DummyVecEnv over as many single environments with the same model, space and questions."""
    ours = SB3VecEnv(gymnasium.make_vec(ENV, num_envs=count, decoder=decoder, **LATENTS))
    engine = ours.env.unwrapped.engine
    theirs = DummyVecEnv(
        [lambda: gymnasium.make(ENV, decoder=engine.decoder, space=engine.space, disable_env_checker=True)] * count
    )
    ours.set_options({"group_size": shared})
    for side in (ours, theirs):
        side._seeds = [number - number % shared for number in range(count)]  # a group draws the same questions
        side.reset()
    return ours, theirs


def timed(side: VecEnv, actions: np.ndarray) -> tuple[float, list[str]]:
    """Seconds of one step, and what was decoded."""
    start = time.perf_counter()
    *_, infos = side.step(actions)
    return time.perf_counter() - start, [info["completion"] for info in infos]


def interval(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """95 % percentile bootstrap of the ratio of medians, over turns: both sides' seconds of a turn stay together."""
    turns = np.random.default_rng(0).integers(0, len(ours), (4000, len(ours)))
    ratios = np.median(np.array(theirs)[turns], 1) / np.median(np.array(ours)[turns], 1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def machine() -> str:
    """What this ran on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = lines[0] if lines else name
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32], help="numbers of sub-environments")
    parser.add_argument("--repetitions", type=int, default=7, help="timed steps of each side, after one to warm up")
    parser.add_argument("--shared", type=int, default=1, help="consecutive sub-environments on one question")
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args()

    console, results = Console(), []
    table = Table("envs", "adapter s", "DummyVecEnv s", "ratio", "95 %", "same text")
    decoder: Any = args.main_model
    with Progress(console=console) as progress:
        work = progress.add_task("stepping", total=len(args.sizes) * (1 + args.repetitions) * 2)
        for count in args.sizes:
            ours, theirs = both_sides(count, args.shared, decoder)
            decoder = ours.env.unwrapped.engine.decoder
            rng = np.random.default_rng(count)
            seconds: tuple[list[float], list[float]] = ([], [])
            same = []
            for turn in range(1 + args.repetitions):
                actions = rng.uniform(-0.3, 0.3, (count, *ours.action_space.shape)).astype(np.float32)
                order = (0, 1) if turn % 2 else (1, 0)  # neither side is always the first
                texts: dict[int, list[str]] = {}
                for side in order:
                    spent, texts[side] = timed((ours, theirs)[side], actions)
                    progress.advance(work)
                    if turn:
                        seconds[side].append(spent)
                same += [a == b for a, b in zip(texts[0], texts[1], strict=True)]
            mine, other = (statistics.median(side) for side in seconds)
            low, high = interval(*seconds)
            results.append(
                {
                    "name": f"sb3_adapter_n{count}" + (f"_shared{args.shared}" if args.shared > 1 else ""),
                    "ratio": other / mine,
                    "low": low,
                    "high": high,
                    "n": args.repetitions,
                    "adapter_seconds": seconds[0],
                    "dummy_seconds": seconds[1],
                    "same_completions": float(np.mean(same)),
                    "command": shlex.join(["python", "benchmarks/sb3_adapter.py", *sys.argv[1:]]),
                    "machine": machine(),
                }
            )
            cells = (f"{mine:.2f}", f"{other:.2f}", f"{other / mine:.2f}", f"{low:.2f} … {high:.2f}")
            table.add_row(str(count), *cells, f"{sum(same)}/{len(same)}")
            if args.json:  # after every size, so that an interrupted run leaves what it has measured
                args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    console.print(table)


if __name__ == "__main__":
    main()
