"""What training leaves of the main model's other abilities: the five tasks of ``dlr eval --retention``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from curves import Answer
from sheet import Sheet, difference

from dlr_core.controls import paired
from dlr_core.evaluate import Evaluator
from dlr_core.host import PluginHost
from dlr_core.questions import distinct_items
from dlr_core.retention import MAX_NEW_TOKENS, OTHER_TASKS

COUNT = 200
"""Questions over all tasks."""
BEFORE, OFF, ON = "before", "off", "on"
"""Under a plain prompt before training, and after it; with what was trained switched on, the prompt's text included."""
Asked = dict[str, dict[str, list[float]]]
"""Correctness of every question, by task and by one of the three."""
Way = Callable[[Any], Answer]
"""How questions are answered on an engine of a task."""


def ask(engine: Any, host: PluginHost, ways: Mapping[str, Way], count: int = COUNT) -> Asked:
    """Answer test questions of the other tasks, an equal number of each.

    Args:
        engine: of the task trained on.
        host: every component.
        ways: by name.
        count: questions over all tasks.
    """
    found: Asked = {}
    for number, name in enumerate(OTHER_TASKS):
        on = engine.on(host.create("task", name), MAX_NEW_TOKENS)
        items = distinct_items(on.task, "test", len(range(number, count, len(OTHER_TASKS))))
        found[name] = {way: [float(sample.correct) for sample in how(on)(items)] for way, how in ways.items()}
    return found


def prompted(prompt: str) -> Way:
    """Greedy completions that begin with a text, without latents; with none plain ones."""
    return lambda on: lambda items: Evaluator(on).under_prompt(items, prompt).samples


def both(first: Asked, second: Asked) -> Asked:
    """Two rounds of asking the same questions."""
    return {task: {**first[task], **second[task]} for task in first}


def kept(rounds: Sequence[Asked]) -> dict[str, Any]:
    """Of one method, its seeds' questions together: right before training, and what is gained since, task by task.

    The interval draws questions; seeds of a method are asked the same ones.
    """
    found = {}
    for task in OTHER_TASKS:
        before_SN, off_SN, on_SN = (np.array([asked[task][way] for asked in rounds]) for way in (BEFORE, OFF, ON))
        since = {way: paired((after - before_SN).mean(0)) for way, after in ((OFF, off_SN), (ON, on_SN))}
        found[task] = {"n": before_SN.shape[1], BEFORE: float(before_SN.mean()), **since}
    return found


def sheet(methods: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """What :func:`kept` has found, by method."""
    rows = []
    for method, tasks in methods.items():
        for task, own in tasks.items():
            before = f"{100 * own[BEFORE]:.1f}"
            rows.append((method, task, str(own["n"]), before, *(_gain(own[way]) for way in (OFF, ON))))
    head = ("method", "task", "n", "right % before", "since, under a plain prompt", "since, switched on")
    return Sheet(head, rows)


def _gain(found: Mapping[str, Any]) -> str:
    low, high = found["ci"]
    return difference(100 * found["difference"], (100 * low, 100 * high))
