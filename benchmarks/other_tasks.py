"""What training leaves of the main model's other abilities: the five tasks of ``dlr eval --retention``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from curves import Answer
from sheet import Sheet, difference

from dlr_core.controls import paired
from dlr_core.errors import ConfigError
from dlr_core.evaluate import Evaluator
from dlr_core.host import PluginHost
from dlr_core.questions import distinct_items
from dlr_core.retention import MAX_NEW_TOKENS, OTHER_TASKS

COUNT = 200
"""Questions over all tasks."""
BEFORE, PROMPT, OFF, ON = "before", "prompt", "off", "on"
"""Plain and with the prompt's text before training; plain after it, what was trained switched off where it can be; with
the prompt's text and what was trained switched on."""
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


def together(*rounds: Asked) -> Asked:
    """Rounds of asking the same questions, other ways."""
    return {task: {way: right for asked in rounds for way, right in asked[task].items()} for task in rounds[0]}


def kept(seeds: Sequence[Asked]) -> dict[str, Any]:
    """Of one method: right before training, and what is gained in every other way that all its seeds were asked.

    The interval draws questions; seeds are asked the same ones.
    """
    found = {}
    for task in OTHER_TASKS:
        by_way = {way: np.array([asked[task][way] for asked in seeds]) for way in common(seeds)}
        before_SN = by_way.pop(BEFORE)
        gains = {way: paired((right_SN - before_SN).mean(0)) for way, right_SN in by_way.items()}
        found[task] = {"n": before_SN.shape[1], BEFORE: float(before_SN.mean()), **gains}
    return found


def common(seeds: Sequence[Asked]) -> list[str]:
    """Ways in which all seeds were asked."""
    return [way for way in (BEFORE, PROMPT, OFF, ON) if all(way in asked[OTHER_TASKS[0]] for asked in seeds)]


def sheet(methods: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """What :func:`kept` has found, by method."""
    rows = []
    for method, tasks in methods.items():
        for task, own in tasks.items():
            gains = [_gain(own[way]) if way in own else "" for way in (PROMPT, OFF, ON)]
            rows.append((method, task, str(own["n"]), f"{100 * own[BEFORE]:.1f}", *gains))
    head = ("method", "task", "n", "right % before", "the prompt's text alone", "trained, off", "trained, on")
    return Sheet(head, rows)


def _gain(found: Mapping[str, Any]) -> str:
    low, high = found["ci"]
    return difference(100 * found["difference"], (100 * low, 100 * high))


def check(task: str | None) -> None:
    """Refuse to train on one of the other tasks (ConfigError)."""
    if task in OTHER_TASKS:
        raise ConfigError(f"{task} is one of the five other tasks that are asked before and after: train on another")
