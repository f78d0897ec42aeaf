"""Text of others made fit for a terminal: nothing in it moves the cursor, changes a colour or hides what is said."""

import unicodedata

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control and format characters, halves of surrogate pairs, line and paragraph separators."""
JOINERS = "\u200c\u200d"
"""Format characters that belong to words and emoji."""


def plain(text: str, keep: str = "\n\t") -> str:
    """The text with everything that a terminal would obey written out: an escape character becomes ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        char
        if char in keep or char in JOINERS or unicodedata.category(char) not in HIDDEN
        else char.encode("unicode_escape").decode()
        for char in text
    )


def one_line(text: str) -> str:
    """:func:`plain` text without line ends."""
    return plain(" ".join(text.splitlines()), keep="")
