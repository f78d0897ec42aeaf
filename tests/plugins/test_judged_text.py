"""A model's text where it is judged: nothing of it runs, nothing takes for ever, nothing fills the memory."""

import ast
import inspect
import os
import sys
import time

import pytest
from dlr_plugins.tasks import gymcheck, judge, mathcheck
from dlr_plugins.tasks.answers import last_number, normalise_number
from dlr_plugins.tasks.gymcheck import LITERAL, SYMBOLIC, is_arithmetic, judged
from dlr_plugins.tasks.mathcheck import equivalent
from dlr_plugins.tasks.reasoning import ReasoningGym
from hostile import BOMBS, CODE, COMPLETIONS
from hypothesis import HealthCheck, given, settings
from reasoning_gym.factory import DATASETS

KNOWN_TO_EVALUATE_THEIR_OWN_TEXT = {
    "number_sorting",
    "basic_arithmetic",
    "bitwise_arithmetic",
    "codeio",
    "propositional_logic",
}
"""What these evaluate is a generator's, not a model's; the last has a parser of its own."""


def task_of(name: str) -> ReasoningGym:
    return ReasoningGym(ReasoningGym.Options(pool=1), name)


@pytest.mark.parametrize("name", [*LITERAL, *SYMBOLIC])
def test_code_in_a_completion_does_not_run(name, tmp_path):
    task = task_of(name)
    item = task.item("train", 0)
    for text in CODE:
        answer = text.replace("CANARY", str(tmp_path / "canary"))
        if name in SYMBOLIC and is_arithmetic(answer):
            continue  # judged in a process of its own, below
        assert task.score(item, answer, True).correct == 0.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*LITERAL, *SYMBOLIC])
def test_the_gold_answer_is_still_right(name):
    task = task_of(name)
    item = task.item("train", 0)
    assert task.score(item, item.answer, True).correct == 1.0
    variable = item.metadata["metadata"].get("variable", "x")  # a constant more is right for an integral
    assert task.score(item, f"{item.answer} + 17*{variable}", True).correct == 0.0


def test_every_verifier_that_evaluates_text_is_known():
    """A newer reasoning-gym may bring another: it must be looked at before a model's text gets there."""
    found = set()
    for name, (factory, _) in DATASETS.items():
        tree = ast.parse(inspect.getsource(sys.modules[factory.__module__]))
        calls = {ast.unparse(node.func).rpartition(".")[2] for node in ast.walk(tree) if isinstance(node, ast.Call)}
        if calls & {"eval", "exec", "sympify", "parse_expr"}:
            found.add(name)
    assert found <= {*LITERAL, *SYMBOLIC, *KNOWN_TO_EVALUATE_THEIR_OWN_TEXT}


@pytest.mark.parametrize("text", ["x**2 + 3*x - 4", "exp(2*x)/2 + C", "(3 + 5) * 3", " -sin(x) ", "1.5e3"])
def test_arithmetic_may_be_parsed(text):
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    ["__import__('os')", "x.y", "f(x)", "x[0]", "lambda: 0", "'a'", "1 if 1 else 2", "exp(x, y)", "sin(*x)", "eval(x)",
     "a_b", "x; y", "x = 3", "1 # x", "", "x" * 3000, "(" * 300 + ")" * 300, "x and y", "exec(1)", "é", "sqrt(x=1)"],
)  # fmt: skip
def test_anything_but_arithmetic_is_not(text):
    assert not is_arithmetic(text)


@pytest.mark.parametrize("text", BOMBS)
def test_an_expression_without_end_is_wrong_and_the_next_one_is_judged(text):
    assert equivalent("1/2", r"\boxed{\frac{1}{2}}")
    began = time.process_time()
    assert not equivalent("1/2", text, limit=1.0) or "1/2" in text
    assert time.process_time() - began < 5.0  # this process waits; it does not compute


def test_powers_without_end_are_stopped_in_a_verifier_too():
    entry = task_of("simple_integration").item("train", 0).metadata
    assert judged("simple_integration", {}, entry, "9**9**9**9") == 0.0
    assert judged("simple_integration", {}, entry, entry["answer"]) == 1.0


@pytest.mark.skipif(sys.platform != "linux", reason="memory limits are Linux's")
def test_the_child_has_little_memory_and_may_write_no_file():
    resource = pytest.importorskip("resource")
    assert equivalent("1/2", r"\boxed{\frac{1}{2}}")
    pid = mathcheck.JUDGE.process.pid
    memory = resource.prlimit(pid, resource.RLIMIT_AS)[1]
    assert judge.LIMIT_BYTES < memory < 8 * judge.LIMIT_BYTES
    assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (0, 0)
    assert 0 < resource.prlimit(pid, resource.RLIMIT_CPU)[0] < 3600


def test_a_child_that_ran_out_of_memory_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "greedy.py").write_text(
        "def prepare():\n    def decide(size):\n        return float(len(bytearray(size)) > 0)\n    return decide\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    greedy = judge.Judge("greedy")
    try:
        assert greedy.ask(10) == 1.0
        first = greedy.process.pid
        assert greedy.ask(4 * judge.LIMIT_BYTES) == 0.0
        assert greedy.ask(10) == 1.0
        assert greedy.process.pid != first
        assert greedy.ask("x" * 100_000) is None
    finally:
        greedy.stop()


def test_what_the_judges_are_asked_fits_a_pipe():
    assert mathcheck.LONGEST * 6 <= judge.LONGEST
    assert gymcheck.LONGEST * 6 <= judge.LONGEST


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[*HealthCheck])
@given(COMPLETIONS)
def test_a_number_is_found_in_any_text_and_is_short(text):
    found = last_number(text)
    assert found is None or len(found) <= len(text) + 1001
    assert found is None or normalise_number(found) == found


@pytest.mark.parametrize("text", ["1e999999999", "-1e999999", "1e-999999999", "0e999999999"])
def test_a_number_that_would_fill_the_memory_is_none(text):
    assert normalise_number(text) is None
