"""Questions are the same in every process, whatever order its sets have."""

import json
import os
import subprocess
import sys
from itertools import islice

import pytest
from dlr_plugins.tasks.reasoning import ReasoningGym
from dlr_plugins.tasks.unhashed import HASHED, drawn

from dlr_core.errors import DataError
from dlr_core.retention import OTHER_TASKS

NAMES = sorted({*HASHED, *(task.partition(":")[2] for task in OTHER_TASKS), "aiw", "chain_sum"})
SCRIPT = """
import json, sys
from dlr_plugins.tasks.reasoning import ReasoningGym

found = {}
for name in sys.argv[1:]:
    task = ReasoningGym(ReasoningGym.Options(pool=4), name)
    found[name] = [[item.question, item.answer] for item in map(lambda n: task.item("test", n), range(4))]
print(json.dumps(found))
"""


def asked(seed):
    env = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *NAMES], capture_output=True, text=True, check=False, timeout=300, env=env
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_two_processes_ask_the_same_questions():
    first, second = asked("1"), asked("2")
    assert [name for name in NAMES if first[name] != second[name]] == []
    assert all(len(items) == 4 for items in first.values())


@pytest.mark.parametrize("name", HASHED)
def test_what_is_drawn_elsewhere_is_judged_here(name):
    task = ReasoningGym(ReasoningGym.Options(pool=2), name)
    item = task.item("train", 1)
    assert task.score(item, task.gold_text(item), True).correct == 1.0
    assert task.score(item, " no such answer", True).correct == 0.0
    same = ReasoningGym(ReasoningGym.Options(pool=4), name)
    assert same.item("train", 1) == item


def test_drawing_stops_when_enough_are_drawn_and_says_why_it_cannot():
    assert len(list(islice(drawn("ransom_note", 10**6, {}), 3))) == 3
    assert len(list(drawn("ransom_note", 2, {}))) == 2
    with pytest.raises(DataError, match="isomorphic_strings cannot draw with its settings"):
        next(drawn("isomorphic_strings", 5, {"min_string_length": -3}))
