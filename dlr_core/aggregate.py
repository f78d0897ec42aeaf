"""Control tables of several runs as one: means over runs, interquartile means, intervals that know of both samples.

A run's seed is a sample of training, its questions are a sample of the task; an interval over questions alone says
nothing of another seed. So the bootstrap here draws runs first, within each environment (the strata of Agarwal et al.
2021, "Deep RL at the edge of the statistical precipice"), and then questions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlr_core.errors import ConfigError
from dlr_core.stats import Interval

RESAMPLES = 2000
Scores = Sequence[NDArray[np.float64]]
"""One array of values per run, over its questions."""


def interquartile_mean(values: NDArray[np.float64]) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is dropped at either end."""
    drop = len(values) // 4
    return float(np.sort(values)[drop : len(values) - drop].mean())


def bootstrap_runs(strata: Sequence[Scores], seed: int = 0, level: float = 0.95) -> tuple[Interval, Interval]:
    """Intervals of the mean over runs and of the interquartile mean over runs, percentile bootstrap on two levels.

    Runs of one environment and size were measured on the same questions, so they share the questions drawn.

    Args:
        strata: the runs of each environment.
        seed: of the resampling.
        level: coverage.
    """
    rng = np.random.default_rng(seed)
    means, middles = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = []
        for runs in strata:
            sizes = {len(values) for values in runs}
            drawn_for = {size: rng.integers(size, size=size) for size in sizes}
            for chosen in rng.integers(len(runs), size=len(runs)):
                values = runs[chosen]
                drawn.append(values[drawn_for[len(values)]].mean())
        means[number], middles[number] = np.mean(drawn), interquartile_mean(np.array(drawn))
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(means, tails)
    low_middle, high_middle = np.quantile(middles, tails)
    return (float(low), float(high)), (float(low_middle), float(high_middle))


def aggregate(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One control table of several, as :func:`dlr_core.controls.control_table` gives them.

    Accuracies are means over runs, every run counting the same; ``iqm`` is the interquartile mean over runs. Rows that
    not every run has are left out.

    Raises:
        ConfigError: a table without per-question results, or tables of different splits.
    """
    if any("per_question" not in result for result in results):
        raise ConfigError("a saved table has no per-question results: measure it again, without --saved")
    if len({result["split"] for result in results}) > 1:
        raise ConfigError("runs measured on different splits cannot be put together")
    names = [name for name in results[0]["rows"] if all(name in result["rows"] for result in results)]
    envs = list(dict.fromkeys(result["env"] for result in results))

    def strata(values: Any) -> list[list[NDArray[np.float64]]]:
        return [[values(result) for result in results if result["env"] == env] for env in envs]

    def right(result: Mapping[str, Any], name: str) -> NDArray[np.float64]:
        return np.array(result["per_question"][name], np.float64)

    rows, gaps = {}, {}
    for name in names:
        scores = strata(lambda result, name=name: right(result, name))
        mean, middle = bootstrap_runs(scores)
        per_run = np.array([values.mean() for runs in scores for values in runs])
        averaged = ("format", "tokens", "latents", "gflops")
        rows[name] = {
            "accuracy": float(per_run.mean()),
            "ci": list(mean),
            "iqm": interquartile_mean(per_run),
            "iqm_ci": list(middle),
            **{key: float(np.mean([r["rows"][name].get(key, 0.0) for r in results])) for key in averaged},
            **{key: value for key, value in results[0]["rows"][name].items() if key == "label"},
        }
        if name != "trained":
            gap = strata(lambda result, name=name: right(result, "trained") - right(result, name))
            per_gap = [values.mean() for runs in gap for values in runs]
            gaps[name] = {"difference": float(np.mean(per_gap)), "ci": list(bootstrap_runs(gap)[0])}
    return {
        "env": ", ".join(envs),
        "split": results[0]["split"],
        "n": min(result["n"] for result in results),
        "runs": [{"run": r.get("run"), "n": r["n"], "trained": r["rows"]["trained"]["accuracy"]} for r in results],
        "rows": rows,
        "paired": gaps,
    }
