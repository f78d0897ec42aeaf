"""Drawing questions of a task: distinct ones for evaluation, a fixed few for calibration."""

import random

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
