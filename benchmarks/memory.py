"""Peak memory of training: ours, TRL's GRPO (all weights, LoRA), and inference of the same model on the same batch.

python benchmarks/memory.py

Every side runs in a process of its own, in turn (benchmarks/memory_side.py): the first steps of training with a batch
of 4 questions and 8 completions each, above what its imports hold. Ours is then taken to the most that it can hold: its
stores of successes and of unsolved questions filled to their capacity, which a run of ten minutes nearly does. That
is the figure that is compared; the one without them stands beside it. So does a lean run with full stores, which keeps
no second copy of the weights, scores fewer positions at once, and learns from 8 remembered successes at once instead of
32; it is divided by inference with the same settings. TRL's lean sides learn from 8 completions at once instead of 32.
Both leave updates as they are. Prefilled prompts are in a file, which is not counted: what the system caches of it, it
gives up when memory is asked for.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from entries import HERE, record
from interleaved import alternate, ratio_of_medians
from pictures import bars
from sheet import Sheet, spread

SIDES = ("inference", "ours", "grpo-full", "grpo-lora")
SPARING = ("replay.at_once=8", "decoder.packed=false", "decoder.scored_at_once=32")
"""What a run can do without: packed weights, and much that is learned from at once."""
LEAN = tuple(part for setting in SPARING for part in ("--set", setting))
LEAN_TRL = ("--micro", "8")
"""What TRL can do without: activations and logits of a whole step's completions at once."""
MB = 2**20


class Alone:
    """One side's peaks, each time in a new process."""

    def __init__(self, side: str, more: Sequence[str]) -> None:
        here = Path(__file__).with_name("memory_side.py")
        self.line = [sys.executable, str(here), side, *more]
        self.found: list[dict[str, Any]] = []

    def __call__(self, turn: int) -> float:
        """Its peak in bytes.

        Raises:
            RuntimeError: it failed.
        """
        env = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(self.line, capture_output=True, text=True, check=False, env=env)
        if done.returncode:
            raise RuntimeError(f"{' '.join(self.line[1:])} failed: {done.stderr.strip()[-800:]}")
        self.found.append(json.loads(done.stdout.strip().splitlines()[-1]))
        return float(self.found[-1]["peak"])


def sheet(measured: Mapping[str, Any]) -> Sheet:
    """Peaks, median (least … most), and as multiples of inference's."""
    over = measured["training_over_inference"]
    rows = [(side, spread(values, 0), f"{over[side]:.2f}") for side, values in measured["peak_mb"].items()]
    return Sheet(("side", "peak MB", "÷ inference"), rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--steps", type=int, default=3, help="of training, in every process")
    parser.add_argument("--main-model", default="smollm2-135m")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting of a run")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json")
    args = parser.parse_args(arguments)
    more = ["--steps", str(args.steps), "--main-model", args.main_model]
    more += [part for text in args.set for part in ("--set", text)]
    sides = {side: Alone(side, more) for side in SIDES}
    sides |= {f"{side}, lean": Alone(side, [*more, *(LEAN_TRL if "grpo" in side else LEAN)]) for side in SIDES}
    taken = dict(zip(sides, alternate(list(sides.values()), args.repeats), strict=True))
    taken["ours, stores empty"] = [float(found["first_steps"]) for found in sides["ours"].found]
    ratio = ratio_of_medians(taken["ours"], taken["grpo-full"])
    median = {side: float(np.median(values)) for side, values in taken.items()}
    measured = {
        "main_model": Path(args.main_model).name,
        "peak_mb": {side: [value / MB for value in values] for side, values in taken.items()},
        "training_over_inference": {
            side: median[side] / median["inference, lean" if "lean" in side else "inference"] for side in taken
        },
        "lora_over_ours": median["grpo-lora"] / median["ours"],
        "full_over_ours_stores_empty": median["grpo-full"] / median["ours, stores empty"],
        "full_over_ours_lean": median["grpo-full"] / median["ours, lean"],
        "full_lean_over_ours_lean": median["grpo-full, lean"] / median["ours, lean"],
    }
    sheet(measured).print()
    record("memory_vs_grpo", ratio, measured, args.out)
    shown = {side: (median[side] / MB, min(own) / MB, max(own) / MB) for side, own in taken.items()}
    title = "Peak memory above imports: median, least, most"
    bars(args.out / "memory_vs_grpo.png", title, "MB", shown, {"1.5 × inference": 1.5 * median["inference"] / MB})


if __name__ == "__main__":
    main()
