"""Reading a number out of a completion."""

import re
from decimal import Decimal, InvalidOperation

_NUMBER = re.compile(r"(?<![\w.])[-\u2212]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?")


def last_number(text: str) -> str | None:
    """The last number of a text, normalised ("-1,234.50" → "-1234.5"); None if there is none.

    A minus counts as a sign only when it touches the digits and nothing numeric touches it: "71 - 46" ends in 46.
    """
    found = _NUMBER.findall(text)
    return normalise_number(found[-1]) if found else None


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
