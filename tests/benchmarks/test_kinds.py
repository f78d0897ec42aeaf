"""Questions by kind, and answers taken apart into sign and number."""

import pytest
from kinds import kind, taken_apart

from dlr_core.records import Item, Sample


def asked(text, answer):
    return Item(f"Compute: {text} =", answer, 0)


def said(item, parsed, correct):
    return Sample(item.question, item.answer, parsed or "", parsed, correct, 1.0, 3, ended=True)


@pytest.mark.parametrize(
    ("text", "expected"), [("3 + 9", "sum"), ("9 - 3", "difference"), ("9 - 9", "difference"), ("3 - 9", "below zero")]
)
def test_kinds_of_questions(text, expected):
    assert kind(asked(text, "").question) == expected


def test_a_sign_is_right_before_the_number_is():
    below, difference = asked("3 - 9", "-6"), asked("9 - 3", "6")
    answers = [(below, "-6", 1.0), (below, "-5", 0.1), (below, "6", 0.1), (below, None, 0.0), (difference, "-6", 0.1)]
    samples = [said(*answer) for answer in answers]
    none_asked, always_wrong, half_and_half = ["(0)", "(0)"], ["0.0 (1)", "(0)"], ["50.0 (4)", "50.0 (2)"]
    assert taken_apart([item for item, _, _ in answers], samples) == [*none_asked, *always_wrong, *half_and_half]
