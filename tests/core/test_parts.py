"""Parts: all of it, in order, none too long, and no more of them than must be."""

from hypothesis import given
from hypothesis import strategies as st

from dlr_core.parts import longest, parts


@given(st.integers(0, 300), st.none() | st.integers(1, 400))
def test_parts_are_even_few_and_all(count: int, most: int | None) -> None:
    found = list(parts(count, most))
    assert [place for part in found for place in range(count)[part]] == list(range(count))
    lengths = [part.stop - part.start for part in found]
    assert len(found) == (-(-count // most) if most else min(1, count))
    assert max(lengths, default=0) - min(lengths, default=0) <= 1
    assert longest(count, most) == max(lengths, default=0) <= (most or count)
