"""How something grows: exponents on a log-log scale, and what another unit costs at the end against the beginning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from interleaved import LEVEL, RESAMPLES


@dataclass(frozen=True)
class Growth:
    """Of one quantity along one axis."""

    whole: float
    """Least-squares slope of log y against log x, all points."""
    upper: float
    """The same of the upper half: what a part that does not grow hides, the end shows."""
    low: float
    high: float
    """Of ``upper``: 95 % percentile bootstrap over turns, a turn's points kept together."""
    bend: float
    """What another unit costs in the upper half, over what it costs in the lower one (slopes of straight lines fitted
    to each): 1 along every straight line, through the origin or not; above it the growth is superlinear."""


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """d of the c·x^d that is nearest on a log-log scale.

    Raises:
        ValueError: fewer than two points, or one that is not above 0.
    """
    if len(xs) < 2 or min(*xs, *ys) <= 0:
        raise ValueError(f"expected two points or more, all above 0, got {list(zip(xs, ys, strict=True))}")
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def growth(xs: Sequence[float], values: Sequence[Sequence[float]]) -> Growth:
    """All of them, of medians over turns.

    Args:
        xs: where the points are, rising; the upper half has the middle one too.
        values: of every point, one a turn.
    """
    half = len(xs) // 2 if len(xs) > 3 else len(xs) - 2
    turns_PN = np.asarray(values, float)
    ys = np.median(turns_PN, 1).tolist()
    first, last = (float(np.polyfit(xs[part], ys[part], 1)[0]) for part in (slice(half + 1), slice(half, None)))
    bend = last / first if first > 0 else float("nan")
    drawn = np.random.default_rng(0).integers(0, turns_PN.shape[1], (RESAMPLES, turns_PN.shape[1]))
    medians_PR = np.median(turns_PN[:, drawn], 2)
    low, high = np.percentile(np.polyfit(np.log(xs[half:]), np.log(medians_PR[half:]), 1)[0], LEVEL)
    return Growth(exponent(xs, ys), exponent(xs[half:], ys[half:]), float(low), float(high), bend)
