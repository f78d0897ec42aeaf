"""What a search finds with different completions of a question, and with as many independent ones.

    python benchmarks/replacement.py runs/main

Validation questions are completed at temperature 1 under the trained run's own mean chains, with ``--counts``
completions each: sampled without replacement (as the search does) and independently. A question is solved if one of
them is right and keeps the format. Shown are questions solved by kind, with 95 % intervals of the paired
difference over all of them, different texts, and tokens fed to the main model per question. Prints a Markdown table.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from kinds import KINDS, shares
from numpy.typing import NDArray
from sheet import Sheet, difference

from dlr_core import DLRPipeline
from dlr_core.evaluate import Evaluator
from dlr_core.questions import distinct_items
from dlr_core.records import Sample
from dlr_core.rollout import correctness
from dlr_core.stats import bootstrap_mean


def solved(samples: Sequence[Sample], count: int) -> NDArray[np.float64]:
    """Of each question, whether one of its ``count`` samples in a row is right: 1.0 or 0.0."""
    best: NDArray[np.float64] = correctness(list(samples)).view(-1, count).amax(1).double().numpy()
    return best


def texts(samples: Sequence[Sample], count: int) -> float:
    """Different completions of a question, mean over the questions."""
    each = [len({sample.completion for sample in samples[n : n + count]}) for n in range(0, len(samples), count)]
    return float(np.mean(each))


def main(arguments: Sequence[str] | None = None) -> None:
    """Complete, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=200, help="validation questions")
    parser.add_argument("--counts", type=int, nargs="+", default=[4, 8, 16], help="completions of a question")
    asked = parser.parse_args(arguments)
    pipeline = DLRPipeline.from_run(asked.run)
    engine = pipeline.engine
    items = distinct_items(engine.task, "validation", asked.n)
    chains_NTD = torch.as_tensor(Evaluator(engine).latents(items, pipeline.assistant), device=engine.decoder.device)
    cache = engine.prefill([item.question for item in items])
    rows_N = torch.arange(len(items), device=engine.decoder.device)
    rows = []
    for count in asked.counts:
        found = {}
        for name in ("different", "independent"):
            before = engine.decoder.usage.copy()
            if name == "different":
                _, judged = engine.complete(items, cache, rows_N, chains_NTD, seed=0, counts=[count] * len(items))
            else:
                again_M = rows_N.repeat_interleave(count)
                several = [items[row] for row in again_M.tolist()]
                _, judged = engine.complete(several, cache, again_M, chains_NTD[again_M], seed=0)
            samples = judged.result()
            found[name] = solved(samples, count)
            fed = engine.decoder.usage.since(before).decoded / len(items)
            shown = (f"{texts(samples, count):.1f}", f"{fed:.1f}", "")
            rows.append((str(count), name, *shares(items, found[name]), *shown))
        gap_N = 100 * (found["different"] - found["independent"])
        rows[-2] = (*rows[-2][:-1], difference(gap_N.mean(), bootstrap_mean(gap_N)))
    head = (
        "completions",
        "sampled",
        *(f"{kind} % (n)" for kind in KINDS),
        "all % (n)",
        "different texts",
        "tokens fed",
    )
    print(Sheet((*head, "different − independent"), rows).markdown())


if __name__ == "__main__":
    main()
