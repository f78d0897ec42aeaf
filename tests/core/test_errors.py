"""What is said of an error that nobody foresaw."""

import pytest

from dlr_core.errors import first_line, kind_and_line


@pytest.mark.parametrize(
    ("error", "line", "both"),
    [
        (ValueError("one\ntwo"), "one", "ValueError: one"),
        (ValueError("\n  one"), "one", "ValueError: one"),
        (ValueError(), "ValueError", "ValueError"),
        (ValueError("\n"), "ValueError", "ValueError"),
    ],
)
def test_an_error_is_told_in_one_line_and_never_in_none(error: ValueError, line: str, both: str) -> None:
    assert (first_line(error), kind_and_line(error)) == (line, both)
