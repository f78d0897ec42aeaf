"""Prompts that have been prefilled, kept for as long as there is room: the main model is frozen, so they stay valid.

Of a question only its own positions after its beginning are held, no padding; a beginning is held once, in memory, for
all that go on from it.
"""

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlr_core.errors import RoomWarning, first_line
from dlr_core.prompt_store import InMemory, Keep, Kept
from dlr_core.records import Beginning, PromptCache
from dlr_core.stacking import stack

Prefill = Callable[[Sequence[str]], PromptCache]
MB = 10**6


@dataclass(frozen=True)
class Held:
    """One question's prompt."""

    cohort: tuple[str, ...]
    """Questions that were prefilled together: prefilling them again gives the same bits."""
    row: int
    kept: Kept
    size: int
    """Bytes, its beginning's left out."""
    beginning: Beginning | None

    @property
    def own(self) -> PromptCache:
        """One row without padding, its keys, values and states without those of the beginning."""
        return self.kept.read()


class QuestionCache:
    """Prefilled prompts by question; what has not been asked for longest is dropped first.

    Args:
        prefill: gives the prompts of distinct questions, in their order.
        limit: bytes that are held at most.
        store: keeps each of them.
    """

    def __init__(self, prefill: Prefill, limit: int, store: Keep = InMemory) -> None:
        self.prefill, self.limit, self._store = prefill, limit, store
        self.held: OrderedDict[str, Held] = OrderedDict()
        self.size = 0
        """Bytes held, beginnings included."""
        self._beginnings: dict[tuple[int, ...], Beginning] = {}
        self._lent: Counter[tuple[int, ...]] = Counter()
        """How many prompts that are held go on from each."""
        self._asked = self._found = 0
        self._refused = False
        """Whether the store had no room once."""

    def keep(self, questions: Sequence[str], cache: PromptCache) -> None:
        """Hold what has been prefilled anyway: prompts of distinct questions, in their order, without latents."""
        for row, question in enumerate(questions):
            if question in self.held:
                self.held.move_to_end(question)
            else:
                self._hold(question, tuple(questions), row, _own(cache, row))
        self._shrink()

    def prompts(self, questions: Sequence[str]) -> PromptCache:
        """Prompts of distinct questions, in their order; those that are not held are prefilled together."""
        missing = tuple(question for question in questions if question not in self.held)
        self._asked += len(questions)
        self._found += len(questions) - len(missing)
        found = {question: self.held[question].own for question in questions if question in self.held}
        for question in found:
            self.held.move_to_end(question)
        if missing:
            cache = self.prefill(missing)
            for row, question in enumerate(missing):
                found[question] = _own(cache, row)
                self._hold(question, missing, row, found[question])
            del cache  # before room is made for all prompts
        self._shrink()
        each = [found[question] for question in questions]
        return stack(each, [own.beginning for own in each])

    def _hold(self, question: str, cohort: tuple[str, ...], row: int, own: PromptCache) -> None:
        if start := own.beginning:
            own = replace(own, beginning=self._beginnings.get(start.ids, start))
        try:
            kept = self._store(own)
        except OSError as error:
            self._refuse(error)
            return
        if start := own.beginning:
            self.size += 0 if start.ids in self._beginnings else start.size
            self._beginnings[start.ids] = start
            self._lent[start.ids] += 1
        size = sum(t.nbytes for t in (*own.keys, *own.values, own.states_NSH, own.pending_NPH))
        self.held[question] = Held(cohort, row, kept, size, own.beginning)
        self.size += size

    def _shrink(self) -> None:
        while self.size > self.limit:
            _, dropped = self.held.popitem(last=False)
            self.size -= dropped.size
            dropped.kept.forget()
            if start := dropped.beginning:
                self._lent[start.ids] -= 1
                if not self._lent[start.ids]:
                    del self._lent[start.ids]
                    self.size -= self._beginnings.pop(start.ids).size

    def _refuse(self, error: OSError) -> None:
        """Say why a prompt is not held, once."""
        if not self._refused:
            told = f"no room for prefilled prompts ({first_line(error)}): those that are not kept are prefilled again"
            warnings.warn(told, RoomWarning, stacklevel=2)
        self._refused = True

    def log(self) -> dict[str, Any]:
        """Since the last call, the share of the prompts asked for that were held; and how much is held now."""
        hits = {"question_cache_hits": self._found / self._asked} if self._asked else {}
        self._asked = self._found = 0
        return {**hits, "question_cache_mb": self.size / MB}

    def state(self) -> dict[str, Any]:
        """JSON-ready: which questions are held, the next to be dropped first; texts and numbers, not tensors."""
        cohorts = list(dict.fromkeys(held.cohort for held in self.held.values()))
        place = {cohort: number for number, cohort in enumerate(cohorts)}
        rows = [[place[held.cohort], held.row] for held in self.held.values()]
        return {"cohorts": [list(cohort) for cohort in cohorts], "rows": rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """From :meth:`state`, into a new cache: every cohort is prefilled once more."""
        cohorts = [tuple(texts) for texts in state["cohorts"]]
        wanted = [(int(cohort), int(row)) for cohort, row in state["rows"]]
        own: dict[tuple[int, int], PromptCache] = {}
        for number, texts in enumerate(cohorts):
            cache = self.prefill(texts)
            for row in (row for cohort, row in wanted if cohort == number):
                own[number, row] = _own(cache, row)
        for number, row in wanted:
            self._hold(cohorts[number][row], cohorts[number], row, own[number, row])


def _own(cache: PromptCache, row: int) -> PromptCache:
    """One of many prompts less its padding and what is its beginning's, in memory of its own."""
    rows, start = slice(row, row + 1), cache.beginning.length if cache.beginning else 0
    real_S = cache.mask_NS[row].nonzero()[:, 0]
    own_S = real_S[real_S >= start]
    return replace(
        cache,
        keys=tuple(keys[rows].index_select(2, own_S.to(keys.device)) for keys in cache.keys),
        values=tuple(values[rows].index_select(2, own_S.to(values.device)) for values in cache.values),
        mask_NS=cache.mask_NS[rows].index_select(1, real_S),
        states_NSH=cache.states_NSH[rows].index_select(1, own_S),
        pending_NPH=cache.pending_NPH[rows].clone(),
        ids_NS=None if cache.ids_NS is None else cache.ids_NS[rows].index_select(1, real_S),
    )
