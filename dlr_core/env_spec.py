"""What an environment id stands for. Imports nothing heavy: ids are registered before anybody needs torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EnvSpec:
    """An environment id and the task behind it."""

    task: str | None
    """Name of the task; None where the user must give one."""
    task_kwargs: Mapping[str, Any]
    """Its default options."""
    max_new_tokens: int
    eval_questions: int = 100
    """Distinct questions in the table at the end of a run: fewer where completions are long."""
    openings: tuple[str, ...] = ("",)
    """Texts that the search for successes begins completions with, in turn: what a person knows of how answers look."""
