"""Rows that go on from the same prompt, put side by side."""

from collections import Counter
from collections.abc import Sequence


def arrange(prompts_N: Sequence[int]) -> tuple[list[int], int, list[int]]:
    """Groups of equal size, one prompt each, and every row's slot; groups that are not full have empty slots.

    No group is larger than twice the mean number of rows per prompt, rounded up: a prompt with more rows than that has
    several, so that few slots stay empty however uneven the rows are.

    Args:
        prompts_N: which prompt each row goes on from.

    Returns:
        Each group's prompt, the slots of a group, and each row's slot (group · size + place).
    """
    counts = Counter(prompts_N)
    size = min(max(counts.values()), -(-2 * len(prompts_N) // len(counts)))
    groups = [prompt for prompt in sorted(counts) for _ in range(-(-counts[prompt] // size))]
    first = {prompt: groups.index(prompt) for prompt in counts}
    seen: Counter[int] = Counter()
    slots = []
    for prompt in prompts_N:
        slots.append(first[prompt] * size + seen[prompt])  # a prompt's groups follow one another
        seen[prompt] += 1
    return groups, size, slots
