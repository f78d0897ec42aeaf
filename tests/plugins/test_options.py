"""Settings of estimators, contrastive objectives, scorers and rewards: defaults, bounds, and that nothing else goes."""

from typing import Any

import pytest
from dlr_plugins.contrastive.bidirectional import Bidirectional
from dlr_plugins.contrastive.laser import LaSER
from dlr_plugins.contrastive.supcon import SupCon
from dlr_plugins.contrastive.uniformity import Uniformity
from dlr_plugins.estimators.hybrid import Hybrid
from dlr_plugins.estimators.pathwise import Pathwise
from dlr_plugins.estimators.pathwise_greedy import PathwiseGreedy
from dlr_plugins.estimators.score import Score
from dlr_plugins.rewards.decisive import Decisive
from dlr_plugins.rewards.dual import Dual
from dlr_plugins.rewards.ranking import Ranking
from dlr_plugins.scorers.learned import LearnedScorer
from pydantic import ValidationError

UNBIASED = {"advantage": 1.0, "normalise": False, "success_weight": 0.0}
CONTRAST = {"weight": 0.02, "rank_weight": 1.0, "temperature": 0.2, "beta": 1.0, "width": 64}
DEFAULTS = [
    (Score, {**UNBIASED, "clip": 0.2}),
    (Pathwise, UNBIASED),
    (Hybrid, {**UNBIASED, "clip": 0.2, "mix": 0.5}),
    (PathwiseGreedy, {"advantage": 0.0, "normalise": False, "success_weight": 1.0, "rarity": True}),
    (Bidirectional, CONTRAST),
    (SupCon, {"weight": 0.02, "temperature": 0.2, "width": 64}),
    (Uniformity, {"weight": 0.02, "sharpness": 2.0}),
    (
        LaSER,
        {
            **CONTRAST, "output_weight": 1.0, "trajectory_weight": 0.01, "opening": "Let me calculate:", "tokens": 24,
            "tries": 2, "reasoning_temperature": 0.3, "places": 3,
        },
    ),
    (LearnedScorer, {"width": 128, "lr": 1e-3, "passes": 2}),
    (Dual, {"correct_weight": 1.0, "format_weight": 0.1, "gate": False}),
    (Decisive, {"correct_weight": 1.0, "format_weight": 0.1, "gate": False, "entropy_weight": 0.1}),
    (Ranking, {"cutoff": 10, "format_weight": 0.1}),
]  # fmt: skip
PARTS = [pytest.param(part, defaults, id=part.__name__) for part, defaults in DEFAULTS]
WEIGHTS = "advantage success_weight weight rank_weight output_weight trajectory_weight correct_weight format_weight"
LAST_AND_FIRST = {
    **dict.fromkeys([*WEIGHTS.split(), "entropy_weight"], (0.0, -1e-06)),
    **dict.fromkeys(("clip", "temperature", "beta", "sharpness", "reasoning_temperature", "lr"), (1e-09, 0.0)),
    **dict.fromkeys(("width", "tokens", "tries", "passes", "cutoff"), (1, 0)),
    "places": (0, -1),
    "opening": ("!", ""),
}
"""The last value that a setting takes, and the first that it does not; 1e-9 stands for the least above nothing."""


@pytest.mark.parametrize(("part", "defaults"), PARTS)
def test_defaults_are_what_a_run_gets_that_sets_nothing(part: Any, defaults: dict[str, Any]) -> None:
    assert part.Options().model_dump() == defaults


@pytest.mark.parametrize(("part", "defaults"), PARTS)
def test_a_setting_is_taken_up_to_its_bound_and_not_beyond(part: Any, defaults: dict[str, Any]) -> None:
    for name in set(defaults) - {"normalise", "rarity", "gate", "mix"}:
        last, first = LAST_AND_FIRST[name]
        assert getattr(part.Options(**{name: last}), name) == last
        with pytest.raises(ValidationError, match=name):
            part.Options(**{name: first})


def test_a_mix_is_a_share() -> None:
    assert [Hybrid.Options(mix=share).mix for share in (0, 1)] == [0.0, 1.0]
    for share in (-1e-6, 1 + 1e-6):
        with pytest.raises(ValidationError, match="mix"):
            Hybrid.Options(mix=share)


@pytest.mark.parametrize(("part", "defaults"), PARTS)
def test_settings_of_another_name_are_refused_and_given_ones_stay(part: Any, defaults: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="unheard_of"):
        part.Options(unheard_of=1)
    options, name = part.Options(), next(iter(defaults))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(options, name, defaults[name])
