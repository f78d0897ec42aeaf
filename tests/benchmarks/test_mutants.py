"""Mutants are made where code runs, tried where nothing can be left behind, and remembered."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mutants
import pytest

SOURCE = '''from dataclasses import dataclass


def up_to(last: int | None = 3) -> list[int]:
    """Not 1 + 1."""
    found: list[int] = []
    while True:
        if len(found) == (last or 0):
            break
        found.append(len(found) + 1)
    return found
'''
TESTS = """from dlr_core.toy import up_to


def test_up_to_counts() -> None:
    assert up_to(2) == [1, 2]
    assert up_to() == [1, 2, 3]
"""
TRY = """import json, sys
from pathlib import Path

import mutants
import pytest

root, room = map(Path, sys.argv[1:])
made = list(mutants.mutants(root, "dlr_core/toy.py"))
outcomes = mutants.try_area(root, room, ["tests/test_toy.py"], made, room / "log.jsonl")
print(json.dumps(mutants.summary(made, outcomes, len(made))))
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "dlr_core/__init__.py": "",
        "dlr_core/toy.py": SOURCE,
        "tests/test_toy.py": TESTS,
        "pytest.ini": "[pytest]",
    }
    for name, text in files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "tree"


def tried(tree: Path) -> dict:
    """An area's figures, found by a process of its own, as the modules must not be loaded before."""
    room = tree.parent / "room"
    room.mkdir(exist_ok=True)
    benchmarks = str(Path(mutants.__file__).parent)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment = {**inherited, "PYTHONPATH": benchmarks, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(tree), str(room)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_is_changed_is_code_that_runs(tree):
    made = list(mutants.mutants(tree, "dlr_core/toy.py"))
    assert {one.line for one in made} == {4, 7, 8, 9, 10}
    assert {(one.line, one.now) for one in made if "Binary" in one.operator} == {
        (10, f"found.append(len(found) {sign} 1)") for sign in "-*/"
    }
    assert {one.now for one in made if one.line == 4} == {
        "def up_to(last: int | None = 4) -> list[int]:", "def up_to(last: int | None = 2) -> list[int]:"
    }  # fmt: skip
    assert all(compile(one.source, "toy", "exec") for one in made)


def test_a_decorator_that_is_gone_is_shown_where_it_was():
    source = "class A:\n    one = 1\n\n    @property\n    def two(self):\n        return 2\n"
    assert mutants.difference(source, source.replace("\n    @property", "")) == (4, "@property", "")


def test_mutants_die_by_a_failing_test_or_by_time_and_survive_what_no_test_looks_at(tree):
    found = tried(tree)
    assert found["timeout"] == 1  # continue instead of break
    assert found["broken"] == 0
    assert {one["now"] for one in found["survivors"]} == {
        "if len(found) >= (last or 0):", "if len(found) == (last or 1):", "if len(found) == (last or -1):"
    }  # fmt: skip
    assert found["killed"] == found["tried"] - 4 >= 10
    assert (tree / "dlr_core" / "toy.py").read_text() == SOURCE

    log = tree.parent / "room" / "log.jsonl"
    lines = log.read_text()
    log.write_text(lines + '["torn["more", "killed"]')
    assert tried(tree) == found
    assert log.read_text().startswith(lines)
    assert len(log.read_text().splitlines()) == found["tried"] + 1  # nothing was tried again


def test_tests_that_fail_without_a_mutant_kill_nothing(tree):
    (tree / "tests" / "test_toy.py").write_text(TESTS.replace("[1, 2]", "[2, 1]"))
    with pytest.raises(AssertionError, match="the tests fail without a mutant"):
        tried(tree)


def test_our_modules_must_not_be_loaded_before(tree, tmp_path):
    with pytest.raises(RuntimeError, match="a fork would not see the mutant"):
        mutants.Trials(tree, tmp_path)


def test_a_share_counts_neither_broken_mutants_as_dead_nor_equivalents_as_such():
    one = mutants.Mutant("a.py", "AddNot", "", 1, "if a:", "if not a:")
    area = mutants.summary([one] * 6, ["killed", "killed", "timeout", "survived", "broken", "broken"], 9)
    assert area["share"] == 0.75
    assert area["survivors"] == [{"at": "a.py:1", "was": "if a:", "now": "if not a:"}]
    assert "| **all** | 18 | 12 | 6 | 2 | 2 | 4 | 75.0 |" in mutants.as_markdown({"areas": {"a": area, "b": area}})


def test_a_sample_is_the_same_one_again_and_in_order():
    every = [mutants.Mutant("a.py", "AddNot", "", line, "", "") for line in range(50)]
    some = mutants.sampled(every, 20)
    assert some == mutants.sampled(every, 20) == sorted(some, key=lambda one: one.line)
    assert len({one.line for one in some}) == 20
    assert mutants.sampled(every, None) == mutants.sampled(every, 50) == every
