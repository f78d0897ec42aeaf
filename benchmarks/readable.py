"""What the assistant can tell of a question: taught with gold to name a property of the answer, outright.

    python benchmarks/readable.py                                            # all, 768 training questions
    python benchmarks/readable.py --tasks "letter counting" --sizes 3072      # one task, with more

A chain carries of its question what the assistant reads off the frozen model's states. Here the default's assistant
is given an easy way to say what that is: its one latent has a number for every class, learned by cross-entropy from
gold, with the default's rate and momenta. So much can be told at least; more questions are more updates as well, as
every one is seen in each of 12 epochs, of which validation questions choose one. Properties of the tasks of
tasks.toml: the counts of letters and of relatives, the syllogism's verdict, and of a sum the operation, whether it is
below zero, its first and its last digit. Beside each stands what the commonest class of its training questions makes.
``--sizes`` are training questions (a run of ten minutes remembers some 700). Intervals draw seeds, then questions.
Prints Markdown.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from dlr_plugins.assistants.small_gpt import SmallGPT
from numpy.typing import NDArray
from sheet import Sheet, difference
from table_tasks import engines
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from dlr_core.aggregate import bootstrap_runs
from dlr_core.questions import calibration_states, distinct_items
from dlr_core.records import Item
from dlr_core.splits import Split

Scores = NDArray[np.float64]
Property = Callable[[Item], str]
PROPERTIES: Mapping[str, Mapping[str, Property]] = {
    "letter counting": {"count": lambda item: item.answer},
    "counting relatives, ten minutes": {"count": lambda item: item.answer},
    "syllogisms": {"verdict": lambda item: item.answer},
    "two-term sums": {
        "operation": lambda item: "+" if " + " in item.question else "-",
        "below zero": lambda item: str(item.answer.startswith("-")),
        "first digit": lambda item: item.answer.lstrip("-")[0],
        "last digit": lambda item: item.answer[-1],
    },
}
"""Variants of tasks.toml, and what is asked of each one's answers."""

EPOCHS, BATCH, AT_ONCE = 12, 64, 32
RATE, BETAS = 1e-3, (0.9, 0.98)
"""As in a run by default."""


class States:
    """What the assistant reads of some questions, and the questions."""

    def __init__(self, engine: Any, split: Split, count: int) -> None:
        self.items = distinct_items(engine.task, split, count)
        self.rows: list[Tensor] = []
        """(S, H) each, without padding."""
        for start in range(0, len(self.items), AT_ONCE):
            texts = [item.question for item in self.items[start : start + AT_ONCE]]
            states_BSH, mask_BS = engine.prefill(texts).question_states()
            self.rows += [states_BSH[row][mask_BS[row].bool()].float().cpu() for row in range(len(texts))]

    def batch(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """States (B, S, H) and mask (B, S), padded on the left."""
        rows = [self.rows[n] for n in chosen]
        real = [torch.ones(len(row), dtype=torch.long) for row in rows]
        states_BSH, mask_BS = (pad_sequence(each, batch_first=True, padding_side="left") for each in (rows, real))
        return states_BSH, mask_BS


def logits(assistant: SmallGPT, states: States, chosen: Sequence[int]) -> Tensor:
    """(B, classes): the mean of the assistant's one latent."""
    states_BSH, mask_BS = states.batch(chosen)
    noise_N1C = torch.zeros(len(chosen), 1, assistant.static_TD.shape[1])
    return assistant.sample(states_BSH, mask_BS, noise_N1C).pre_NTD[:, 0]


@torch.no_grad()
def right(assistant: SmallGPT, states: States, labels_N: Tensor) -> Scores:
    """1.0 (N,) where the likeliest class is the question's own."""
    chunks = torch.arange(len(labels_N)).split(BATCH)
    found = [logits(assistant, states, chunk.tolist()).argmax(1) for chunk in chunks]
    return (torch.cat(found) == labels_N).double().numpy()


def taught(
    sets: Mapping[Split, States], labels: Mapping[Split, Tensor], calibration: tuple[Tensor, Tensor], seed: int
) -> tuple[Scores, int]:
    """Which test questions are told right (N,) by an assistant taught with the training labels, and after which epoch.

    Labels run from 0; a class that training does not have is −1 and never told.
    """
    torch.manual_seed(seed)
    size, classes = len(labels["train"]), int(labels["train"].max()) + 1
    assistant = SmallGPT(SmallGPT.Options(), calibration[0].shape[2], num_latents=1, latent_dim=classes)
    assistant.calibrate(*calibration)
    optimiser = torch.optim.Adam(assistant.parameters(), lr=RATE, betas=BETAS)
    best, found, chosen_epoch = -1.0, np.zeros(0), 0
    for epoch in range(1, EPOCHS + 1):
        order = torch.randperm(size).tolist()
        for start in range(0, size, BATCH):
            chosen = order[start : start + BATCH]
            loss = cross_entropy(logits(assistant, sets["train"], chosen), labels["train"][chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        score = right(assistant, sets["validation"], labels["validation"]).mean()
        if score > best:
            best, found, chosen_epoch = score, right(assistant, sets["test"], labels["test"]), epoch
    return found, chosen_epoch


def labelled(texts: Mapping[Split, Sequence[str]]) -> tuple[dict[Split, Tensor], list[str]]:
    """Numbers of the classes that training questions have, −1 for all others; and the classes."""
    known = sorted(set(texts["train"]))
    number = {text: place for place, text in enumerate(known)}
    return {split: torch.tensor([number.get(text, -1) for text in each]) for split, each in texts.items()}, known


def shown(constant_N: Scores, gaps: Sequence[Scores]) -> tuple[str, str, str]:
    """The commonest class, what is told, and the difference with its interval, all in %."""
    common, gap = 100 * constant_N.mean(), 100 * float(np.mean(gaps))
    low, high = bootstrap_runs([gaps])[0]
    return f"{common:.1f}", f"{common + gap:.1f}", difference(gap, (100 * low, 100 * high))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the states of each task once, teach every property, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[768], help="training questions")
    parser.add_argument("--n", type=int, default=300, help="test questions, and as many for validation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=PROPERTIES, default=list(PROPERTIES), metavar="TASK")
    asked = parser.parse_args(arguments)
    counts: dict[Split, int] = {"train": max(asked.sizes), "validation": asked.n, "test": asked.n}
    rows = []
    for task, engine in engines(asked.tasks):
        sets = {split: States(engine, split, count) for split, count in counts.items()}
        states_MSH, mask_MS = calibration_states(engine)
        calibration = (states_MSH.float().cpu(), mask_MS.cpu())
        for name, told in PROPERTIES[task].items():
            texts = {split: [told(item) for item in states.items] for split, states in sets.items()}
            for size in asked.sizes:
                labels, known = labelled({**texts, "train": texts["train"][:size]})
                common = Counter(texts["train"][:size]).most_common(1)[0][0]
                constant_N = np.array([float(text == common) for text in texts["test"]])
                found = [taught(sets, labels, calibration, seed) for seed in asked.seeds]
                epochs = ", ".join(str(epoch) for _, epoch in found)
                told_and_gap = shown(constant_N, [told_N - constant_N for told_N, _ in found])
                rows.append((task, name, str(len(known)), str(len(labels["train"])), epochs, *told_and_gap))
                print(" ".join(rows[-1]), flush=True)
    head = (
        "task", "property", "classes", "questions taught with", "epochs", "commonest class %", "told %",
        "− commonest class",
    )  # fmt: skip
    print(Sheet(head, rows).markdown())


if __name__ == "__main__":
    main()
