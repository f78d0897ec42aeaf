"""Learning curves on held-out questions, and what is read off them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlr_core.records import Item, Sample

Curve = Sequence[dict[str, Any]]
"""Points in order: seconds, steps, flops and completions so far, accuracy and format at that moment."""
Answer = Callable[[Sequence[Item]], list[Sample]]


class Prober:
    """Asks held-out questions at even shares of a run. What asking costs is on nobody's account."""

    def __init__(self, items: Sequence[Item], count: int) -> None:
        self.items, self.count = list(items), count
        self.curve: list[dict[str, Any]] = []
        self.right: list[float] = []
        """Correctness of every question, when they were last asked."""

    def due(self, progress: float) -> bool:
        """Whether a further share of the run is over; always at its end."""
        return progress >= 1 or progress * self.count >= len(self.curve)

    def take(self, answer: Answer, *, seconds: float, steps: int, flops: int, completions: int) -> None:
        """Ask, and add a point."""
        samples = answer(self.items)
        self.right = [float(sample.correct) for sample in samples]
        self.curve.append(
            {
                "seconds": seconds,
                "steps": steps,
                "flops": flops,
                "completions": completions,
                "accuracy": float(np.mean(self.right)),
                "format": float(np.mean([s.format for s in samples])),
            }
        )


def stays(curve: Curve, target: float, key: str) -> float:
    """``key`` at the first point from which on the accuracy is never below ``target`` again; infinite if there is none.

    A curve of few questions is noisy: the first point above a target would be early by luck.
    """
    found = math.inf
    for point in reversed(curve):
        if point["accuracy"] < target:
            break
        found = float(point[key])
    return found


def accuracy_at(curve: Curve, key: str, value: float) -> float:
    """Accuracy where ``key`` had a value, straight between points; the last one's beyond the end."""
    return float(np.interp(value, [point[key] for point in curve], [point["accuracy"] for point in curve]))


def gain(ours: float, theirs: float, beyond: float) -> float:
    """How many times less ours is; 0 where we never got there.

    Args:
        ours: what we took, infinite if we never got there.
        theirs: what the other took, likewise.
        beyond: what the other had spent when it ended, a lower bound where it never got there.
    """
    if math.isinf(ours):
        return 0.0
    return (beyond if math.isinf(theirs) else theirs) / max(ours, 1e-9)
