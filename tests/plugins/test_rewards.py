"""Rewards of one judged sample."""

import pytest
from dlr_plugins.rewards.correctness import Correctness
from dlr_plugins.rewards.dual import Dual
from dlr_plugins.rewards.format import Format
from pydantic import ValidationError

from dlr_core.records import Sample


def sample(correct: float, keeps: float) -> Sample:
    return Sample("q", "4", "It is 4", "4", correct, keeps, tokens=5, ended=True)


@pytest.mark.parametrize(
    ("correct", "keeps", "plain", "gated"),
    [(1.0, 1.0, 1.1, 1.1), (1.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.1, 0.1), (0.0, 0.0, 0.0, 0.0), (0.5, 1.0, 0.6, 0.6)],
)
def test_dual_is_a_weighted_sum_and_the_gate_needs_the_format(
    correct: float, keeps: float, plain: float, gated: float
) -> None:
    assert Dual(Dual.Options())(sample(correct, keeps)) == pytest.approx(plain)
    assert Dual(Dual.Options(gate=True))(sample(correct, keeps)) == pytest.approx(gated)


def test_dual_weighs_its_two_parts_as_told() -> None:
    reward = Dual(Dual.Options(correct_weight=2.0, format_weight=0.5))
    assert reward(sample(1.0, 0.0)) == 2.0
    assert reward(sample(0.0, 1.0)) == 0.5


@pytest.mark.parametrize("options", [{"correct_weight": -1.0}, {"format_weight": -0.1}, {"gates": True}])
def test_dual_refuses_negative_weights_and_unknown_options(options: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Dual.Options(**options)


def test_correctness_and_format_are_the_two_parts_alone() -> None:
    assert [Correctness()(sample(*parts)) for parts in ((1.0, 0.0), (0.25, 1.0))] == [1.0, 0.25]
    assert [Format()(sample(*parts)) for parts in ((1.0, 0.0), (0.25, 1.0))] == [0.0, 1.0]
