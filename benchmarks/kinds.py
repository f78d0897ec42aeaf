"""What a ChainSum run has learned, and what it has only memorised, by kind of question.

    python benchmarks/kinds.py runs/main --n 600

Three sets: training questions whose right answers the run has remembered (from its newest checkpoint), other training
questions, and test questions; three kinds: sums, differences, differences below zero. Each is answered greedily under
its own chain and under the mean chain of the test questions. A gap between remembered and other questions is memory;
one between own and mean chains is what the latents carry of the question. A second table takes the answers to test
questions apart: is the sign right, and the number where it is; partial credit is in the first alone. Prints Markdown
tables.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sheet import Sheet

from dlr_core import DLRPipeline
from dlr_core.checkpoints import latest_checkpoint
from dlr_core.evaluate import Evaluator
from dlr_core.questions import distinct_items
from dlr_core.records import Item, Sample

KINDS = ("sum", "difference", "below zero")
TERMS = re.compile(r"(\d+) ([+-]) (\d+) =")
WHOLE = re.compile(r"-?\d+")


def kind(question: str) -> str:
    """Which of :data:`KINDS` a two-term question is."""
    found = TERMS.search(question)
    if found is None:
        raise SystemExit(f"error: not a question of dlr/ChainSum-v0 with two terms: {question}")
    if found[2] == "+":
        return "sum"
    return "difference" if int(found[1]) >= int(found[3]) else "below zero"


def sets_of(run: Path, task: Any, count: int) -> dict[str, list[Item]]:
    """Up to ``count`` questions of each set."""
    state = json.loads((latest_checkpoint(run) / "state.json").read_text(encoding="utf-8"))
    remembered = {entry["index"] for entry in state["rehearsal"]["successes"]}
    training = distinct_items(task, "train", task.size("train"))
    known = {task.item("train", index).question for index in remembered}
    return {
        "remembered": [item for item in training if item.question in known][:count],
        "other training": [item for item in training if item.question not in known][:count],
        "test": distinct_items(task, "test", count),
    }


def shares(items: Sequence[Item], right_N: Any) -> list[str]:
    """Right % among the questions of each kind, and of all."""
    kinds = np.array([kind(item.question) for item in items])
    each = [right_N[kinds == name] for name in KINDS]
    return [f"{100 * part.mean():.1f} ({len(part)})" if len(part) else "(0)" for part in [*each, right_N]]


def taken_apart(items: Sequence[Item], samples: Sequence[Sample]) -> list[str]:
    """Of each kind: right sign % (of n), and right % among those (of n); what is no whole number has no right sign."""
    cells = []
    for one in KINDS:
        own = [(item, sample) for item, sample in zip(items, samples, strict=True) if kind(item.question) == one]
        signed = [
            sample for item, sample in own
            if WHOLE.fullmatch(said := (sample.parsed or "").strip())
            and said.startswith("-") == item.answer.startswith("-")
        ]  # fmt: skip
        right = [sample for sample in signed if sample.fully_right]
        cells += [_share(len(signed), len(own)), _share(len(right), len(signed))]
    return cells


def _share(some: int, of: int) -> str:
    return f"{100 * some / of:.1f} ({of})" if of else "(0)"


def main() -> None:
    """Answer, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=600, help="questions of each set, at most")
    asked = parser.parse_args()
    pipeline = DLRPipeline.from_run(asked.run)
    evaluator = Evaluator(pipeline.engine)
    sets = sets_of(asked.run, pipeline.engine.task, asked.n)
    own = {name: evaluator.latents(items, pipeline.assistant) for name, items in sets.items()}
    mean_TD = own["test"].mean(0)
    print(
        "| questions | chain | " + " | ".join(f"{name} % (n)" for name in (*KINDS, "all")) + " |\n" + "|---" * 6 + "|"
    )
    apart = []
    for name, items in sets.items():
        chains = {"own": own[name], "mean": np.broadcast_to(mean_TD, own[name].shape).copy()}
        for chain, answers in evaluator.under_each(items, chains).items():
            print(f"| {name} | {chain} | " + " | ".join(shares(items, answers.correct_N)) + " |", flush=True)
            if name == "test":
                apart.append([chain, *taken_apart(items, answers.samples)])
    columns = [f"{one}: {what}" for one in KINDS for what in ("right sign %", "of those right %")]
    print("\n" + Sheet(("chain", *columns), apart).markdown())


if __name__ == "__main__":
    main()
