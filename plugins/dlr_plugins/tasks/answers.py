"""Reading a number out of a completion."""

import re
from decimal import Decimal, InvalidOperation

_NUMBER = re.compile(r"(?<![\w.])[-\u2212]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?")
_LOOSE_SIGN = re.compile(r"(?:^|[=:(,\n])\s*[-\u2212]\s+$")


def last_number(text: str) -> str | None:
    """The last number of a text, normalised ("-1,234.50" → "-1234.5"); None if there is none.

    A minus that touches the digits is a sign unless something numeric touches it. One before a space is a sign where
    nothing can be subtracted from: "= - 46" and "- 46" are negative, "71 - 46" ends in 46.
    """
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    last = found[-1]
    sign = "-" if _LOOSE_SIGN.search(text[: last.start()]) else ""
    return normalise_number(sign + last.group())


def normalise_number(text: str) -> str | None:
    """Canonical decimal form without thousands separators, or None if the text is not a number."""
    try:
        value = Decimal(text.strip().replace(",", "").replace("\u2212", "-"))
    except InvalidOperation:
        return None
    if not value.is_finite():
        return None
    plain = format(value, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain
