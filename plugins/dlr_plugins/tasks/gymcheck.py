"""reasoning-gym's verifiers that would evaluate a model's text, made safe.

Some compare lists by ``eval(answer)``: here they read literals and nothing else. Some hand the text to SymPy's parser,
which evaluates it as Python: here it must be an arithmetic expression, and is judged within the limits of
:mod:`dlr_plugins.tasks.judge`.
"""

import ast
import json
import sys
from collections.abc import Mapping
from typing import Any

from dlr_plugins.tasks.judge import Decide, Judge

LITERAL = ("string_insertion", "spiral_matrix", "binary_matrix", "n_queens")
"""Generators whose verifiers evaluate an answer that is not the gold one."""
SYMBOLIC = ("simple_integration", "intermediate_integration", "polynomial_multiplication", "puzzle24", "countdown")
"""Generators whose verifiers give an answer to SymPy's parser."""
FUNCTIONS = ("sqrt", "exp", "log", "ln", "Abs", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan",
             "sinh", "cosh", "tanh", "asinh", "acosh", "atanh")  # fmt: skip
NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.UAdd, ast.USub,
    ast.Constant, ast.Name, ast.Load, ast.Call,
)  # fmt: skip
CHARACTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-*/(). \t\n")
LONGEST = 2_000
JUDGE = Judge(__name__)


def defuse(datasets: Mapping[str, tuple[Any, Any]]) -> None:
    """Let the verifiers of :data:`LITERAL` find a harmless function where they look for ``eval``."""
    for name in LITERAL:
        vars(sys.modules[datasets[name][0].__module__])["eval"] = ast.literal_eval


def is_arithmetic(text: str) -> bool:
    """Whether a text is an expression of numbers, short names, + - * / ** and known functions, and nothing else."""
    if len(text) > LONGEST or not CHARACTERS.issuperset(text):
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_allowed(node) for node in ast.walk(tree))


def _allowed(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
        return named and len(node.args) == 1 and not node.keywords
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float)
    return isinstance(node, NODES)


def prepare() -> Decide:
    """In the child process: the question is a generator, its settings, an entry and the parsed answer."""
    import reasoning_gym

    made: dict[str, Any] = {}

    def decide(question: Any) -> float:
        name, settings, entry, answer = question
        key = json.dumps([name, settings])
        if key not in made:
            made[key] = reasoning_gym.create_dataset(name, seed=0, size=2, **settings)
        return float(made[key].score_answer(answer=answer, entry=entry))

    return decide


def judged(name: str, settings: Mapping[str, Any], entry: Mapping[str, Any], answer: str) -> float:
    """The verifier's score of an answer; 0 where it is no expression, or too much for the limits."""
    if not is_arithmetic(answer):
        return 0.0
    return JUDGE.ask([name, dict(settings), dict(entry), answer]) or 0.0
