"""What a run costs: every token the main model works on, every FLOP of the assistant and the scorer, every second.

FLOPs of the main model are counted the usual way: two per weight and token forward; backward the same again, since the
weights are frozen and only the gradients of the activations are computed (Kaplan et al. 2020, section 2.1, without
their attention term, which is below 2 % at the lengths used here). The small parts are counted operation by operation.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class TokenFlops:
    """FLOPs of one token through a main model, forward."""

    body: int
    """All layers."""
    head: int
    """The logits over the vocabulary."""


@dataclass
class Usage:
    """Token positions a main model has computed, padding included: what was paid for, not what was useful.

    A backend may count more in a subclass; those counts are logged, no FLOPs are made of them.
    """

    prefilled: int = 0
    """Prompt positions."""
    decoded: int = 0
    """Positions fed while completing, the pending ones included."""
    scored: int = 0
    """Positions of teacher-forced passes over given completions."""
    backpropagated: int = 0
    """Those of them that gradients flowed back through."""
    logits: int = 0
    """Positions whose logits were computed, or whose logits' gradients were."""

    def copy(self) -> "Usage":
        """As it is now."""
        return type(self)(**asdict(self))

    def since(self, earlier: "Usage") -> "Usage":
        """What was added after ``earlier``."""
        old = asdict(earlier)
        return type(self)(**{key: value - old[key] for key, value in asdict(self).items()})

    def flops(self, per_token: TokenFlops) -> int:
        """Floating-point operations of all of it."""
        positions = self.prefilled + self.decoded + self.scored + self.backpropagated
        return positions * per_token.body + self.logits * per_token.head


class FlopCount(TorchDispatchMode):
    """Counts the FLOPs of what runs inside it, by the formulas of :mod:`torch.utils.flop_counter`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and add what it takes."""
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


class Ledger:
    """One step's account: main-model tokens, FLOPs of the small parts, seconds per phase."""

    def __init__(self, usage: Usage, per_token: TokenFlops) -> None:
        self.usage, self.per_token = usage, per_token
        self._flops: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._counting = False
        self.begin()

    def begin(self) -> None:
        """Open a step's account."""
        self._start = self.usage.copy()
        self._flops.clear()
        self._seconds.clear()

    @contextmanager
    def flops(self, part: str, *, backward: bool = False, again: bool = False) -> Iterator[None]:
        """Count what runs inside for ``part``; inside another count nothing is counted twice.

        Args:
            part: whose account.
            backward: gradients will flow back later: twice the forward's FLOPs are added, for weights and activations.
            again: and what they need will be computed once more then.
        """
        if self._counting:
            yield
            return
        self._counting = True
        try:
            with FlopCount() as count:
                yield
        finally:
            self._counting = False
        self._flops[part] += count.total * (3 + again if backward else 1)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Wall seconds of what runs inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - began  # type: ignore[assignment]

    def close(self) -> dict[str, Any]:
        """The step's account, JSON-ready: positions, FLOPs, and seconds by phase under ``phases``."""
        used = self.usage.since(self._start)
        flops = {f"{part}_flops": self._flops[part] for part in ("assistant", "scorer")}
        return {**asdict(used), "main_flops": used.flops(self.per_token), **flops, "phases": dict(self._seconds)}


SUMMED = ("decodes", "search_decodes", "tokens", "search_tokens", "prefilled", "decoded", "scored", "backpropagated",
          "logits", "main_flops", "assistant_flops", "scorer_flops", "seconds")  # fmt: skip
DRAFTS = ("forwards", "forwards_saved", "drafted", "accepted")
"""Summed where a backend counts them: it guesses tokens, and the main model verifies several in one pass."""


def total_cost(steps: Sequence[Mapping[str, Any]], timings: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """A run's account: sums over its steps, all FLOPs together, seconds by phase.

    Args:
        steps: one mapping a step, as in metrics.jsonl.
        timings: one mapping a step, as in timings.jsonl.
    """
    keys = [*SUMMED, *(key for key in DRAFTS if any(key in row for row in steps))]
    total: dict[str, Any] = {key: sum(row.get(key) or 0 for row in steps) for key in keys}
    total["flops"] = sum(total[f"{part}_flops"] for part in ("main", "assistant", "scorer"))
    names = sorted({key for row in timings for key in row} - {"step"})
    return {**total, "phases": {name: sum(row.get(name, 0.0) for row in timings) for name in names}}
