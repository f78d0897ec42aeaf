"""Taking many at a time, but not all: as few parts as can be, as long as each other."""

from collections.abc import Iterator


def parts(count: int, most: int | None) -> Iterator[slice]:
    """Slices of ``most`` (all if None) at most, as long as each other but for one, that together are ``count``."""
    number = -(-count // (most or max(1, count)))
    return (slice(count * part // number, count * (part + 1) // number) for part in range(number))


def longest(count: int, most: int | None) -> int:
    """Of the largest of :func:`parts`."""
    return max((part.stop - part.start for part in parts(count, most)), default=0)
