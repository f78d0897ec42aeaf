"""Reading numbers out of completions."""

import pytest
from dlr_plugins.tasks.answers import last_number, normalise_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", None),
        ("no digits here", None),
        ("4", "4"),
        ("The answer is 42.", "42"),
        ("3 + 4 = 7", "7"),
        ("first 1, then 2", "2"),
        ("It costs $1,234.50 in all", "1234.5"),
        ("-1,234.50", "-1234.5"),
        ("71 - 46", "46"),
        ("71-46", "46"),
        (" - 83", "-83"),
        ("29 - 57 = - 28.", "-28"),
        ("answer: \u2212 3", "-3"),
        (" - -1", None),
        ("- 8 - 3", "3"),
        ("so -46", "-46"),
        ("= -3", "-3"),
        ("(-5)", "-5"),
        ("equals \u22127", "-7"),
        ("5 \u2212 7", "7"),
        ("007", "7"),
        ("0", "0"),
        ("-0", "0"),
        ("-0.00", "0"),
        ("2.500", "2.5"),
        ("100", "100"),
        ("10.0", "10"),
        ("12, or so", "12"),
        ("3 apples.", "3"),
        ("<answer>15</answer>", "15"),
        ("\\boxed{9}", "9"),
        ("**8**", "8"),
        ("5kg", "5"),
        ("50%", "50"),
        ("x2 and y3", None),
        ("v1.2.3", None),
        ("line\n12\n", "12"),
        ("1000000000000000000000000000001", "1000000000000000000000000000001"),
        ("0.1000000000000000000000000000000000001", "0.1000000000000000000000000000000000001"),
    ],
)
def test_the_last_number_of_a_text(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", "7"),
        (" 7 ", "7"),
        ("1,000", "1000"),
        ("1e3", "1000"),
        ("0.50", "0.5"),
        ("-0", "0"),
        ("\u22123", "-3"),
        ("abc", None),
        ("", None),
        ("3 4", None),
        ("1/2", None),
        ("nan", None),
        ("inf", None),
        ("-Infinity", None),
    ],
)
def test_a_number_has_one_plain_form(text: str, number: str | None) -> None:
    assert normalise_number(text) == number


@pytest.mark.parametrize("number", [0, 5, -5, 1200, 12.5, -0.25, 1e-7])
def test_a_number_survives_being_written_and_read(number: float) -> None:
    read = last_number(f"The answer is {number:.10f}.")
    assert read is not None
    assert float(read) == pytest.approx(number)
    assert normalise_number(read) == read
