"""Prefilling questions of different lengths: in passes of similar ones, against one pass padded to the longest.

python benchmarks/prefill.py
python benchmarks/prefill.py --questions 32 --tasks reasoning-gym:aiw

A turn is a batch of questions drawn anew, prefilled both ways, in turns, on the CPU. Printed, not kept.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
from dlr_cli.host import load_host
from dlr_plugins.decoders import prefilling
from interleaved import alternate, ratio_of_medians
from sheet import Sheet, spread

TASKS = ("reasoning-gym:aiw", "reasoning-gym:calendar_arithmetic", "reasoning-gym:syllogism")
NEVER = 10**9
"""Positions that no further pass saves."""


def way(decoder: Any, batches: Sequence[Sequence[str]], further: int, computed: list[int]) -> Callable[[int], float]:
    """Seconds of a turn's batch, where a further pass must save so many positions; those it computes are noted."""
    anchor = decoder.encode("Result:")

    def seconds(turn: int) -> float:
        with patch.object(prefilling, "PASS_ON_CPU", further):
            before, began = decoder.usage.prefilled, time.perf_counter()
            decoder.prefill(batches[turn], anchor[:-1], anchor[-1:], 0)
        computed.append(decoder.usage.prefilled - before)
        return time.perf_counter() - began

    return seconds


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="names, with the default's options")
    parser.add_argument("--questions", type=int, default=16, help="of a batch; 16 are what a search has")
    parser.add_argument(
        "--further", type=int, default=prefilling.PASS_ON_CPU, help="positions that a further pass must save"
    )
    parser.add_argument("--repeats", type=int, default=9, help="turns")
    parser.add_argument("--main-model", default="smollm2-135m")
    args = parser.parse_args()
    host, rng, rows = load_host(), np.random.default_rng(0), []
    decoder = host.create("decoder", "hf", {"model": args.main_model, "device": "cpu"})
    for name in args.tasks:
        task = host.create("task", name)
        drawn = rng.integers(task.size("train"), size=(args.repeats, args.questions))
        batches = [[task.item("train", int(index)).question for index in turn] for turn in drawn]
        counts: tuple[list[int], list[int]] = ([], [])
        one = way(decoder, batches, NEVER, counts[0])
        several = way(decoder, batches, args.further, counts[1])
        padded, passes = alternate([one, several], args.repeats)
        found = ratio_of_medians(passes, padded)
        positions = [f"{np.mean(count):.0f}" for count in counts]
        times = (spread(padded), spread(passes))
        rows.append((name, *positions, *times, f"{found.ratio:.2f} [{found.low:.2f}, {found.high:.2f}]", str(found.n)))
    head = ("task", "positions, one pass", "in passes", "seconds, one pass", "in passes", "ratio", "n")
    Sheet(head, rows).print()


if __name__ == "__main__":
    main()
