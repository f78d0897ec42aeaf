"""Bootstrap intervals, paired over the same questions."""

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
RESAMPLES = 10_000


def bootstrap_mean(values_N: NDArray[np.float64], level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of a mean over questions (Efron 1979); (0, 0) for no questions."""
    if not len(values_N):
        return (0.0, 0.0)
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 1000):
        index = rng.integers(len(values_N), size=(min(1000, RESAMPLES - start), len(values_N)))
        means[start : start + len(index)] = values_N[index].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))


def pass_at_k(correct: int, drawn: int, k: int) -> float:
    """Unbiased estimate of P(at least one of k right) from ``correct`` of ``drawn`` (Chen et al. 2021, eq. 1)."""
    if drawn - correct < k:
        return 1.0
    missing = np.arange(drawn - correct + 1, drawn + 1)
    return float(1.0 - np.prod(1.0 - k / missing))
