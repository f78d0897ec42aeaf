"""Bootstrap intervals and pass@k."""

from itertools import combinations
from math import comb, sqrt

import numpy as np
import pytest

from dlr_core.stats import bootstrap_mean, pass_at_k


def test_interval_of_a_large_sample_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, 500)
    low, high = bootstrap_mean(values)
    half = 1.96 * values.std() / sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_a_higher_level_gives_a_wider_interval() -> None:
    values = np.random.default_rng(1).normal(size=60)
    wide, narrow = bootstrap_mean(values, level=0.99), bootstrap_mean(values, level=0.5)
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]


def test_interval_of_a_constant_is_a_point() -> None:
    assert bootstrap_mean(np.full(7, 0.25)) == (0.25, 0.25)


def test_interval_of_nothing_is_zero() -> None:
    assert bootstrap_mean(np.array([])) == (0.0, 0.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).random(30)
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)
    assert bootstrap_mean(values, seed=4) != bootstrap_mean(values, seed=5)


@pytest.mark.parametrize("drawn", [1, 3, 6])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(drawn: int) -> None:
    for correct in range(drawn + 1):
        for k in range(1, drawn + 1):
            hits = sum(min(subset) < correct for subset in combinations(range(drawn), k))
            assert pass_at_k(correct, drawn, k) == pytest.approx(hits / comb(drawn, k))
