"""Two ways of doing the same thing, measured in turns: what slows the machine for a while slows both."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
LEVEL = (2.5, 97.5)

Side = Callable[[int], float]
"""Does its work for one turn, given the turn's number, and says what that took: seconds, bytes, …"""


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Side:
    """A side that does the same every turn: its seconds, by a clock."""

    def side(turn: int) -> float:
        began = clock()
        work()
        return clock() - began

    return side


@dataclass(frozen=True)
class Ratio:
    """How many times less we take than the other; above 1 is better."""

    ratio: float
    low: float
    high: float
    """95 % percentile bootstrap over turns."""
    n: int
    """Turns."""


def alternate(
    sides: Sequence[Side], turns: int, patience: float = float("inf"), clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Every side once a turn, each turn begun by the next side; one list of values a side.

    Args:
        sides: what is measured.
        turns: how often, at most.
        patience: seconds after which no further turn is begun.
        clock: tells the time.
    """
    values: list[list[float]] = [[] for _ in sides]
    began = clock()
    for turn in range(turns):
        if turn and clock() - began >= patience:
            break
        for place in range(len(sides)):
            number = (turn + place) % len(sides)
            values[number].append(sides[number](turn))
    return values


def ratio_of_medians(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """What the other takes over what we take, medians over turns; a turn's values stay together."""
    mine, other = np.asarray(ours, float), np.asarray(theirs, float)
    low, high = _bootstrap(lambda turns: np.median(other[turns], 1) / np.median(mine[turns], 1), len(mine))
    return Ratio(float(np.median(other) / np.median(mine)), low, high, len(mine))


def median_of(values: Sequence[float]) -> Ratio:
    """The median of ratios that were each measured within one turn."""
    given = np.asarray(values, float)
    low, high = _bootstrap(lambda turns: np.median(given[turns], 1), len(given))
    return Ratio(float(np.median(given)), low, high, len(given))


def _bootstrap(statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], count: int) -> tuple[float, float]:
    turns = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    low, high = np.percentile(statistic(turns), LEVEL)
    return float(low), float(high)
