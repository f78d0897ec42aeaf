"""Which completions of a group say what an earlier one has said."""

import random
from typing import Any

import pytest

from dlr_core.rollout import repeats


@pytest.mark.parametrize("group", [1, 3, 8])
def test_a_repeat_has_an_earlier_equal_in_its_own_group(group: int) -> None:
    draw = random.Random(group)
    texts = [str(draw.randrange(4)) for _ in range(5 * group)]
    groups = [texts[start : start + group] for start in range(0, len(texts), group)]
    expected = [[text in own[:place] for place, text in enumerate(own)] for own in groups]
    assert repeats(texts, group).tolist() == expected


def test_distinct_texts_are_not_each_held_against_all_others() -> None:
    looks = 0

    class Counted(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal looks
            looks += 1
            return str.__eq__(self, other)

    texts: list[Any] = [Counted(number) for number in range(64)]
    assert not repeats(texts, 64).any()
    assert looks <= 64
