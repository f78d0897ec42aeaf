"""Several runs as one table: means over runs, and intervals that know how few runs there are."""

import numpy as np
import pytest

from dlr_core.aggregate import aggregate, bootstrap_runs, interquartile_mean
from dlr_core.errors import ConfigError


def table(trained, plain, env="dlr/Toy-v0", split="test"):
    rows = {"plain": plain, "trained": trained}
    return {
        "env": env,
        "run": "r",
        "split": split,
        "n": len(trained),
        "rows": {
            name: {"accuracy": float(np.mean(v)), "format": 1.0, "tokens": 2.0, "latents": 2, "gflops": 3.0}
            for name, v in rows.items()
        },
        "per_question": rows,
    }


def test_the_interquartile_mean_drops_a_quarter_at_either_end() -> None:
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 100.0])) == 1.5
    assert interquartile_mean(np.array([3.0, 1.0, 2.0])) == 2.0
    assert interquartile_mean(np.arange(8.0)) == 3.5


def test_every_run_counts_the_same_whatever_its_number_of_questions() -> None:
    both = aggregate([table([1.0] * 90 + [0.0] * 10, [0.0] * 100), table([0.0] * 10, [0.0] * 10)])
    assert both["rows"]["trained"]["accuracy"] == pytest.approx(0.45)
    assert both["paired"]["plain"]["difference"] == pytest.approx(0.45)
    assert both["n"] == 10


def test_runs_that_disagree_widen_the_interval_beyond_that_of_their_questions() -> None:
    rng = np.random.default_rng(0)
    alike = [(rng.random(400) < 0.5).astype(float) for _ in range(4)]
    apart = [(rng.random(400) < p).astype(float) for p in (0.2, 0.4, 0.6, 0.8)]
    (low, high), _ = bootstrap_runs([alike])
    (wide_low, wide_high), _ = bootstrap_runs([apart])
    assert high - low < 0.08
    assert wide_high - wide_low > 0.3


def test_runs_measured_on_the_same_questions_are_no_further_questions() -> None:
    """Three copies of one run know no more than the run."""
    values = (np.random.default_rng(0).random(100) < 0.5).astype(float)
    (low, high), _ = bootstrap_runs([[values]])
    (low_three, high_three), _ = bootstrap_runs([[values] * 3])
    assert high_three - low_three == pytest.approx(high - low, rel=0.15)


def test_environments_are_strata() -> None:
    """Runs are drawn within their environment: what differs between environments is no uncertainty."""
    easy, hard = [np.ones(50)] * 3, [np.zeros(50)] * 3
    (low, high), _ = bootstrap_runs([easy, hard])
    assert low == high == 0.5
    (low, high), _ = bootstrap_runs([[*easy, *hard]])
    assert low < 0.3 < 0.7 < high


def test_tables_that_cannot_be_put_together_are_refused() -> None:
    good = table([1.0], [0.0])
    with pytest.raises(ConfigError, match="per-question"):
        aggregate([good, {key: value for key, value in good.items() if key != "per_question"}])
    with pytest.raises(ConfigError, match="splits"):
        aggregate([good, table([1.0], [0.0], split="validation")])
