"""Reading a number out of a completion, in time that grows with its length and no faster."""

import re
from decimal import Decimal, InvalidOperation

_NUMBER = re.compile(r"(?<![\w.])[-\u2212]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?")
MINUS = "-\u2212"
LONGEST = 1000
"""Digits that an exponent may add to a number: written out, 1e999999999 would fill the memory."""


def last_number(text: str) -> str | None:
    """The last number of a text, normalised ("-1,234.50" → "-1234.5"); None if there is none.

    A minus that touches the digits is a sign unless something numeric touches it. One before a space is a sign where
    nothing can be subtracted from: "= - 46" and "- 46" are negative, "71 - 46" ends in 46.
    """
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    last = found[-1]
    sign = "-" if _ends_with_loose_sign(text[: last.start()]) else ""
    return normalise_number(sign + last.group())


def _ends_with_loose_sign(text: str) -> bool:
    """Whether a text ends in a minus and space, after the beginning, a line end, or one of ``= : ( ,``."""
    signed = text.rstrip()
    if signed == text or not signed.endswith(tuple(MINUS)):
        return False
    before = signed[:-1].rstrip()
    between = signed[len(before) : -1]
    return not before or before[-1] in "=:(," or "\n" in between


def normalise_number(text: str) -> str | None:
    """Canonical decimal form without thousands separators, or None if the text is not a number."""
    try:
        value = Decimal(text.strip().replace(",", "").replace("\u2212", "-"))
    except InvalidOperation:
        return None
    if not value.is_finite() or abs(value.adjusted()) > LONGEST + len(text):
        return None
    plain = format(value, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain
