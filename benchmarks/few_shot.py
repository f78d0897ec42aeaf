"""What the frozen model can do when it is shown solved examples: how far words with gold in them take it.

    python benchmarks/few_shot.py --shots 4 16 --n 300

Examples are training questions with their gold answers, as earlier turns of the chat; each seed draws others. It is a
control that has seen gold, which no run has, and it costs the tokens of its examples at every question. Answered
greedily on the test questions of the tasks of tasks.toml. Sums are told apart by kind; *commonest reply* is how
often the model says the one thing that it says most. Intervals draw seeds, then questions. Prints Markdown.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from kinds import KINDS, TERMS, shares
from numpy.typing import NDArray
from sheet import Sheet
from table_tasks import engines

from dlr_core.aggregate import bootstrap_runs
from dlr_core.evaluate import Evaluator
from dlr_core.questions import distinct_items
from dlr_core.records import Item

DRAWN_FROM, MARK = 512, "the question"
Scores = NDArray[np.float64]


def shown(items: Sequence[Item], examples: Sequence[Item], tokenizer: Any) -> list[Item]:
    """The questions with solved examples before them, each a turn of its own."""

    def chat(*turns: str) -> str:
        roles = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
        return str(tokenizer.apply_chat_template(roles, add_generation_prompt=True, tokenize=False))

    before, after = chat(MARK).split(MARK)
    solved = [turn for example in examples for turn in (example.question, example.answer)]
    return [
        replace(item, question=chat(*solved, item.question).removeprefix(before).removesuffix(after)) for item in items
    ]


@dataclass(frozen=True)
class Replies:
    """What was answered under one seed's examples."""

    right_N: Scores
    """1.0 where fully right: partial credit is left out."""
    keeps_format: float
    commonest: float
    """Share of the reply that is given most."""


def replies(evaluator: Evaluator, items: Sequence[Item]) -> Replies:
    """The frozen model's greedy answers, without latents."""
    answers = evaluator.under_prompt(items, "")
    texts = Counter(sample.completion for sample in answers.samples)
    return Replies(
        np.array([float(sample.fully_right) for sample in answers.samples]),
        float(np.mean([sample.format for sample in answers.samples])),
        texts.most_common(1)[0][1] / len(items),
    )


def row(name: str, shots: int, seeds: Sequence[Replies], items: Sequence[Item]) -> list[str]:
    """One line of the table."""
    rights = [one.right_N for one in seeds]
    low, high = bootstrap_runs([rights])[0]
    sums = TERMS.search(items[0].question)
    each = shares(items, np.mean(rights, 0))[: len(KINDS)] if sums else [""] * len(KINDS)
    kept = (f"{100 * np.mean([getattr(one, share) for one in seeds]):.0f}" for share in ("keeps_format", "commonest"))
    return [name, str(shots), f"{100 * np.mean(rights):.1f} [{100 * low:.1f}, {100 * high:.1f}]", *kept, *each]


def main(arguments: Sequence[str] | None = None) -> None:
    """Show, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, nargs="+", default=[4, 16], help="examples shown")
    parser.add_argument("--n", type=int, default=300, help="test questions")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the examples")
    asked = parser.parse_args(arguments)
    rows = []
    for name, engine in engines():
        items = distinct_items(engine.task, "test", asked.n)
        training = distinct_items(engine.task, "train", DRAWN_FROM)
        tokenizer, evaluator = engine.decoder.tokenizer, Evaluator(engine)
        for shots in asked.shots:
            several = [random.Random(seed).sample(training, shots) for seed in asked.seeds]
            found = [replies(evaluator, shown(items, examples, tokenizer)) for examples in several]
            rows.append(row(name, shots, found, items))
            print(" ".join(rows[-1]), flush=True)
    columns = ("task", "examples", "right %", "format %", "commonest reply %", *(f"{one} % (n)" for one in KINDS))
    print(Sheet(columns, rows).markdown())


if __name__ == "__main__":
    main()
