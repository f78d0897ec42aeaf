"""Stable-Baselines3 stepping through our adapter, against SB3's DummyVecEnv of single environments.

python benchmarks/sb3_adapter.py

One process, one loaded model and one latent space for all, the same questions and the same actions; both sides take
turns, and every step of theirs is timed next to ours. An episode is one latent chain: a step decodes the current
question's and, as both restart ended episodes in the same step, prefills the next question. DummyVecEnv does both one
by one, the adapter in one batch. Completions that differ (near-ties of logits may) are counted and shown.

--shared N puts N consecutive sub-environments on one question, as learners that compare chains of a question do: the
adapter then prefills it once. What is written is the case of 32 sub-environments on questions of their own.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dlr_envs  # noqa: F401  (registers the dlr/* ids)
import gymnasium
import numpy as np
from dlr_envs.sb3 import SB3VecEnv
from entries import HERE, record
from interleaved import Ratio, alternate, ratio_of_medians
from pictures import bars
from sheet import Sheet, spread
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

ENV = "dlr/ChainSum-v0"
LATENTS = {"num_latents": 4, "latent_dim": 8, "space": {"name": "kv", "chart": "principal", "radius": 0.5}}
NAMED = 32


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


class Steps:
    """Timed steps of one side; what it decoded, turn by turn."""

    def __init__(self, side: VecEnv, actions: np.ndarray) -> None:
        self.side, self.actions, self.texts = side, actions, []

    def __call__(self, turn: int) -> float:
        """Seconds of one step."""
        began = time.perf_counter()
        *_, infos = self.side.step(self.actions[len(self.texts)])
        spent = time.perf_counter() - began
        self.texts.append([info["completion"] for info in infos])
        return spent


def sheet(measured: Mapping[str, Any]) -> Sheet:
    """Seconds of a step, median (least … most), by number of sub-environments."""
    return Sheet(
        ("sub-environments", "SB3VecEnv, s", "DummyVecEnv, s", "ratio", "95 %", "n", "same text"),
        [
            (
                str(row["envs"]),
                spread(row["adapter_seconds"]),
                spread(row["dummy_seconds"]),
                f"{row['ratio']:.2f}",
                f"{row['low']:.2f} … {row['high']:.2f}",
                str(row["n"]),
                f"{row['same_completions']:.0%}",
            )
            for row in measured["sizes"]
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32], help="numbers of sub-environments")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each side, after one to warm up")
    parser.add_argument("--shared", type=int, default=1, help="consecutive sub-environments on one question")
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json")
    args = parser.parse_args(arguments)

    decoder: Any = args.main_model
    named: Ratio | None = None
    rows = []
    for count in args.sizes:
        ours, theirs = both_sides(count, args.shared, decoder)
        decoder = ours.env.unwrapped.engine.decoder
        rng = np.random.default_rng(count)
        shape = (1 + args.repeats, count, *ours.action_space.shape)
        actions = rng.uniform(-0.3, 0.3, shape).astype(np.float32)
        sides = [Steps(ours, actions), Steps(theirs, actions)]
        alternate(sides, 1)
        mine, other = alternate(sides, args.repeats)
        found = ratio_of_medians(mine, other)
        named = found if (count, args.shared) == (NAMED, 1) else named
        same = np.array(sides[0].texts) == np.array(sides[1].texts)
        rows.append(
            {
                "envs": count,
                "shared": args.shared,
                "ratio": found.ratio,
                "low": found.low,
                "high": found.high,
                "n": found.n,
                "adapter_seconds": mine,
                "dummy_seconds": other,
                "same_completions": float(same.mean()),
            }
        )
    sheet({"sizes": rows}).print()
    if named is None:
        print(f"nothing written: {NAMED} sub-environments on questions of their own were not measured")
        return
    record("sb3_adapter_n32", named, {"main_model": Path(args.main_model).name, "sizes": rows}, args.out)
    shown = {f"{row['envs']} sub-environments": (row["ratio"], row["low"], row["high"]) for row in rows}
    title = "Steps per second, SB3VecEnv ÷ DummyVecEnv"
    bars(args.out / "sb3_adapter_n32.png", title, "times as many", shown, {"alike": 1.0, "goal at 32": 10.0})


if __name__ == "__main__":
    main()
