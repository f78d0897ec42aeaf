"""Text of others on a terminal, and paths and values of others in settings."""

import math
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlr_core.errors import shown
from dlr_core.paths import expanded, is_file, is_folder
from dlr_core.plain import HIDDEN, one_line, plain
from dlr_core.values import DEPTH, is_text, unusable

OBEYED = (
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b2J",
    "a\rb",
    "a\bb",
    "\u202eevil",
    "\ud800",
    "\u2028",
    "\x00",
    "\u200e",
)


@pytest.mark.parametrize("text", OBEYED)
def test_nothing_that_a_terminal_obeys_stays_in_a_text(text):
    assert plain(text).isprintable()
    assert plain(text) != text


@settings(max_examples=150, deadline=None)
@given(st.text())
def test_plain_text_is_printable_and_plain_again(text):
    assert all(unicodedata.category(char) not in HIDDEN or char in "\n\t\u200c\u200d" for char in plain(text))
    assert plain(plain(text)) == plain(text)
    assert isinstance(plain(text).encode(), bytes)
    assert "\n" not in one_line(text)
    assert "\x1b" not in one_line(text)


def test_ordinary_text_is_left_alone():
    for text in ("2 + 2 = 4", "Größe: 3 µm → 猫", "two\nlines\tand a tab", "👩\u200d🔬"):
        assert plain(text) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**53 + 1, 10**5000, "\0", "\udcff"], ids=range(7))
def test_an_unusable_value_is_named_with_its_path(value):
    (line,) = unusable({"a": {"b": [1, value]}})
    assert line.startswith("a.b.1: expected ")
    assert len(line) < 200


def test_usable_values_pass_and_endless_nesting_does_not():
    assert list(unusable({"a": [1, 0.5, "x", None, True, 2**53], "b": {}})) == []
    deep: dict = {}
    for _ in range(DEPTH + 2):
        deep = {"in": deep}
    (line,) = unusable(deep)
    assert "nested" in line


def test_a_value_is_shown_in_few_characters():
    assert shown("x") == "'x'"
    assert len(shown("x" * 10**6)) < 100
    assert shown(10**5000) == "<int>"
    loop: list = []
    loop.append(loop)
    assert len(shown(loop)) < 100


@pytest.mark.parametrize("path", ["~no-such-user/x", "a" * 5000, "\0", ""])
def test_asking_about_a_path_never_raises(path):
    assert not is_file(path)
    assert not is_folder(path) or path == ""
    assert str(expanded(path)) is not None
    assert is_text("é")
    assert not is_text("\ud800")
