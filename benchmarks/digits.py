"""Accuracy on dlr/ChainSum-v0 as its generator draws questions, where half have one digit, beside distinct ones.

    python benchmarks/digits.py runs/main

There are 16,200 different two-term questions of two-digit numbers and 200 of one-digit numbers, but the generator
draws the number of digits first: half of what it draws are the same few easy ones again. Evaluation asks distinct
questions, nearly all of two digits. Here all one-digit test questions of the pool and ``--n`` two-digit ones are
answered greedily: under hand-written prompts, with the run's token limit and with 16, and under the run's mean chain
and its own ones, with its limit. *As drawn* is the mean of the two kinds' accuracies. Intervals are 95 %
bootstraps over the questions of each kind. Prints a Markdown table.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sheet import Sheet

from dlr_core import DLRPipeline
from dlr_core.evaluate import PROMPTS, Evaluator
from dlr_core.questions import distinct_items
from dlr_core.records import Item

RESAMPLES = 2000
LIMIT = 16
"""Tokens in which the model can say a sum again and then its answer."""


def by_digits(items: Sequence[Item], count: int) -> list[list[Item]]:
    """All one-digit questions, and ``count`` two-digit ones."""
    parts = [[item for item in items if item.metadata["metadata"]["num_digits"] == digits] for digits in (1, 2)]
    return [parts[0], parts[1][:count]]


def shown(right: Sequence[NDArray[np.float64]]) -> list[str]:
    """Right % with intervals: of each kind, and of as many of one as of the other."""
    rng = np.random.default_rng(0)
    drawn = [part[rng.integers(0, len(part), (RESAMPLES, len(part)))].mean(1) for part in right]
    means = [float(part.mean()) for part in right]
    cells = []
    for mean, draws in [*zip(means, drawn, strict=True), (float(np.mean(means)), np.mean(drawn, 0))]:
        low, high = np.percentile(100 * draws, (2.5, 97.5))
        cells.append(f"{100 * mean:.1f} [{low:.1f}, {high:.1f}]")
    return cells


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=600, help="two-digit questions, at most")
    parser.add_argument("--prompts", nargs="+", default=["", *PROMPTS], metavar="TEXT", help="all if not given")
    asked = parser.parse_args(arguments)
    pipeline = DLRPipeline.from_run(asked.run)
    engine = pipeline.engine
    task, own = engine.task, engine.max_new_tokens
    parts = by_digits(distinct_items(task, "test", task.size("test")), asked.n)
    items, ends = parts[0] + parts[1], np.cumsum([len(part) for part in parts])[:-1]
    rows = []

    def add(name: str, tokens: int, right_N: NDArray[np.float64]) -> None:
        rows.append((name, str(tokens), *shown(np.split(right_N, ends))))

    for tokens in sorted({own, LIMIT}):
        evaluator = Evaluator(engine.on(task, tokens))
        for prompt in asked.prompts:
            add(f"`{prompt or '(plain)'}`", tokens, evaluator.under_prompt(items, prompt).correct_N)
    evaluator = Evaluator(engine)
    chains = evaluator.latents(items, pipeline.assistant)
    mean = np.broadcast_to(chains[ends[0] :].mean(0), chains.shape).copy()
    for name, answers in evaluator.under_each(items, {"mean latents": mean, "trained": chains}).items():
        add(name, own, answers.correct_N)
    one, two = map(len, parts)
    head = ("", "tokens", f"one digit % (all {one})", f"two digits % ({two})", "as drawn, half of each, %")
    print(Sheet(head, rows).markdown())


if __name__ == "__main__":
    main()
