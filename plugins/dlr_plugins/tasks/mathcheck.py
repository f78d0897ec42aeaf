"""Symbolic equality of answers by math-verify, within the limits of :mod:`dlr_plugins.tasks.judge`."""

import logging
from typing import Any

from dlr_plugins.tasks.judge import LIMIT_SECONDS, Decide, Judge

LONGEST = 8_000
"""Characters of an answer that are read: the end, where the answer stands."""
JUDGE = Judge(__name__)


def prepare() -> Decide:
    """In the child process: the question is a gold answer and a completion."""
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off

    def decide(question: Any) -> float:
        gold, answer = question
        expected = parse(f"${gold}$", parsing_timeout=None)
        return float(bool(verify(expected, parse(answer, parsing_timeout=None), timeout_seconds=None)))

    return decide


def equivalent(gold: str, answer: str, limit: float = LIMIT_SECONDS) -> bool:
    """Whether math-verify finds ``answer`` equal to ``gold``; False after ``limit`` seconds (first call: more)."""
    return JUDGE.ask([gold, answer[-LONGEST:]], limit) == 1.0
