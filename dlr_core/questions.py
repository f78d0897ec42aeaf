"""Drawing questions of a task: distinct ones for evaluation, a fixed few for calibration."""

import random
from typing import Any

import torch
from torch import Tensor

from dlr_core.memory import AT_ONCE, CALIBRATION
from dlr_core.protocols import Task
from dlr_core.records import Item
from dlr_core.splits import Split, normalise


def distinct_items(task: Task, split: Split, count: int, seed: int = 0) -> list[Item]:
    """Up to ``count`` questions with different texts; fewer if the task runs dry. Other seeds give other questions."""
    size = task.size(split)
    order = random.Random(seed).sample(range(size), size)
    found: dict[str, Item] = {}
    for index in order:
        if len(found) == count:
            break
        item = task.item(split, index)
        found.setdefault(normalise(item.question), item)
    return list(found.values())


def calibration_questions(task: Task, count: int = 32) -> list[str]:
    """The training questions whose states a latent space is scaled by; no answers."""
    return [task.item("train", index).question for index in range(min(count, task.size("train")))]


@torch.no_grad()
def calibration_states(engine: Any) -> tuple[Tensor, Tensor]:
    """States (N, S, H) and mask (N, S) of training questions, padded on the left; their prompts are not kept.

    Args:
        engine: whose task and frozen model they are of.
    """
    texts = calibration_questions(engine.task, CALIBRATION)
    parts = [engine.prefill(texts[n : n + AT_ONCE]).question_states() for n in range(0, len(texts), AT_ONCE)]
    width = max(mask_NS.shape[1] for _, mask_NS in parts)
    pad = torch.nn.functional.pad
    return (
        torch.cat([pad(states_NSH, (0, 0, width - states_NSH.shape[1], 0)) for states_NSH, _ in parts]),
        torch.cat([pad(mask_NS, (width - mask_NS.shape[1], 0)) for _, mask_NS in parts]),
    )
