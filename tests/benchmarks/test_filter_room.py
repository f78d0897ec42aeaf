"""What there is to gain by choosing chains: the ways of choosing, on outcomes made by hand."""

import numpy as np
import pytest
from filter_room import GROUP, kept, over_all, spread_over_questions, table, within

from dlr_core.stats import pass_at_k

RNG = np.random.default_rng(0)


def outcomes(*hits):
    """Questions with so many right chains of GROUP, at the front."""
    return np.array([[1.0] * right + [0.0] * (GROUP - right) for right in hits])


def test_the_chains_with_the_highest_sign_are_kept():
    right_BG = outcomes(2, 0)
    sign_BG = np.tile(np.arange(GROUP, dtype=float), (2, 1))
    assert kept(sign_BG, right_BG, 3).tolist() == [0.0, 0.0]
    assert kept(-sign_BG, right_BG, 3).tolist() == [2.0, 0.0]
    assert kept(-sign_BG, right_BG, 1).tolist() == [1.0, 0.0]


def test_a_sign_of_the_question_alone_tells_nothing_within_one():
    right_BG = outcomes(12, 4, 0, GROUP)
    sign_BG = right_BG.mean(1, keepdims=True) + np.zeros_like(right_BG)
    assert within(sign_BG, right_BG) == 0.5
    assert over_all(sign_BG, right_BG) > 0.8
    assert within(right_BG, right_BG) == over_all(right_BG, right_BG) == 1.0


@pytest.mark.parametrize("keep", [1, 3, 8])
def test_who_knows_the_rates_solves_more_than_chance_and_no_more_than_decoding_all(keep):
    right_BG = outcomes(0, 0, 0, 1, 4, 9, GROUP, GROUP)
    chance = np.mean([pass_at_k(int(hits), GROUP, keep) for hits in right_BG.sum(1)])
    best = spread_over_questions(right_BG, keep).mean()
    assert chance < best <= (right_BG.sum(1) > 0).mean()


def test_with_as_many_decodes_as_chains_nothing_is_left_to_choose():
    right_BG = outcomes(0, 1, 7, GROUP)
    assert spread_over_questions(right_BG, GROUP).tolist() == [0.0, 1.0, 1.0, 1.0]
    shown = table(right_BG, {"any": RNG.random(right_BG.shape)}, GROUP).rows
    assert [row[1] for row in shown] == ["75.0"] * 4
